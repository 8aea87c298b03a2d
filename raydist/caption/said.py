"""The text of an answer -> captions as they came: JSON, JSON between other words, or plain words."""

from __future__ import annotations

import json
import re
from typing import Any

from raydist.caption.asking import AskError
from raydist.caption.faults import shown
from raydist.caption.refusals import is_refusal

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_OPENINGS = re.compile(r"[{\[]")
_JSON = re.compile(r"[{}]|^\[|```|\bcaptions\b")
"""Signs of an answer that was meant to be JSON."""
_FEW = 20
"""Places where JSON is looked for."""


def captions_in(text: str, wanted: int, *, plain: bool = False) -> tuple[str, ...]:
    """The captions of an answer.

    Args:
        wanted: how many there must be; more than that are left out.
        plain: whether words that are no JSON are the caption, where one is wanted.

    Raises:
        AskError: `bad_answer`: none, or too few; `refused`: the model declined in plain words.
    """
    text = _THOUGHTS.sub("", text).strip()
    found = _found(text)
    if found is None:
        if is_refusal(text):
            raise AskError("refused", f"the model declined: {shown(text)!r}")
        if not (plain and wanted == 1 and text and not _JSON.search(text)):
            raise AskError("bad_answer", f"the answer is no JSON with captions: {shown(text)!r}")
        found = (_whole(text),)
    if len(found) < wanted:
        raise AskError("bad_answer", f"the answer has {len(found)} captions instead of {wanted}: {shown(text)!r}")
    return found[:wanted]


def _found(text: str) -> tuple[str, ...] | None:
    """Captions of the first JSON in the text that holds some."""
    decoder = json.JSONDecoder(strict=False)  # models write line breaks into strings
    for opening in list(_OPENINGS.finditer(text))[:_FEW]:
        try:
            value, _ = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        captions = _captions(value)
        if captions is not None:
            return captions
    return None


def _captions(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, dict):
        value = value.get("captions", value.get("caption"))
        if isinstance(value, str):
            return (_whole(value),)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple(map(_whole, value))
    return () if value == [] else None


def _whole(text: str) -> str:
    """The text without halves of UTF-16 pairs, which JSON may hold and no table can."""
    return text.encode("utf-8", "replace").decode()
