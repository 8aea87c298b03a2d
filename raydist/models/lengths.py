"""How long a text may be for a model: its tokens, counted as the model itself counts them.

CLIP and ViCLIP share one byte-pair vocabulary; a folder that brings a tokenizer of its own (SigLIP, a CLIP of another
language) is counted with that one. Start and end take places of the context, so a caption has less room than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from raydist.errors import ModelError
from raydist.models.tokenizer import Tokenizer

if TYPE_CHECKING:  # here and in functions: with torch, a process that only counts words would be much larger
    from raydist.models.encoder import ModelInfo

_KNOWN = {"viclip-b16": 32, "viclip-l14": 32, "clip-l14-336": 77}
"""Contexts of the models with a short name that uses CLIP's vocabulary: their weights need not be here."""


@dataclass(frozen=True, slots=True)
class TextLimit:
    """How many tokens of a text a model reads."""

    context: int
    """Tokens, start and end included."""
    folder: str = ""
    """Where the model's own tokenizer lies; empty: CLIP's vocabulary."""

    @property
    def room(self) -> int:
        """Tokens that a caption may have: 30 for ViCLIP, 75 for CLIP."""
        return self.context - (_reader(self.folder)[1] if self.folder else 2)

    def count(self, text: str) -> int:
        """Tokens of a text without start and end, however long it is."""
        return len(_reader(self.folder)[0](text))

    def fits(self, text: str) -> bool:
        """Whether the model reads all of a text."""
        return self.count(text) <= self.room


def text_limit(info: ModelInfo) -> TextLimit:
    """The limit of a model that has been looked at.

    Raises:
        ModelError: its folder holds no tokenizer that raydist reads.
    """
    return _limit(info.context, Path(info.location))


def limit_of(name: str) -> TextLimit:
    """The limit of a model by its name; one with a short name need not be on this machine.

    Args:
        name: as for `registry.resolve`; a mark of fast sampling changes nothing.

    Raises:
        ModelError: there is no such model, or it is not here and cannot be fetched.
    """
    from raydist.models import registry, viclip

    name = registry.plain_name(name)
    if name in _KNOWN:
        return TextLimit(_KNOWN[name])
    folder = registry.resolve(name).folder
    if registry.is_viclip(folder):
        return TextLimit(viclip.read_shape(folder / viclip.WEIGHTS_FILE).context)
    from raydist.models.openai_clip import read_traits  # transformers takes seconds to import

    return _limit(read_traits(folder).context, folder)


def _limit(context: int, folder: Path) -> TextLimit:
    from raydist.models import registry

    if registry.is_viclip(folder):
        return TextLimit(context)
    from raydist.models.openai_clip import has_own_tokenizer  # as above

    return TextLimit(context, str(folder) if has_own_tokenizer(folder) else "")


@cache
def _reader(folder: str) -> tuple[Callable[[str], list[int]], int]:
    """From a text to its ids, and how many places of the context start and end take."""
    if not folder:
        return Tokenizer(2, drop_markers=True).body, 2
    from raydist.models.openai_clip import text_ids  # as above

    try:
        return text_ids(Path(folder))
    except OSError as error:
        raise ModelError(f"the tokenizer of {folder!r} cannot be read ({error}); download the folder again") from error
