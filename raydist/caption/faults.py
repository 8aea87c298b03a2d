"""What a provider's server answers when it answers no captions -> `AskError`: the same words for all providers.

Promise   a fault that will meet all clips alike is `fatal`, and one that waiting mends says for how long, if the
          server did; no text holds a key
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from raydist.caption.asking import AskError, Kind
from raydist.caption.keys import redacted

_SHOWN_CHARACTERS = 300

_KINDS: Mapping[int, Kind] = {
    401: "fatal",
    402: "fatal",
    403: "fatal",
    404: "fatal",
    405: "fatal",
    408: "timeout",
    409: "server",
    413: "too_big",
    425: "server",
    429: "rate",
    504: "timeout",
}
_DAY = re.compile(r"PerDay|per[ -]day\b|\bRPD\b|\bTPD\b")
_MONEY = re.compile(
    r"insufficient_quota|billing_hard_limit|billing_not_active|spending (?:cap|limit)|credits? (?:balance )?(?:is|are) "
    r"(?:depleted|too low|exhausted)|insufficient (?:credits|funds|balance)",
    re.IGNORECASE,
)
_KEY = re.compile(r"API_KEY|API key|invalid_api_key", re.IGNORECASE)
_PRECONDITION = re.compile(r"FAILED_PRECONDITION|User location is not supported")
_SIZE = re.compile(r"payload size exceeds|(?:request|payload|body|image|file)s? (?:is |are )?too large", re.IGNORECASE)
_POLICY = re.compile(r"content_policy|content_filter|content management policy|moderation|was flagged", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An answer with a status other than 200."""

    status: int
    word: str
    """The server's own name of it, such as `RESOURCE_EXHAUSTED`."""
    message: str
    body: str
    """All that it said, for words to look for."""
    retry_after_s: float | None


def failed(service: str, fault: Fault) -> AskError:
    """The error that a request ends with.

    Args:
        service: who answered, for the message.
    """
    kind = _kind(fault)
    word = f" {fault.word}" if fault.word else ""
    detail = f"{service} answered {fault.status}{word}: {shown(fault.message)}"
    # A quota of the day also says to come again in some seconds, which is not so.
    return AskError(kind, detail, retry_after_s=None if kind == "fatal" else fault.retry_after_s)


def _kind(fault: Fault) -> Kind:
    said = f"{fault.word} {fault.message} {fault.body}"
    if fault.status == 429:
        return "fatal" if _DAY.search(said) or _MONEY.search(said) else "rate"
    if fault.status in (400, 403, 422):
        if _POLICY.search(said):
            return "refused"
        if _KEY.search(said) or _PRECONDITION.search(said) or _MONEY.search(said):
            return "fatal"
        if _SIZE.search(said):
            return "too_big"
    if fault.status >= 500:
        return _KINDS.get(fault.status, "server")
    # Other addresses than the one that was asked (3xx) are not followed: a key would go along.
    return _KINDS.get(fault.status, "clip" if fault.status >= 400 else "fatal")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, given as seconds or as a date; None: it is not there, or is neither.

    Args:
        headers: of any case, such as the clients' own mappings.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    written = headers.get("retry-after", "").strip()
    seconds = _number(written)
    if seconds is not None or not written:
        return seconds
    try:
        then = parsedate_to_datetime(written)
    except (ValueError, TypeError, OverflowError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, then.timestamp() - time.time())


def duration_s(written: str) -> float | None:
    """A duration as google.protobuf writes it (`34.07s`), in seconds; None: it is none."""
    return _number(written.removesuffix("s")) if written.endswith("s") else None


def _number(written: str) -> float | None:
    try:
        seconds = float(written)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def shown(text: str) -> str:
    """What a server said, for a message: one line, without keys, not too long."""
    line = redacted(" ".join("".join(letter if letter.isprintable() else " " for letter in text).split()))
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
