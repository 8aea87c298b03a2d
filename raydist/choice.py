"""Which model is meant, so that one name never stands for two models of an archive.

Reads  the names, folders and adapters that stand in the schemas of the archive's embeddings tables
Gives  the model to embed with, the table to search, the base to train on; each by name, folder, repository or key
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os.path import isdir
from pathlib import Path

from raydist.errors import ArchiveError, ModelError, StoreError, UsageError
from raydist.models import adapters
from raydist.models.encoder import ModelInfo
from raydist.models.lengths import TextLimit, limit_of
from raydist.models.recall import base_name, recall
from raydist.models.registry import DEFAULT, FAST, base_of, describe, is_fast, plain_name, resolve
from raydist.store import models, objects
from raydist.store.location import is_uri, join
from raydist.store.models import Stored
from raydist.store.runs import FOLDER, fetch, listed


def to_embed(location: str, wanted: str, sampling: str | None = None, adapter: str = "") -> ModelInfo:
    """The model that was named (by name, folder, repository, or its key in the archive), else the archive's only one.

    Args:
        location: the archive.
        wanted: the name; empty: none was named.
        sampling: `fast` is that model on fast-sampled frames, as `@fast` behind its name is; None: as the name says.
        adapter: a run of the archive or a folder; empty: none, but for the one that the name stands for. The model is
            its base where none was named.

    Raises:
        ModelError: the model or the adapter is unknown, not on this machine, or they do not belong together.
        StoreError: none was named and the archive has several; or the name stands for another model there.
    """
    there = models.stored(location)
    if not wanted and not adapter and len(there) > 1:
        raise StoreError(_several(there))
    info = _settled(location, there, wanted, sampling, adapter)
    for model in there:
        if model.name == info.name and model.model_key != info.model_key:
            raise StoreError(_two_models(model, info))
    return info


def to_train(location: str, wanted: str) -> ModelInfo:
    """The base to train on: the one that was named, else the one that all the archive's vectors come from.

    Raises:
        ModelError: the model is unknown or not on this machine.
        StoreError: none was named and the archive has several; or the name stands for another one there.
        UsageError: what was named has an adapter already.
    """
    if wanted:
        info = to_embed(location, wanted)
        if info.adapter:
            raise UsageError(f"--model {wanted!r} has an adapter already; name the base that it was trained on")
        return info
    there = models.stored(location)
    bases = {base_name(model.name, model.adapter): model for model in there}
    if len(bases) > 1:
        raise StoreError(_several(there))
    return _base(location, *next(iter(bases.items()))) if bases else describe(DEFAULT)


def find_adapter(location: str, adapter: str, beside: Sequence[str] = ()) -> Path:
    """The folder of an adapter on this machine: that of a run of the archive, else a folder.

    Args:
        location: the archive; of one in a bucket, the files are brought here.
        adapter: name of a run, or a folder.
        beside: names of other files of the run to bring.

    Raises:
        ModelError: there is no such adapter; the message says which there are.
    """
    if not is_uri(location):
        return adapters.find(adapter, location)
    there = [file.partition("/")[0] for file in listed(location, f"*/{adapters.FOLDER}/{adapters.MARK}")]
    if adapter in there:
        return adapters.find(str(fetch(location, adapter, only=(f"{adapters.FOLDER}/*", *beside)) / adapters.FOLDER))
    place = join(location, FOLDER, adapter)
    if adapters.is_plain(adapter) and objects.read(place, "recipe.json") is not None:
        raise ModelError(adapters.unfinished(adapter, place))
    return adapters.find(adapter, known=there)


def to_search(location: str, wanted: str, adapter: str = "") -> Stored:
    """The model of the archive to search with: the one that was named, else its only one.

    Raises:
        ArchiveError: if nothing was embedded.
        ModelError: if there is no such adapter.
        StoreError: if the archive has none of that name, or several.
    """
    there = models.stored(location)
    if not there:
        raise ArchiveError(
            f"the archive {location!r} has no vectors yet: run `raydist embed` first (`raydist status` has the books)"
        )
    if adapter:
        return _adapted(location, there, wanted, adapter)
    if not wanted:
        if len(there) > 1:
            raise StoreError(_several(there))
        return there[0]
    named = [model for model in there if wanted in (model.name, model.model_key)]
    if len(named) > 1:
        keys = ", ".join(model.model_key for model in named)
        raise StoreError(f"the name {wanted!r} stands for several models of the archive: {keys}. Name one by its key.")
    if named:
        return named[0]
    if isdir(wanted):  # the archive may know the same weights by another name
        info = describe(wanted)
        for model in there:
            if model.model_key == info.model_key:
                return model
    raise StoreError(
        f"the archive has no vectors of {wanted!r}; it has: {models.listed(there)}. "
        f"Search with one of those, or run `raydist embed --model {wanted}` first."
    )


def text_limit(location: str, wanted: str) -> TextLimit:
    """How long a caption may be for the model that was named, else for all that the archive has vectors of.

    Args:
        location: the archive.
        wanted: a name as for `to_embed`; a model with a short name need not be on this machine. Empty: the strictest of
            the archive's models, or the default where it has none.

    Raises:
        ModelError: the model is unknown or not on this machine.
    """
    if wanted:
        name = next(
            (base_name(model.name, model.adapter) for model in models.stored(location) if model.name == wanted), wanted
        )
        return limit_of(name)
    bases = {
        model.location if isdir(model.location) else base_name(model.name, model.adapter)
        for model in models.stored(location)
    }
    return min(map(limit_of, sorted(bases or {DEFAULT})), key=lambda limit: limit.room)


def _settled(location: str, there: Sequence[Stored], wanted: str, sampling: str | None, adapter: str) -> ModelInfo:
    """The model that is meant; whether its name is taken is not looked at."""
    meant = next((model for model in there if _is_meant(model, wanted, adapter)), None)
    if meant is not None:
        own = models.brought(location, meant.adapter)
        name, fast = base_name(meant.name, meant.adapter), is_fast(meant.name)
    else:
        name, own, fast = (*_parted(location, plain_name(wanted)), is_fast(wanted))
    if wanted and fast and sampling == "exact":
        raise UsageError(f"--model {wanted!r} samples fast and embed.sampling=exact does not: leave one of them out")
    if adapter:
        folder = str(find_adapter(location, adapter))
        if own not in ("", folder):
            raise UsageError(f"--model {wanted!r} has the adapter in {own}; --adapter {adapter!r} is another: name one")
        own = folder
    if own and meant is None:
        name = _on(own, name)
    asked = fast if sampling is None else sampling == "fast"
    mark = FAST if asked else ""
    if meant is not None and (own, asked) == (meant.adapter, fast):
        found = recall(meant.model_key, meant.name, meant.location, own)
        if found is not None:
            return found
    if meant is not None or asked != fast:
        # A folder's own name finds it again where the archive knows its place.
        places = [model.location for model in there if model is meant or model.name in (wanted, name)]
        name = next(filter(isdir, places), name)
    return describe((name or DEFAULT) + mark, own or None)


def _on(adapter: str, name: str) -> str:
    """The base to put an adapter on: the one that was named; the adapter's own, wherever it lies, if it bears the name
    or none was named."""
    card = adapters.read_card(Path(adapter))
    return base_of(Path(adapter)) if not name or (card is not None and name == card.base) else name


def _base(location: str, name: str, model: Stored) -> ModelInfo:
    """The base of what made the archive's vectors."""
    try:
        found = recall(model.model_key, model.name, model.location, models.brought(location, model.adapter))
    except ModelError:  # its adapter is gone, which is no matter here
        found = None
    place = found.location if found else model.location
    # A name that the hub knows says more than the folder of a snapshot.
    return describe(place if isdir(place) and not (found and found.repository) else name)


def _is_meant(model: Stored, wanted: str, adapter: str) -> bool:
    if not wanted:
        return not adapter
    return wanted == model.model_key or (bool(model.adapter) and wanted == model.name)


def _parted(location: str, wanted: str) -> tuple[str, str]:
    """The base and the adapter's folder of `tiny+myrun`; a name that is a model's own has no adapter."""
    base, plus, run = wanted.rpartition("+")
    if not plus or not base:
        return wanted, ""
    try:
        resolve(wanted)
    except ModelError:
        return base, str(find_adapter(location, run))
    return wanted, ""


def _adapted(location: str, there: Sequence[Stored], wanted: str, adapter: str) -> Stored:
    """The one model of the archive with that adapter. Its folder may be gone: clips can be searched without it."""
    try:
        folder: Path | None = find_adapter(location, adapter)
    except ModelError:
        if not any(_is_called(model, adapter) for model in there):
            raise
        folder = None
    name = adapter if folder is None else adapters.name_of(folder)
    named = [model for model in there if _is_called(model, name) and (not wanted or _is_of(model, wanted))]
    if not named:
        raise StoreError(
            f"the archive has no vectors of {f'{wanted} with ' if wanted else ''}the adapter {name!r}; it has: "
            f"{models.listed(there)}. Search with one of those, or run `raydist embed --adapter {adapter}` first."
        )
    if len(named) > 1:
        raise StoreError(
            f"the archive has several models with the adapter {name!r}: {models.listed(named)}. Name one with --model."
        )
    (model,) = named
    if folder is None or folder == Path(model.adapter):
        return model
    mark = FAST if is_fast(model.name) else ""
    base = model.location if isdir(model.location) else base_name(model.name, model.adapter)
    info = describe(base + mark, str(folder))
    if info.model_key != model.model_key:
        raise StoreError(_two_models(model, info))
    return replace(model, adapter=str(folder))


def _is_called(model: Stored, name: str) -> bool:
    return bool(model.adapter) and adapters.name_of(Path(model.adapter)) == name


def _is_of(model: Stored, wanted: str) -> bool:
    """Whether a model with an adapter has that base, or is that model."""
    base = base_name(model.name, model.adapter)
    mark = FAST if is_fast(model.name) else ""
    return wanted in (model.name, model.model_key, base + mark, model.location + mark)


def _several(there: Sequence[Stored]) -> str:
    adapted = ", or an adapter of theirs with --adapter" if any(model.adapter for model in there) else ""
    return f"the archive has vectors of several models: {models.listed(there)}. Name one with --model{adapted}."


def _two_models(model: Stored, info: ModelInfo) -> str:
    if info.adapter:
        return (
            f"{info.name!r} would stand for two models: the archive's vectors are of {model.model_key}, the adapter in "
            f"{info.adapter} on the weights in {info.location} is {info.model_key}: it was trained again, or on "
            "another base. Bring the old one back, or copy this one into a folder of another name and embed with "
            "`--adapter FOLDER`."
        )
    return (
        f"{info.name!r} would stand for two models: the archive's vectors are of {model.model_key} (from "
        f"{model.location}), the weights in {info.location} are {info.model_key}. Bring those back, or copy "
        "these into a folder of another name and embed with `--model FOLDER`."
    )
