"""Names -> models.

Reads   folders of weights: bundled, below $RAYDIST_MODELS (else the user's cache folder), anywhere, or from the hub
Gives   what a model is (`describe`, without its weights in memory) and the model itself (`load_encoder`)
Promise code beside weights is never executed and pickled weights are never opened; what is not on this machine and
        cannot be fetched is an error that says what to download and where to put it

A known name (`viclip-b16`) is looked up before folders, so that a folder `tiny` in the current directory changes
nothing; write `./tiny` for the folder.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from raydist.errors import ModelError
from raydist.models import adapters, hub, viclip
from raydist.models.encoder import Encoder, ModelInfo, pick_device
from raydist.models.keys import cache_home, model_key, weights_digest
from raydist.models.viclip_encoder import STATISTICS, ViclipEncoder

if TYPE_CHECKING:
    import torch

FRAMES = 8
"""Frames that stand for a clip, for every model."""

FAST = "@fast"
"""Ends the name of a model that is shown fast-sampled frames: its vectors have a key, and so a table, of their own."""
_FAST_RULE = "key_frames_8-1"
"""How these are chosen; goes up when others are."""

DEFAULT = "viclip-b16"

_PICKLED = (".bin", ".pth", ".pt", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A model with a short name."""

    repository: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A model's folder on this machine."""

    name: str
    folder: Path
    licence: str
    repository: str = ""
    """Where the hub has it, if that is known."""


_VICLIP_LICENCE = "CC-BY-NC-SA-4.0 (not for commercial use)"
KNOWN = {
    "viclip-b16": Known(repository="OpenGVLab/ViCLIP-B-16-hf", licence=_VICLIP_LICENCE),
    "viclip-l14": Known(repository="OpenGVLab/ViCLIP-L-14-hf", licence=_VICLIP_LICENCE),
    "clip-l14-336": Known(repository="openai/clip-vit-large-patch14-336", licence="MIT (OpenAI's CLIP)"),
}
TINY = Located(
    name="tiny", folder=Path(__file__).parent.parent / "demo" / "tiny", licence="Apache-2.0 (bundled with raydist)"
)
_UNKNOWN_LICENCE = "unknown to raydist; see the page the weights came from"


def names() -> tuple[str, ...]:
    """The short names, bundled one first."""
    return (TINY.name, *KNOWN)


def resolve(name: str) -> Located:
    """Find a model's folder, downloading it from the hub where that is possible.

    Args:
        name: a known name; a folder, or its model.safetensors; a name below $RAYDIST_MODELS; a hub repository
            `owner/name`. The first that fits is taken.

    Raises:
        ModelError: there is no such model, or it is not here and cannot be fetched.
    """
    if name == TINY.name:
        return TINY
    if name in KNOWN:
        return _resolve_known(name)
    if not name.strip():
        raise ModelError(f"no model named {name!r}; known: {', '.join(names())}")
    path = Path(name).expanduser()
    if path.name == viclip.WEIGHTS_FILE and path.is_file():
        path = path.parent
    if path.is_dir():
        return TINY if path.resolve() == TINY.folder.resolve() else _at(path, _name_of(path))
    kept = models_home() / name
    if _is_plain(name) and kept.is_dir():
        return _at(kept, name)
    if hub.is_repository(name) and not path.exists():
        short = _short(name)
        return replace(_at(hub.fetch(name, models_home() / short), short), repository=name)
    raise ModelError(_no_such_model(name))


def describe(name: str, adapter: str | None = None) -> ModelInfo:
    """What a model is, from headers, configuration and digests; its weights are not loaded.

    Args:
        name: as for `resolve`; with `@fast` behind it, the model on fast-sampled frames.
        adapter: folder of a LoRA adapter, or None.

    Raises:
        ModelError: as `resolve`; or the folder holds no model that raydist can use.
    """
    return _describe(resolve(plain_name(name)), _adapter_folder(adapter), is_fast=is_fast(name))


def is_fast(name: str) -> bool:
    """Whether a name bears the mark of fast sampling; a folder may be called so, too."""
    return name.endswith(FAST) and not Path(name).expanduser().is_dir()


def plain_name(name: str) -> str:
    """A model's name without the mark of fast sampling."""
    return name.removesuffix(FAST) if is_fast(name) else name


def load_encoder(name: str = "", adapter: str | None = None, device: str = "auto") -> Encoder:
    """Load a model onto a device; an adapter is merged into its weights in float32.

    Args:
        name: as for `describe`; empty: the adapter's base, without one `viclip-b16`.
        adapter: folder of a LoRA adapter for it, or None.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one.

    Raises:
        ModelError: as `describe`; or weights that are incomplete.
        ResourceError: no such device.
    """
    target = pick_device(device)
    folder = _adapter_folder(adapter)
    name = name or (DEFAULT if folder is None else base_of(folder))
    located = resolve(plain_name(name))
    info = _describe(located, folder, is_fast=is_fast(name))
    encoder = _load(located.folder, folder, info, target)
    card = None if folder is None else adapters.read_card(folder)
    if card is not None and card.temperature is not None:
        encoder.temperature = card.temperature
    return encoder


def base_of(adapter: Path) -> str:
    """The name or the folder of the model that an adapter was trained on, as `describe` takes it.

    Raises:
        ModelError: the adapter does not say, or that model is not on this machine.
    """
    card = adapters.read_card(adapter)
    named = [card.base, card.base_location, card.repository] if card else [_stated_base(adapter)]
    problem = "it does not say on what" if not any(named) else ""
    for name in filter(None, named):
        try:
            digest = weights_digest(_weights_of(resolve(name).folder))
        except ModelError as error:
            problem = problem or str(error)
        else:
            if card is None or digest == card.base_digest:
                return name
            problem = problem or f"the {name!r} on this machine has other weights, {digest[:8]}"
    of = f"{card.base!r} (weights {card.base_digest[:8]})" if card else "a model"
    raise ModelError(
        f"the adapter {adapters.name_of(adapter)!r} was trained on {of}, which is not found: {problem.rstrip('.')}. "
        "Name that model's folder with --model."
    )


def weights_types(folder: Path) -> set[str]:
    """The number types that a folder's weights are stored in, as safetensors calls them: `F16`, `F32`, …

    Raises:
        ModelError: it holds no weights.
    """
    return {kind for file in _weights_of(folder) for kind in viclip.tensor_types(file)}


def _load(base: Path, adapter: Path | None, info: ModelInfo, device: torch.device) -> Encoder:
    if not is_viclip(base):
        # Here and not above: transformers takes seconds to import, and ViCLIP does without it.
        from raydist.models.openai_clip import ClipEncoder

        return ClipEncoder(base, info, device, adapter)
    model = viclip.load_reference(base)
    if adapter is not None:
        from raydist.models import lora  # as above: peft imports transformers

        model = lora.merged(model, adapter)
    return ViclipEncoder(model, info, device)


def _stated_base(adapter: Path) -> str:
    """The base as PEFT's own file names it; empty where it does not."""
    try:
        fields = json.loads((adapter / adapters.FILES[0]).read_text(encoding="utf-8"))
        return str(fields.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{str(adapter / adapters.FILES[0])!r} cannot be read ({error})") from error


def models_home() -> Path:
    """Where downloaded models are looked for: $RAYDIST_MODELS, else a folder of the user's cache."""
    stated = os.environ.get("RAYDIST_MODELS")
    return Path(stated).expanduser() if stated else cache_home() / "models"


def _resolve_known(name: str) -> Located:
    known, kept = KNOWN[name], models_home() / name
    folder = kept if kept.is_dir() else hub.fetch(known.repository, kept)
    return Located(name=name, folder=folder, licence=known.licence, repository=known.repository)


def _at(folder: Path, name: str) -> Located:
    licence = KNOWN[name].licence if name in KNOWN else _UNKNOWN_LICENCE
    # Absolute, because a worker of the cluster has another current directory.
    return Located(name=name, folder=folder.absolute(), licence=licence)


def _name_of(folder: Path) -> str:
    """The folder's own name; the repository's for a snapshot in the hub's cache, whose name is a commit."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        repository = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        return _short(repository)
    return folder.name


def _short(repository: str) -> str:
    """The known name of a repository, else its own name without the owner."""
    return next(
        (short for short, known in KNOWN.items() if known.repository == repository), repository.rpartition("/")[2]
    )


def _describe(located: Located, adapter: Path | None, *, is_fast: bool = False) -> ModelInfo:
    files = _weights_of(located.folder)
    digest = weights_digest(files)
    if adapter is not None:
        _check_base(adapter, located, digest)
    if is_viclip(located.folder):
        shape = viclip.read_shape(files[0])
        if shape.frames != FRAMES:
            raise ModelError(f"the ViCLIP in {str(located.folder)!r} takes {shape.frames} frames; expected {FRAMES}")
        size_px, resize, dim, context = shape.image_px, "viclip", shape.embed_dim, shape.context
        statistics, pooling, architecture = STATISTICS, "joint", asdict(shape)
    else:
        from raydist.models.openai_clip import read_traits  # as in load_encoder

        traits = read_traits(located.folder)
        size_px, resize, dim, context = traits.size_px, traits.resize, traits.dim, traits.context
        statistics, pooling, architecture = traits.statistics, "mean of unit frames", dict(traits.architecture)
    parts = {
        "weights": digest,
        "adapter": "" if adapter is None else weights_digest(adapter / name for name in adapters.FILES),
        "frames": FRAMES,
        "size_px": size_px,
        "resize": resize,
        "pooling": pooling,
        "statistics": asdict(statistics),
        "architecture": architecture,
    }
    full_name = located.name if adapter is None else f"{located.name}+{adapters.name_of(adapter)}"
    if is_fast:
        parts["sampling"] = _FAST_RULE
        full_name += FAST
    return ModelInfo(
        name=full_name,
        model_key=model_key(full_name, parts),
        frames=FRAMES,
        sampling="fast" if is_fast else "exact",
        size_px=size_px,
        resize=resize,
        dim=dim,
        context=context,
        licence=located.licence,
        location=str(located.folder),
        digest=digest,
        repository=located.repository,
        adapter="" if adapter is None else str(adapter),
    )


def _check_base(adapter: Path, base: Located, digest: str) -> None:
    """Refuse weights that the adapter was not trained on; one without a card cannot tell."""
    card = adapters.read_card(adapter)
    if card is not None and card.base_digest != digest:
        raise ModelError(
            f"the adapter {adapters.name_of(adapter)!r} was trained on {card.base!r} (weights {card.base_digest[:8]}); "
            f"{base.name!r} in {str(base.folder)!r} has other weights ({digest[:8]}). Leave --model out, or name the "
            "folder of the model that it was trained on."
        )


def is_viclip(folder: Path) -> bool:
    """Whether the weights are a ViCLIP's, by the names of their tensors."""
    file = _weights_of(folder)[0]
    return any(key.startswith("vision_encoder.") for key in viclip.tensor_names(file))


def _weights_of(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the one, or the shards that its index names.

    Raises:
        ModelError: there are none.
    """
    single, index = folder / viclip.WEIGHTS_FILE, folder / f"{viclip.WEIGHTS_FILE}.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{str(index)!r} cannot be read ({error!r}); download it again") from error
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing or not shards:
            raise ModelError(f"{str(folder)!r} lacks {', '.join(missing) or 'weights'}; download the folder again")
        return [folder / shard for shard in shards]
    raise ModelError(_no_weights(folder))


def _no_weights(folder: Path) -> str:
    if not folder.is_dir():
        return f"no folder at {str(folder)!r}"
    present = sorted(entry.name for entry in folder.iterdir())
    if not present:
        return f"{str(folder)!r} is an empty folder; expected {viclip.WEIGHTS_FILE} and config.json of a model"
    pickled = [name for name in present if name.endswith(_PICKLED)]
    if pickled:
        return (
            f"{str(folder)!r} holds pickled weights only ({', '.join(pickled[:3])}), and opening those can run code. "
            f"Get {viclip.WEIGHTS_FILE} of the same model, or convert them with safetensors."
        )
    shown = ", ".join(present[:4]) + (", ..." if len(present) > 4 else "")
    return (
        f"no {viclip.WEIGHTS_FILE} in {str(folder)!r} (it holds {shown}); give the folder that holds a model's weights"
    )


def _adapter_folder(adapter: str | None) -> Path | None:
    if not adapter:
        return None
    folder = Path(adapter).expanduser().absolute()  # a worker of the cluster has another current directory
    if not all((folder / name).is_file() for name in adapters.FILES):
        raise ModelError(adapters.missing(folder))
    return folder


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and os.sep not in name


def _no_such_model(name: str) -> str:
    if not _is_plain(name):
        return f"no model at {name!r}: no such folder. Give a folder with {viclip.WEIGHTS_FILE}, a hub repository \
`owner/name`, or one of {', '.join(names())}."
    near = difflib.get_close_matches(name.lower(), [*names(), *_kept()], n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"no model named {name!r}.{hint} Known: {', '.join(names())}; also a folder with {viclip.WEIGHTS_FILE}, "
        f"one below {str(models_home())!r}, or a hub repository `owner/name`."
    )


def _kept() -> Iterator[str]:
    home = models_home()
    if home.is_dir():
        yield from (entry.name for entry in home.iterdir() if entry.is_dir())
