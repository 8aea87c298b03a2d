"""A caption without what models put around it: heads, fences, quotes, numbers, thoughts, remarks.

The rules ask for whole phrases ("this video shows", "in the clip, we see"), not for words: a caption may speak of a
video shop. What a phrase left over may be empty.
"""

from __future__ import annotations

import re
import unicodedata

from raydist.caption.refusals import is_nothing

_ARTICLE = r"(?:the|this|these|those|that|each)"
_KIND = (
    r"(?:short|brief|provided|given|following|first|entire|whole|video|input|uploaded|attached|animated|gif|image|"
    r"still)"
)
_MEDIUM = (
    r"(?:videos?|clips?|footage|images?|pictures?|photos?|photographs?|frames?|film|gif|scenes?|animation|recording|"
    r"stills?|screenshots?|snapshots?|visuals?|montage|(?:image|frame|video|picture|photo) (?:sequence|series)|"
    r"(?:sequence|series|set|collection) of (?:\w+ )?(?:images|frames|pictures|photos|stills)|"
    r"sequence)"
)
_SUBJECT = rf"{_ARTICLE} (?:{_KIND} )*{_MEDIUM}"
_SERIES = r"an? (?:short )?(?:sequence|series|set|collection) of (?:\w+ )?(?:images|frames|pictures|photos|stills)"
_SHOWS = (
    r"(?:shows?|showing|depicts?|depicting|features?|featuring|showcases?|presents?|displays?|captures?|illustrates?|"
    r"portrays?|contains?|pictures?|is showing|are showing|begins with|opens with|starts with|is of|are of|is about|"
    r"(?:appears?|seems?) to (?:show|depict|be showing))"
)
_PLACE = (
    r"(?:on|in|at|behind|above|below|under|up|over|off|near|beside|to|hang|are|stand|line|light|glow|fill|cover|surround|"
    r"flicker)\b"
)
_SEE = (
    r"(?:(?:we|you|one|i|viewers) (?:can )?(?:see|sees|observe|observes|watch)|there (?:is|are) shown|it shows|"
    r"is shown)(?: that\b)?"
)
_HEADS = [
    # This video shows (that) a dog …; not where something is shown in a place.
    rf"(?:{_SUBJECT}|{_SERIES}) (?:(?:mainly|simply|only|also|clearly|first) )?{_SHOWS}(?: us)?(?: that\b)?"
    rf"(?! {_PLACE})",
    # In this clip, (we see) a dog …
    rf"(?:in|throughout|during|over the course of) {_SUBJECT}(?:, {_SEE}|,| {_SEE})",
    # Based on the frames, a dog …
    rf"(?:based on|judging from|judging by|according to) {_SUBJECT},",
    # We can see a dog …
    r"(?:here,? )?(?:(?:we|you|i)(?: can| could)?|one can) (?:see|observe)(?: that\b)?"
    r"(?! (?:what|how|you|through|off))",
    # This is a (short) video of a dog …
    rf"(?:this|it|here) (?:is|appears to be|seems to be) (?:an?|the) (?:{_KIND} )*{_MEDIUM} "
    r"(?:of|showing|that shows|depicting|that depicts|featuring|in which|where)",
]
_HEAD = re.compile(rf"^(?:{'|'.join(_HEADS)})(?:[:,.…]+\s*|\s+|$)", re.IGNORECASE)

_SURE = r"(?:sure|sure thing|certainly|of course|absolutely|okay|ok|no problem|alright|gladly)"
_NOUN = r"(?:captions?|descriptions?|answer|output|response|result|summary|sentence|json)"
_NAME = r"(?:captions?|descriptions?|answer|output|response|json)"
_LABELS = [
    # Sure! Here is the caption you asked for:
    rf"{_SURE}[,.!]+(?=\s|$)",
    r"(?:here(?:'s| is| are)|below (?:is|are)|this is|these are|i(?:'d| would) (?:suggest|propose))"
    rf"(?: (?:the|a|an|my|your|one|some|\d|\w+))?(?: [\w-]+){{0,5}}? {_NOUN}\b[^:.\n]{{0,80}}:",
    # The caption is: …
    rf"(?:the|my|a|one|final) (?:\w+ )?{_NOUN}(?: (?:is|could be|would be))?:",
    # Caption 1: …, Caption (brief): …
    rf"[\"']?(?:(?:short|brief|full|plain|detailed|video|clip|image|final|suggested|english) )*{_NAME}"
    r"\s*(?:#?\d+|\((?:\w+)\))?[\"']?\s*[:=]",
    r"(?:caption|description)\s+\d+\s*[.)-](?=\s|$)",
    r"(?:plain|brief|full|assistant)\s*:",
]
_LABEL = re.compile(rf"^(?:{'|'.join(_LABELS)})\s*", re.IGNORECASE)

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|$)", re.IGNORECASE | re.DOTALL)
_FENCE = re.compile(r"```+[ \t]*(?:json|text|txt|markdown|md|plaintext)?", re.IGNORECASE)
_TAG = re.compile(r"</?(?:caption|answer|output|s)\s*/?>|<\|[^<>|]{1,40}\|>", re.IGNORECASE)
_BULLET = re.compile(r"^(?:[-*•‣▪◦·–—]\s+|#{1,6}\s+)")
_NUMBER = re.compile(r"^\(?(\d{1,2})(?:[.):]|\.\))\s+")
_BEGINS = re.compile(
    r"(?:an?|the|one|two|three|four|five|six|several|many|some|people|persons?|m[ae]n|wom[ae]n|child|children|boys?|girls?|"
    r"someone|young|old|group)\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\s*[(\[]\s*(?:word count:\s*)?\d{1,3}\s*(?:words?|tokens?|characters?)?\s*[)\]]\s*$", re.IGNORECASE
)
_NEEDS_WORD = re.compile(r"words?|tokens?|characters?|count", re.IGNORECASE)
_REMARK = re.compile(
    r"(?<=[.!?])\s+(?:let me know if|please let me know|feel free to|i hope this|would you like|is there anything else|"
    r"note that this (?:caption|description)|this caption)\b.*$",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"(\*\*|__|`)(?=\S)(.+?)(?<=\S)\1")
_PAIRS = {'"': '"', "“": "”", "„": "“", "«": "»", "‘": "’", "'": "'", "`": "`", "*": "*", "「": "」", "『": "』"}
_LONGEST = 4_000
"""Letters of an answer that are looked at: no text encoder reads so many."""
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060\u00ad"))


def cleaned(text: str, number: int = 1) -> str:
    """The caption in a text of a model; empty where there is none.

    Args:
        text: one caption as it came.
        number: which of an answer's captions it is, from 1: a list's number before it is taken away.
    """
    # The first paragraph that is more than a label; what follows it are remarks.
    for part in re.split(r"\n\s*\n", _tidy(text)):
        line = " ".join(part.split())
        while line != (line := _without_one_layer(line, number)):
            pass
        if not is_nothing(line):
            return line
    return ""


def _without_one_layer(text: str, number: int) -> str:
    text = _unquoted(_EMPHASIS.sub(r"\2", text).strip())
    text = _BULLET.sub("", text)
    text = _without_number(text, number)
    text = _REMARK.sub("", _without_count(text.removesuffix("\\n")))
    for pattern in (_LABEL, _HEAD):
        found = pattern.match(_plain_quotes(text))
        if found:
            rest = text[found.end() :].strip(" \t*_:,-–—")
            text = rest[:1].upper() + rest[1:] if text[:1].isupper() else rest
    return text.strip()


def _tidy(text: str) -> str:
    """Without thoughts, fences, tags, and letters that are none; lines kept."""
    text = _THOUGHT.sub("\n", text).lstrip()[:_LONGEST]
    text = _FENCE.sub("\n", _TAG.sub(" ", text))
    kept = (
        letter if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs") else " "
        for letter in text.replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE)
    )
    return "\n".join(" ".join(line.split()) for line in "".join(kept).split("\n")).strip()


def _without_number(text: str, number: int) -> str:
    """Without the number of a list, where it is the right one and a sentence follows: not for 1. FC Köln."""
    found = _NUMBER.match(text)
    if found and int(found[1]) == number and _BEGINS.match(text, found.end()):
        return text[found.end() :]
    return text


def _without_count(text: str) -> str:
    found = _COUNTED.search(text)
    return text[: found.start()] if found and _NEEDS_WORD.search(found[0]) else text


def _unquoted(text: str) -> str:
    """Without quotes around all of it; quotes around its first and its last word are two pairs, and stay."""
    while len(text) > 1 and _PAIRS.get(text[0]) == text[-1]:
        inner = text[1:-1]
        bare = re.sub(r"(?<=\w)'(?=\w)", "", inner)
        if text[0] in bare or text[-1] in bare:
            break
        text = inner.strip()
    return text


def _plain_quotes(text: str) -> str:
    return text.replace("’", "'").replace("‘", "'")
