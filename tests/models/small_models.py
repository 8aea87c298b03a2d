"""Small models for the tests: folders as a user has them, with random weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from raydist.models.viclip import ViCLIP, ViclipShape, to_reference

SMALL = ViclipShape(
    vision_width=64,
    vision_layers=2,
    vision_heads=4,
    patch_px=16,
    image_px=32,
    frames=8,
    text_width=64,
    text_layers=2,
    text_heads=2,
    vocabulary=49408,
    context=32,
    embed_dim=32,
)


def recipe_of(parity: Path) -> ModuleType:
    """The module that draws the weights and inputs of the reference data."""
    sys.path.insert(0, str(parity))
    try:
        import recipe
    finally:
        sys.path.pop(0)
    return recipe  # type: ignore[no-any-return]


def write_viclip(folder: Path, shape: ViclipShape = SMALL, seed: int = 0) -> Path:
    """A ViCLIP folder in the published layout."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(to_reference(ViCLIP(shape)), folder / "model.safetensors")
    heads = {"vision": {"heads": shape.vision_heads}, "text": {"heads": shape.text_heads}}
    (folder / "config.json").write_text(json.dumps(heads))
    return folder


def write_clip(folder: Path, config: Mapping[str, Any] | None = None, seed: int = 0) -> Path:
    """A CLIP folder; without a configuration one with CLIP's own vocabulary and no tokenizer files."""
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = config or {
        "text_config": {**tower, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407},
        "vision_config": {**tower, "image_size": 32, "patch_size": 8},
        "projection_dim": 16,
    }
    torch.manual_seed(seed)
    CLIPModel(CLIPConfig(**config)).save_pretrained(folder)
    return folder


def write_siglip(folder: Path, seed: int = 0) -> Path:
    """A SigLIP folder with a tokenizer of eight words."""
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**tower, "vocab_size": 16, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 1}
    config = SiglipConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8})
    torch.manual_seed(seed)
    SiglipModel(config).save_pretrained(folder)
    write_tokenizer(folder, ["<unk>", "</s>", "a", "red", "cat", "dog", "s", "jumps"], "</s>", "SiglipTokenizer")
    return folder


def write_tokenizer(folder: Path, words: list[str], end: str, kind: str, start: str = "") -> None:
    """A tokenizer.json of whole words; ids are places in the list."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    specials = [(token, words.index(token)) for token in (start, end) if token]
    template = f"{start} $A {end}".strip()
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    tokenizer.add_special_tokens([token for token, _ in specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    fields = {"tokenizer_class": kind, "pad_token": end, "eos_token": end, "unk_token": words[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def frames(count: int, size_px: int = 32, frames_a_clip: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    """Random clips: uint8 [B, T, H, W, 3]."""
    shape = (count, frames_a_clip, size_px, size_px, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def filled(model: ViCLIP, seed: int = 5) -> ViCLIP:
    """The model with every tensor drawn evenly from +-0.2, the same on every platform."""
    random = np.random.Generator(np.random.PCG64(seed))
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            values = random.random(parameter.shape, dtype=np.float32) * np.float32(0.4) - np.float32(0.2)
            parameter.copy_(torch.from_numpy(np.asarray(values)))
    return model.eval()
