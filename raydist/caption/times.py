"""Times in a file as people write them."""

from __future__ import annotations

import math
import re
from typing import Any

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d{1,3}):)?(\d+(?:[.,]\d+)?)s?")

_MOST_MS = 1e15
"""Beyond any file, and within 64 bits."""


def milliseconds(value: Any, *, in_ms: bool = False) -> int | None:
    """A time as people write it: 12.5, "12,5", "1:02", "00:01:02,500"; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        number = float(value) if abs(value) < _MOST_MS else math.inf
        return _rounded(number if in_ms else number * 1000)
    found = _CLOCK.fullmatch(str(value).strip())
    if found is None:
        return None
    hours, minutes, rest = (float((part or "0").replace(",", ".")) for part in found.groups())
    return _rounded(rest if in_ms else (hours * 3600 + minutes * 60 + rest) * 1000)


def _rounded(time_ms: float) -> int | None:
    return round(time_ms) if math.isfinite(time_ms) and 0 <= time_ms < _MOST_MS else None
