"""What a model answered -> captions: cleaned of what is not about the clip, refusals told apart, cut to fit.

Promise   a caption that only looks like talk about the picture ("A video game is shown on a screen") is left as it is;
          to clean again or to cut again changes nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raydist.caption.clean import cleaned
from raydist.caption.cutting import cut_text
from raydist.caption.refusals import is_nothing, is_refusal
from raydist.models.lengths import TextLimit

_SHOWN_CHARACTERS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What an answer is good for."""

    captions: tuple[str, ...]
    """Cleaned, one for each that was wanted; empty where there is a reason."""
    too_long: bool
    """Whether one of them does not fit the encoder."""
    reason: str = ""
    """A word of `records.REASONS`: `refused`, `no_caption`, `bad_answer`."""
    detail: str = ""


def judged(captions: Sequence[str], wanted: int, limit: TextLimit) -> Judged:
    """Clean the captions of an answer and say whether they can be used.

    Args:
        captions: as they came; those beyond `wanted` are left out.
        wanted: how many there must be.
        limit: of the text encoder.
    """
    if not captions:
        return _none("no_caption", "the answer holds no caption")
    if len(captions) < wanted:
        return _none("bad_answer", f"the answer holds {len(captions)} of {wanted} captions: {_shown(captions[0])}")
    found: list[str] = []
    for number, caption in enumerate(captions[:wanted], start=1):
        if is_refusal(caption):
            return _none("refused", f"the model declined: {_shown(caption)}")
        text = cleaned(caption, number)
        if is_refusal(text):
            return _none("refused", f"the model declined: {_shown(caption)}")
        if is_nothing(text):
            return _none("no_caption", f"the answer says nothing: {_shown(caption)}")
        found.append(text)
    return Judged(captions=tuple(found), too_long=not all(map(limit.fits, found)))


def cut(captions: Sequence[str], limit: TextLimit) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Captions that fit, and of each whether it was cut to do so: at a clause, else at a word."""
    texts = tuple(cut_text(caption, limit) for caption in captions)
    return texts, tuple(text != caption for text, caption in zip(texts, captions, strict=True))


def _none(reason: str, detail: str) -> Judged:
    return Judged(captions=(), too_long=False, reason=reason, detail=detail)


def _shown(caption: str) -> str:
    """The caption for a message: one line, not too long, nothing that a table or a terminal would choke on."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in caption).split())
    return repr(line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…")
