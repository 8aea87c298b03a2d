"""Subtitles as captions by time: SubRip (`.srt`) and WebVTT (`.vtt`).

Promises  a cue's text is what a viewer reads: one line, without tags, positions and entities; text that stays on the
          screen or rolls up counts once
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, replace

from raydist.caption.times import milliseconds

SUFFIXES = (".srt", ".vtt")

_CLOCK = r"(?:\d+:)?\d{1,3}:\d{1,2}(?:[.,]\d+)?"
_TIMING = re.compile(rf"\s*({_CLOCK})\s*-+>\s*({_CLOCK})(?:\s.*)?")
_MEANT = re.compile(r"\d\s*-+>.*\d")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.,]*>|\{\\[^{}]*\}")
_UNSEEN = re.compile("[\ufeff\u00ad\u200b\u200e\u200f\u2060\u202a-\u202e]")
_BREAK = re.compile(r"\\[Nnh]")
_TOUCHING_MS = 100
"""Cues this close follow each other without a pause."""
_LANGUAGE = re.compile(r"\.([A-Za-z]{2,3})([-_][A-Za-z0-9]{2,8})*(\.(sdh|cc|hi|forced|auto|orig))?", re.IGNORECASE)

_CODES = frozenset(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo
    es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg
    ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn
    no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta
    te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
    ara bul ces chi cze dan deu dut ell eng fas fin fra fre ger gre heb hin hrv hun ind ita jpn kor nld nor pol por ron
    rum rus slk slo slv spa srp swe tha tur ukr vie zho
    """.split()  # noqa: SIM905  # a list of 230 texts in quotes is nothing to read
)
"""Languages: all of ISO 639-1, and of ISO 639-2 those that subtitles mostly have. Other endings are part of a name:
`part.one.srt` is not of `part.mp4`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """A text and when it is shown."""

    line: int
    """Of its times in the file, from 1."""
    start_ms: int
    end_ms: int
    text: str


def cues(text: str) -> tuple[list[Cue], int]:
    """The cues of a file in the order of time, without what they repeat; and how many have no valid times."""
    found: list[Cue] = []
    shown: list[list[str]] = []
    broken = 0
    lines = re.split("\r\n|\n|\r", text)
    place = 0
    while place < len(lines):
        timing = _TIMING.fullmatch(lines[place])
        place += 1
        if timing is None:
            broken += _MEANT.search(lines[place - 1]) is not None
            continue
        begins = place
        while place < len(lines) and lines[place] and not _TIMING.fullmatch(lines[place]):
            place += 1
        ends = place
        # Without an empty line between two cues, the number of the next one is not what this one says.
        if place < len(lines) and lines[place] and ends > begins and lines[ends - 1].strip().isdigit():
            ends -= 1
        start, end = (milliseconds(clock) for clock in timing.groups())
        if start is None or end is None or end <= start:
            broken += 1
            continue
        said = [line for line in map(_seen, lines[begins:ends]) if line]
        found.append(Cue(line=begins, start_ms=start, end_ms=end, text=" ".join(said)))
        shown.append(said)
    order = sorted(range(len(found)), key=lambda number: (found[number].start_ms, found[number].end_ms))
    return _once([found[number] for number in order], [shown[number] for number in order]), broken


def without_language(stem: str) -> str:
    """`talks/film.en` -> `talks/film`, as players name subtitles of several languages; else the stem itself."""
    head, slash, name = stem.rpartition("/")
    found = re.fullmatch(rf"(.+?){_LANGUAGE.pattern}", name, re.IGNORECASE)
    return f"{head}{slash}{found[1]}" if found and found[2].lower() in _CODES else stem


def _seen(line: str) -> str:
    """A line as it is shown."""
    plain = html.unescape(_TAG.sub("", _BREAK.sub(" ", line)))
    return " ".join(_UNSEEN.sub("", plain).split())


def _once(found: list[Cue], shown: list[list[str]]) -> list[Cue]:
    """Without the lines that a cue repeats of the one that it follows or overlaps: one text stays, or rolls up."""
    kept: list[Cue] = []
    before: list[str] = []
    ended_ms = -_TOUCHING_MS - 1
    for cue, said in zip(found, shown, strict=True):
        touches = cue.start_ms <= ended_ms + _TOUCHING_MS
        known = _overlap(before, said) if touches else 0
        fresh = " ".join(said[known:])
        if touches and kept and known and not fresh:
            kept[-1] = replace(kept[-1], end_ms=max(kept[-1].end_ms, cue.end_ms))
        elif touches and kept and fresh.startswith(kept[-1].text + " "):  # written word by word
            kept[-1] = replace(kept[-1], end_ms=max(kept[-1].end_ms, cue.end_ms), text=fresh)
        elif fresh:
            kept.append(replace(cue, text=fresh))
        if said:
            before = said
            ended_ms = max(ended_ms, cue.end_ms) if touches else cue.end_ms
    return kept


def _overlap(before: list[str], said: list[str]) -> int:
    """How many first lines of a cue are the last ones of the cue before."""
    for count in range(min(len(before), len(said)), 0, -1):
        if before[-count:] == said[:count]:
            return count
    return 0
