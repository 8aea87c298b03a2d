"""ViCLIP from and to its published files.

Reads   a `model.safetensors` in the published layout (packed `in_proj`, `mlp.c_fc`), in any float type
Gives   the module of `towers.py`, whose linear layers are separate
Promise `to_reference(load_reference(file))` is the file's float32 content, bit for bit; unknown or missing tensors are
        an error that names them; code that ships beside published weights is never executed
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from raydist.errors import ModelError
from raydist.models.towers import ViCLIP, ViclipShape

__all__ = [
    "ViCLIP",
    "ViclipShape",
    "from_reference_layout",
    "load_reference",
    "read_shape",
    "shape_from_tensors",
    "tensor_names",
    "to_reference",
    "to_reference_layout",
    "weights_file",
]

HEAD_WIDTH = 64
"""Width of an attention head in every published ViCLIP; a folder's config.json may name other head counts."""

WEIGHTS_FILE = "model.safetensors"

_RENAMED = (("attn.out_proj.", "self_attn.out_proj."), ("mlp.c_fc.", "mlp.fc1."), ("mlp.c_proj.", "mlp.fc2."))
_PACKED = re.compile(r"^(.*\.)attn\.in_proj_(weight|bias)$")
_SPLIT = re.compile(r"^(.*\.)self_attn\.([qkv])_proj\.(weight|bias)$")


def shape_from_tensors(
    shapes: Mapping[str, tuple[int, ...]], *, vision_heads: int | None = None, text_heads: int | None = None
) -> ViclipShape:
    """Infer every dimension from the tensors of the published layout.

    Args:
        shapes: tensor name -> shape, as a safetensors header states them.
        vision_heads, text_heads: where a head is not 64 wide; shapes alone do not tell.

    Raises:
        ModelError: a tensor that decides a dimension is missing or has another number of axes.
    """

    def dims(key: str, axes: int) -> tuple[int, ...]:
        found = shapes.get(key)
        if found is None or len(found) != axes:
            what = "is missing" if found is None else f"has shape {list(found)}, expected {axes} axes"
            raise ModelError(
                f"no ViCLIP in the published layout: tensor {key!r} {what}. Expected a {WEIGHTS_FILE} "
                "with `vision_encoder.*`, `text_encoder.*` and `temp`, like that of OpenGVLab/ViCLIP-B-16-hf."
            )
        return tuple(found)

    width, _, _, patch, _ = dims("vision_encoder.conv1.weight", 5)
    grid = round((dims("vision_encoder.positional_embedding", 2)[0] - 1) ** 0.5)
    vocabulary, text_width = dims("text_encoder.token_embedding.weight", 2)
    return ViclipShape(
        vision_width=width,
        vision_layers=_layers(shapes, "vision_encoder"),
        vision_heads=vision_heads or width // HEAD_WIDTH,
        patch_px=patch,
        image_px=grid * patch,
        frames=dims("vision_encoder.temporal_positional_embedding", 3)[1],
        text_width=text_width,
        text_layers=_layers(shapes, "text_encoder"),
        text_heads=text_heads or text_width // HEAD_WIDTH,
        vocabulary=vocabulary,
        context=dims("text_encoder.positional_embedding", 2)[0],
        embed_dim=dims("vision_encoder.proj", 2)[1],
    )


def load_reference(location: Path | str) -> ViCLIP:
    """Load weights of the published layout in float32 on the CPU, in evaluation mode.

    Args:
        location: a folder with `model.safetensors` (and a config.json where heads are not 64 wide), or the file.

    Raises:
        ModelError: no such file, no safetensors file, or tensors that are missing, unknown or of another shape.
    """
    file = weights_file(location)
    shape = read_shape(file)
    with _opened(file) as source:
        packed = {key: source.get_tensor(key).float() for key in source.keys()}  # noqa: SIM118  # it is no dict
    with torch.device("meta"):
        model = ViCLIP(shape)
    state = from_reference_layout(packed)
    _check_tensors(file, packed, to_reference_layout(model.state_dict()))
    model.load_state_dict(state, assign=True)
    return model.eval()


def to_reference(model: ViCLIP) -> dict[str, Tensor]:
    """The state dict in the published layout: the exact inverse of `load_reference`."""
    return to_reference_layout({key: value.detach() for key, value in model.state_dict().items()})


def weights_file(location: Path | str) -> Path:
    """The safetensors file of a folder, or the file itself.

    Raises:
        ModelError: there is none.
    """
    path = Path(location)
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"no weights at {str(file)!r}; expected a folder that holds {WEIGHTS_FILE}")
    return file


def read_shape(file: Path) -> ViclipShape:
    """Every dimension of a weights file, from its header and the config.json beside it; no weights are read.

    Raises:
        ModelError: not a safetensors file, or not a ViCLIP.
    """
    with _opened(file) as source:
        shapes = {key: tuple(source.get_slice(key).get_shape()) for key in source.keys()}  # noqa: SIM118  # as above
    heads = _heads_of(file.with_name("config.json"))
    return shape_from_tensors(shapes, vision_heads=heads.get("vision"), text_heads=heads.get("text"))


def tensor_names(file: Path) -> list[str]:
    """The names in a safetensors file's header.

    Raises:
        ModelError: not a safetensors file.
    """
    with _opened(file) as source:
        return list(source.keys())


def tensor_types(file: Path) -> set[str]:
    """The number types in a safetensors file's header: `F16`, `F32`, …

    Raises:
        ModelError: not a safetensors file.
    """
    with _opened(file) as source:
        return {source.get_slice(key).get_dtype() for key in source.keys()}  # noqa: SIM118  # as above


def to_reference_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and pack q, k and v; works on weights and on their gradients alike."""
    packed: dict[str, Tensor] = {}
    for key, value in state.items():
        split = _SPLIT.match(key)
        if split is None:
            packed[_replace(key, backwards=True)] = value
        elif split[2] == "q":
            three = [state[f"{split[1]}self_attn.{letter}_proj.{split[3]}"] for letter in "qkv"]
            packed[f"{split[1]}attn.in_proj_{split[3]}"] = torch.cat(three)
    return packed


def from_reference_layout(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_reference_layout`."""
    state: dict[str, Tensor] = {}
    for key, value in packed.items():
        match = _PACKED.match(key)
        if match is None:
            state[_replace(key, backwards=False)] = value
            continue
        for letter, part in zip("qkv", value.chunk(3), strict=False):
            state[f"{match[1]}self_attn.{letter}_proj.{match[2]}"] = part.clone()
    return state


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{str(file)!r} cannot be read as safetensors ({error}); download it again") from error


def _replace(key: str, *, backwards: bool) -> str:
    for reference, ours in _RENAMED:
        old, new = (ours, reference) if backwards else (reference, ours)
        if f".{old}" in key:
            return key.replace(f".{old}", f".{new}")
    return key


def _layers(shapes: Mapping[str, tuple[int, ...]], tower: str) -> int:
    prefix = f"{tower}.transformer.resblocks."
    numbers = {int(key[len(prefix) :].split(".")[0]) for key in shapes if re.match(re.escape(prefix) + r"\d+\.", key)}
    return len(numbers)


def _heads_of(config: Path) -> dict[str, int]:
    """Head counts from config.json: {"vision": {"heads": 4}, "text": {"heads": 4}}; published folders have none."""
    if not config.is_file():
        return {}
    try:
        fields = json.loads(config.read_text(encoding="utf-8"))
        towers = {tower: fields.get(tower) for tower in ("vision", "text")}
        return {
            tower: int(part["heads"]) for tower, part in towers.items() if isinstance(part, dict) and "heads" in part
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{str(config)!r} cannot be read ({error}); expected a JSON object") from error


def _check_tensors(file: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing = sorted(wanted.keys() - found.keys())
    unknown = sorted(found.keys() - wanted.keys())
    if missing or unknown:
        parts = [
            f"{len(keys)} {word} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for word, keys in (("missing", missing), ("unknown", unknown))
            if keys
        ]
        raise ModelError(f"tensors of {str(file)!r} are not those of a ViCLIP: {'; '.join(parts)}. Download it again.")
    for key, tensor in wanted.items():
        if found[key].shape != tensor.shape:
            raise ModelError(
                f"tensor {key!r} of {str(file)!r} has shape {list(found[key].shape)}; expected {list(tensor.shape)}"
            )
