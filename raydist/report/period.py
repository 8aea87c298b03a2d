"""Since when: `12h`, or a day."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from raydist.errors import UsageError

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse(text: str) -> datetime:
    """A moment, with its zone; a day without a zone is one of this machine's.

    Raises:
        UsageError: neither a length of time nor a moment.
    """
    length = _LENGTH.fullmatch(text.strip())
    try:
        if length:
            return datetime.now(UTC) - float(length[1]) * _UNITS[length[2]]
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--since {text!r}: expected a length of time such as 30m, 12h or 3d, or a day or moment such as "
            "2026-11-25 or 2026-11-25T18:00"
        ) from error
