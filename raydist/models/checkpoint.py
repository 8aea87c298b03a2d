"""A base with an adapter folded in, as a checkpoint in the base's own layout.

Reads   the base's folder and the adapter's
Writes  ViCLIP: model.safetensors with the published names and packed `in_proj`, config.json; CLIP and SigLIP: what
        transformers' save_pretrained writes, and the tokenizer's and preprocessor's files of the base
Promise folded in float32, then stored in the type of the base: float16 or float32. A bfloat16 base becomes float32,
        because 8 bits of a weight have no room for most of what an adapter adds
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from raydist.models import adapters, lora, viclip
from raydist.models.registry import is_viclip, weights_types

_KEPT = ("*.json", "*.txt", "*.model", "LICENSE*", "NOTICE*")
"""Files of the base that belong to its checkpoint; weights, code and pages about the base do not."""


def write_merged(base: Path, adapter: Path, folder: Path) -> torch.dtype:
    """Write the merged checkpoint into an empty folder; gives the type that it is stored in.

    Raises:
        ModelError: the base is incomplete, or the adapter is for another one.
        OSError: the folder cannot be written.
        SafetensorError: as OSError.
    """
    floats = {kind for kind in weights_types(base) if "F" in kind}
    dtype = torch.float16 if floats == {"F16"} else torch.float32
    card = adapters.read_card(adapter)
    temperature = None if card is None else card.temperature
    if is_viclip(base):
        _write_viclip(base, adapter, folder, dtype, temperature)
    else:
        _write_clip(base, adapter, folder, dtype, temperature)
    for pattern in _KEPT:
        for file in base.glob(pattern):
            if file.is_file() and not file.name.endswith(".index.json") and not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
    return dtype


def _write_viclip(base: Path, adapter: Path, folder: Path, dtype: torch.dtype, temperature: float | None) -> None:
    model = lora.merged(viclip.load_reference(base), adapter)
    tensors = {name: value.to(dtype).contiguous() for name, value in viclip.to_reference(model).items()}
    if temperature is not None:
        tensors["temp"] = torch.tensor(temperature, dtype=dtype)
    save_file(tensors, folder / viclip.WEIGHTS_FILE, metadata={"format": "pt"})
    if not (base / "config.json").is_file():
        heads = {"vision": {"heads": model.shape.vision_heads}, "text": {"heads": model.shape.text_heads}}
        (folder / "config.json").write_text(json.dumps(heads) + "\n", encoding="utf-8")


def _write_clip(base: Path, adapter: Path, folder: Path, dtype: torch.dtype, temperature: float | None) -> None:
    from raydist.models.openai_clip import load_model, read_traits  # transformers takes seconds to import

    model: Any = lora.merged(load_model(base, read_traits(base).model_type), adapter)
    if temperature is not None:
        scale: Tensor = model.logit_scale
        scale.data.fill_(-math.log(temperature))
    model.to(dtype).save_pretrained(folder)
