"""A text that is too long -> its beginning that fits: up to the end of a clause, else of a word.

Promise   what comes back fits, is the beginning of the text, and ends in no comma, article or preposition; what fits
          already comes back as it is
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from raydist.models.lengths import TextLimit

DANGLING = re.compile(
    r"an?|the|and|or|but|nor|so|yet|with(?:out|in)?|of|in|on|at|to|from|for|by|as|if|while|when|where|which|who|whom|"
    r"whose|that|than|then|near|over|under|into|onto|upon|off|down|out|through|across|along|around|behind|before|after|"
    r"beside|between|beyond|against|among|towards?|above|below|during|until|since|because|although|is|are|was|were|be|"
    r"been|being|has|have|had|its|his|her|their|our|your|my|this|these|those|very|both|each|every|some|any|no|not|also|"
    r"including|such|like|via|per",
    re.IGNORECASE,
)
"""Words that point at what follows."""
_MARKS = r"[,;:](?=\s)|\s+[-–—]+(?=\s)|—|\s+(?=[(\[])|[，、；。：！？](?=.)"
_SENTENCE = r"(?<=\w\w\w)[.!?](?=\s)|(?<=[)\]\"”’])[.!?](?=\s)|(?<=[.!?])[)\"”’](?=\s)"
_JOINED = r"\s+(?=(?:and|but|while|with|who|which|where|as|before|after|then|because|although|whereas)\s)"
_PLACED = (
    r"\s+(?=(?:or|in|on|at|for|from|when|that|near|beside|behind|under|above|over|across|through|against|into|onto|"
    r"along|around|towards?)\s)"
)
_SENTENCES = re.compile(f"{_SENTENCE}|[。！？](?=.)")
_CLAUSES = re.compile(f"{_MARKS}|{_JOINED}", re.IGNORECASE)
_PHRASES = re.compile(_PLACED, re.IGNORECASE)
# Scripts that put no spaces between words: Thai to Khmer, kana and Han, and their full-width signs.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
_ENDS = " \t\r\n,;:.!?-–—/&+(*[{<“„«‘`，、；。：！？…"
_PAIRS = (("(", ")"), ("[", "]"), ("“", "”"), ("«", "»"))
_LEAST_SHARE = 0.5
"""A clause of fewer of the tokens that fit says too little; the phrase or the words that fit are taken then."""
_SLACK = 16
"""Tokens beyond the room after which no longer beginning is looked at; mending a text may make it a little shorter."""


def cut_text(text: str, limit: TextLimit) -> str:
    """The text, or the longest of its beginnings that fits and reads well; empty only where not one letter fits."""
    if limit.fits(text):
        return text
    text = text.strip()
    least = _LEAST_SHARE * limit.room
    for ends in (*(_ends(kind, text) for kind in (_SENTENCES, _CLAUSES, _PHRASES)), _word_ends(text)):
        fitting = _fitting(text, ends, limit)
        whole = [part for part in fitting if _pairs_are_whole(part) and limit.count(part) >= least]
        if whole:
            return whole[-1]
    if fitting:
        return fitting[-1]
    # A first word that is too long by itself, such as an address.
    return next(reversed(_fitting(text, _letter_ends(text), limit)), "")


def _fitting(text: str, ends: Iterable[int], limit: TextLimit) -> list[str]:
    """Beginnings that fit, shortest first, without what dangles at their end."""
    found: list[str] = []
    for end in ends:
        if limit.count(text[:end]) > limit.room + _SLACK:
            break
        part = _trimmed(text[:end])
        if part and limit.fits(part):
            found.append(part)
    return found


def _trimmed(part: str) -> str:
    """Without marks and small words at its end, which would point at what is gone."""
    while True:
        shorter = part.rstrip(_ENDS)
        if shorter.endswith('"') and shorter.count('"') % 2:
            shorter = shorter[:-1]
        last = shorter.rsplit(None, 1)[-1:] or [""]
        if DANGLING.fullmatch(last[0]):
            shorter = shorter[: -len(last[0])]
        if shorter == part:
            return part
        part = shorter


def _ends(pattern: re.Pattern[str], text: str) -> Iterator[int]:
    return (found.start() for found in pattern.finditer(text) if found.start())


def _word_ends(text: str) -> Iterator[int]:
    for place in range(1, len(text)):
        before, after = text[place - 1], text[place]
        if after.isspace() or ((_UNSPACED.match(before) or _UNSPACED.match(after)) and _begins(before, after)):
            yield place


def _letter_ends(text: str) -> Iterator[int]:
    return (place for place in range(1, len(text)) if _begins(text[place - 1], text[place]))


def _begins(before: str, after: str) -> bool:
    """Whether a letter of its own begins: no accent, no vowel sign, no part of a joined picture."""
    joined = "\u200d" in (before, after)
    return not joined and not unicodedata.category(after).startswith("M") and not "\U0001f3fb" <= after <= "\U0001f3ff"


def _pairs_are_whole(part: str) -> bool:
    return not part.count('"') % 2 and all(part.count(first) == part.count(last) for first, last in _PAIRS)
