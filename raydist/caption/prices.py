"""What a model asks for: the bundled table, and a file of the user's own before it.

Reads   `prices.toml` beside this file; the file that `caption.prices` names, of the same keys
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from raydist.caption.asking import Media
from raydist.errors import UsageError

BUNDLED = Path(__file__).with_name("prices.toml")

_SMALL_PX = 384
_TEXT_LETTERS = 4
"""Letters of English a token, roughly, whatever the tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of one model. Money is in the table's currency."""

    input: float
    """A million tokens."""
    output: float
    batch: float = 1.0
    """Share of both that the batch API asks for."""
    image_tokens: int = 258
    tile_px: int = 0
    """0: a picture costs the same whatever its size."""
    clip_tokens: float = 70.0
    """A second of video."""
    as_of: str = ""
    currency: str = ""
    source: str = ""
    """The file that says so."""

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Of so many tokens."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6

    def halved(self) -> Price:
        """What the batch API asks for."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Price(**{**values, "input": self.input * self.batch, "output": self.output * self.batch, "batch": 1.0})


def price_of(model: str, file: str = "") -> Price | None:
    """The price of a model; None where no table has it.

    Raises:
        UsageError: the file is missing or no table of prices.
    """
    for path in ([Path(file).expanduser()] if file else []) + [BUNDLED]:
        table = _read(path)
        found = table.get("models", {}).get(model)
        if found is not None:
            return _price(path, model, found, table)
    return None


def media_tokens(price: Price | None, media: Media) -> int:
    """Tokens of what is sent of one clip, as far as the table knows; measured figures go before it."""
    price = price or Price(input=0.0, output=0.0)
    if media.clip:
        return math.ceil(price.clip_tokens * media.duration_s)
    large = price.tile_px and max(media.width_px, media.height_px) > _SMALL_PX
    tiles = math.ceil(media.width_px / price.tile_px) * math.ceil(media.height_px / price.tile_px) if large else 1
    return len(media.frames) * price.image_tokens * tiles


def text_tokens(text: str) -> int:
    """Tokens of a text, roughly."""
    return math.ceil(len(text) / _TEXT_LETTERS)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"caption.prices={str(path)!r} cannot be read ({error.strerror}): expected a TOML file such as {BUNDLED}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"caption.prices={str(path)!r} is no TOML ({error}): expected one such as {BUNDLED}"
        ) from error


def _price(path: Path, model: str, found: Any, table: Mapping[str, Any]) -> Price:
    own = {field.name for field in fields(Price)} - {"as_of", "currency", "source"}
    what = f"caption.prices={str(path)!r}, [models.{model!r}]"
    if not isinstance(found, Mapping):
        raise UsageError(f"{what} is {found!r}: expected `input` and `output`, in money a million tokens")
    unknown = sorted(set(found) - own)
    if unknown:
        raise UsageError(f"{what} has {unknown[0]!r}: expected some of {', '.join(sorted(own))}")
    lacking = [name for name in ("input", "output") if name not in found]
    if lacking:
        raise UsageError(f"{what} lacks {lacking[0]!r}: expected money a million tokens")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UsageError(f"{what}: {name} = {value!r}: expected a number, 0 or more")
    return Price(
        **found,
        as_of=str(table.get("as_of", "")),
        currency=str(table.get("currency", "")),
        source=str(path),
    )
