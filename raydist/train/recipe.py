"""What decides a run's result, kept in its folder: another start of the run must have the same.

Writes    `<run>/recipe.json`, last of all: a run whose folder has it has begun
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raydist.errors import ConfigError
from raydist.models.encoder import ModelInfo
from raydist.sections import Train
from raydist.store import objects
from raydist.train.task import RECIPE

_FREE = frozenset({"micro_batch", "checkpointing", "workers", "device", "cache_gb", "checkpoint_steps", "leaks"})
"""Settings that a run may be continued with other values of: they change what it costs, not what comes out."""


def stated(section: Train, info: ModelInfo) -> dict[str, Any]:
    """The part that is known before any clip is looked at."""
    values = {name: value for name, value in section.model_dump().items() if name not in _FREE}
    # Frames that were kept raw and frames that are decoded anew are the same.
    cache = section.cache if section.cache == "jpeg" else "raw or none"
    return {"model": info.name, "model_key": info.model_key, **values, "cache": cache}


def has_begun(folder: str) -> bool:
    """Whether the folder is that of a run that has begun."""
    return objects.read(folder, RECIPE) is not None


def write(folder: str, recipe: Mapping[str, Any]) -> None:
    """The run begins."""
    objects.replace(folder, RECIPE, json.dumps(recipe, indent=2).encode())


def read(folder: str) -> dict[str, Any]:
    """What a run that has begun was begun with."""
    recipe: dict[str, Any] = json.loads(objects.read(folder, RECIPE) or b"{}")
    return recipe


def refuse_other(folder: str, recipe: Mapping[str, Any]) -> None:
    """
    Args:
        recipe: of the run, or the part that is known so far.

    Raises:
        ConfigError: the run has begun with other values.
    """
    before = read(folder)
    changes = "; ".join(
        f"{key} was {before.get(key)!r} and is {value!r}" for key, value in recipe.items() if before.get(key) != value
    )
    if changes:
        raise ConfigError(
            f"the run {folder.rpartition('/')[2]!r} was begun otherwise: {changes}. Go on with its values, or give "
            "another --run NAME"
        )
