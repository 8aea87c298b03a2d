"""Names under which lists and files keep captions and times, and the captions in what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raydist.tabular import plain

TEXTS = ("caption", "captions", "text", "texts", "description", "title", "sentence", "prompt", "label")
STARTS = ("start", "start_s", "start_time", "start_sec", "start_seconds", "start_ms", "begin", "from", "t_start")
ENDS = ("end", "end_s", "end_time", "end_sec", "end_seconds", "end_ms", "stop", "to", "t_end")
MOMENTS = ("time", "time_s", "timestamp", "moment", "at", "time_ms")


def text_of(values: Mapping[str, Any], named: str = "") -> tuple[str, Any]:
    """The key of an object's captions, and what it holds; ("", None) where there are none.

    Args:
        named: the key to take; empty: the first known one that holds something.
    """
    names = (plain(named),) if named else TEXTS
    for name in names:
        for key, value in values.items():
            if plain(key) == name and value not in (None, "", []):
                return key, value
    return "", None


def texts_of(value: Any) -> list[str] | None:
    """The captions in a value: a text, a list of texts, or of objects that hold one; None if there is anything else."""
    if value is None:
        return []
    if isinstance(value, str):
        text = whole(value).strip()
        return [text] if text else []
    if isinstance(value, dict):
        key, inner = text_of(value)
        return texts_of(inner) if key and not isinstance(inner, dict) else None
    if not isinstance(value, list):
        return None
    numbers = [each.get("number") for each in value if isinstance(each, dict)]
    # Captions of several models are numbered each for themselves, and stand as they should.
    if len(set(map(str, numbers))) == len(value) and all(isinstance(number, int) for number in numbers):
        value = sorted(value, key=lambda each: int(each["number"]))
    found: list[str] = []
    for each in value:
        texts = None if isinstance(each, list) else texts_of(each)
        if texts is None:
            return None
        found += [text for text in texts if text not in found]
    return found


def whole(text: str) -> str:
    """A text without halves of characters, which JSON may hold and no table."""
    return text.encode("utf-8", errors="replace").decode()
