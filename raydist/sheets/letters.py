"""Words in pictures: fonts for any script that this machine has letters of, lines that fit, text on one line."""

from __future__ import annotations

import unicodedata
from functools import cache

from PIL import ImageFont

# Tried in turn for scripts that Pillow's own font lacks; looked up in the system's folders.
_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")
_NO_CHARACTER = "\U0010ffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def cleaned(text: str) -> str:
    """The text on one line, without control characters and halves of surrogate pairs, which no writer takes."""
    kept = "".join(" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text[:2000])
    return " ".join(kept.split())


def lines(text: str, font: Font, width: int, count: int) -> list[str]:
    """At most so many lines that fit, cut between words where there are spaces; what is left out is marked by dots."""
    found: list[str] = []
    while text and len(found) < count:
        fits = next((n for n in range(len(text), 1, -1) if font.getlength(text[:n]) <= width), 1)
        if fits < len(text):
            space = text.rfind(" ", 1, fits + 1)
            fits = space if space > 0 else fits
        found.append(text[:fits].rstrip())
        text = text[fits:].lstrip()
    if text:
        found[-1] = found[-1][:-2].rstrip() + "..."
    return found


def font_for(text: str, size: int) -> Font:
    """The font that has the most letters of the text; Pillow's own where it has them all."""
    letters = sorted(set(text))
    return max(fonts(size), key=lambda font: sum(has(font, letter) for letter in letters))


@cache
def fonts(size: int) -> list[Font]:
    """All fonts of this size, Pillow's own first."""
    found: list[Font] = [ImageFont.load_default(size)]
    for name in _SYSTEM_FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return found


@cache
def has(font: Font, letter: str) -> bool:
    """Whether a font has a letter, and no box in its place."""
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask(_NO_CHARACTER))
