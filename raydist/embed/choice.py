"""Which model to embed with, so that one name never stands for two models of an archive."""

from __future__ import annotations

from os.path import isdir

from raydist.errors import StoreError, UsageError
from raydist.models.encoder import ModelInfo
from raydist.models.recall import recall
from raydist.models.registry import FAST, describe, is_fast, plain_name
from raydist.store import models

DEFAULT_MODEL = "viclip-b16"


def choose_model(location: str, wanted: str, sampling: str | None = None) -> ModelInfo:
    """The model that was named (by name, folder, repository, or its key in the archive), else the archive's only one.

    `sampling="fast"` is that model on fast-sampled frames, as `@fast` behind its name is; None: as the name says.

    Raises:
        ModelError: the model is unknown or not on this machine.
        StoreError: none was named and the archive has several; or the name stands for another model there.
    """
    there = models.stored(location)
    if not wanted and len(there) > 1:
        raise StoreError(f"the archive has vectors of several models: {models.listed(there)}. Name one with --model.")
    if sampling is not None:
        known = [model.name for model in there if not wanted or model.model_key == wanted]
        named = known[0] if known else wanted or DEFAULT_MODEL
        if wanted and is_fast(named) and sampling == "exact":
            raise UsageError(
                f"--model {wanted!r} samples fast and embed.sampling=exact does not: leave one of them out"
            )
        if is_fast(named) != (sampling == "fast"):
            place = next((model.location for model in there if model.name == named and isdir(model.location)), "")
            wanted = (place or plain_name(named)) + (FAST if sampling == "fast" else "")
    meant = there if not wanted else [model for model in there if model.model_key == wanted]
    if not meant:
        info = describe(wanted or DEFAULT_MODEL)
    else:
        info = recall(meant[0].model_key, meant[0].name, meant[0].location) or describe(meant[0].name)
    for model in there:
        if model.name == info.name and model.model_key != info.model_key:
            raise StoreError(
                f"{info.name!r} would stand for two models: the archive's vectors are of {model.model_key} (from "
                f"{model.location}), the weights in {info.location} are {info.model_key}. Bring those back, or copy "
                "these into a folder of another name and embed with `--model FOLDER`."
            )
    return info
