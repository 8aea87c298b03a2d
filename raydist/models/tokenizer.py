"""Texts -> token ids of CLIP's byte-pair vocabulary of 49,408, which ViCLIP shares.

Reads   `bpe_simple_vocab_16e6.txt.gz` beside this file (MIT, from open_clip; its licence lies beside it)
Promise the ids of the published tokenizer, id for id: text is mended with ftfy, HTML-unescaped twice, its white space
        collapsed, stripped and lower-cased; too long a text is cut and still ends with the end token

A text may spell the markers `<|startoftext|>` and `<|endoftext|>`; the published tokenizer makes special ids of them,
so whoever writes a caption can cut off what follows. That is kept here for exactness; encoders, which take texts from
outside, ask for `drop_markers`.
"""

# Shape legend: B texts, L context

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import ftfy
import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers

VOCABULARY = 49408
START, END, PAD = 49406, 49407, 0

_MARKERS = {"<|startoftext|>": START, "<|endoftext|>": END}
_ANY_MARKER = re.compile("|".join(re.escape(marker) for marker in _MARKERS), re.IGNORECASE)
# A marker counts where a word may begin; behind a sign ("!<|") it is a row of signs like any other.
_MARKER_RUN = re.compile(rf"(?<![^\w\s\u0345])(?<!_)((?:{_ANY_MARKER.pattern})+)")
_MERGES_FILE = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
_MERGES = VOCABULARY - 2 * 256 - len(_MARKERS)
# U+0345 is a mark whose capital is a letter; the published pattern ignores case and so finds it in no class.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"


class Tokenizer:
    """Encodes texts to a fixed number of ids."""

    def __init__(self, context: int, *, drop_markers: bool = False) -> None:
        """
        Args:
            context: ids a text; 32 for ViCLIP, 77 for CLIP.
            drop_markers: read a marker that a text spells as white space, not as a special id.
        """
        if context < 2:
            raise ValueError(f"context {context}; the start and the end token alone take 2")
        self.context = context
        self.drop_markers = drop_markers

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Ids of each text: (B, L), start and end token included, padded with 0."""
        ids_BL = np.full((len(texts), self.context), PAD, dtype=np.int64)
        for row, text in zip(ids_BL, texts, strict=True):
            ids = [START, *self.body(text), END][: self.context]
            ids[-1] = END
            row[: len(ids)] = ids
        return ids_BL

    def body(self, text: str) -> list[int]:
        """Ids of one text without start, end, padding and limit."""
        cleaned = without_markers(clean(text)) if self.drop_markers else clean(text)
        ids: list[int] = []
        for part in _MARKER_RUN.split(cleaned):
            if _MARKER_RUN.fullmatch(part):
                ids.extend(_MARKERS[marker] for marker in _ANY_MARKER.findall(part))
            else:
                ids.extend(_bpe().encode(part, add_special_tokens=False).ids)
        return ids


def clean(text: str) -> str:
    """Mend the text, resolve HTML entities, collapse white space, lower-case it."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text.strip()).strip().lower()


def without_markers(text: str) -> str:
    """The text with each literal start or end marker, in any letter case, read as white space."""
    # A space in between, so that the halves around a marker cannot form a new one.
    return _ANY_MARKER.sub(" ", text)


@cache
def _bpe() -> tokenizers.Tokenizer:
    lines = gzip.decompress(_MERGES_FILE.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = _letters()
    names = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges)]
    model = models.BPE({name: number for number, name in enumerate(names)}, merges, end_of_word_suffix="</w>")
    bpe = tokenizers.Tokenizer(model)
    words = pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True)
    letters_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, letters_only])
    return bpe


def _letters() -> list[str]:
    """A printable letter for each byte, in the order of the vocabulary: the printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]
