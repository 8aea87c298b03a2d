"""Find the model again that made the vectors of an archive: by its key, at the names and places it was known by."""

from __future__ import annotations

from pathlib import Path

from raydist.errors import ModelError
from raydist.models import adapters
from raydist.models.encoder import ModelInfo
from raydist.models.registry import FAST, describe, is_fast, plain_name


def recall(model_key: str, name: str, location: str, adapter: str = "") -> ModelInfo | None:
    """The model of that key today, by its name, else in its folder; None if neither is that model.

    A folder called `tiny` and the bundled `tiny` have one name and two keys, so a name alone does not tell.

    Args:
        model_key: of the model with its adapter.
        name: with all its marks, as the archive has it.
        location: the folder of its weights.
        adapter: the folder of its adapter; empty: none.

    Raises:
        ModelError: the adapter is gone; or neither stands for a model on this machine, then the message is that of
            the folder where there is one, else of the name.
    """
    if adapter and not Path(adapter).is_dir():
        raise ModelError(adapters.missing(Path(adapter)))
    problems: list[ModelError] = []
    # The folder of a model says nothing of how it was used; its name does.
    mark = FAST if is_fast(name) else ""
    given = [base for base in (base_name(name, adapter), location) if base]
    for base in given:
        try:
            info = describe(base + mark, adapter or None)
        except ModelError as error:
            problems.append(error)
        else:
            if info.model_key == model_key:
                return info
    if problems and len(problems) == len(given):
        raise problems[-1 if location and Path(location).is_dir() else 0]
    return None


def base_name(name: str, adapter: str) -> str:
    """A model's name without those of its adapter and its sampling."""
    return plain_name(name).removesuffix(f"+{adapters.name_of(Path(adapter))}" if adapter else "")
