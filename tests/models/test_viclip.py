"""ViCLIP without reference data: torch's own attention gives the same numbers, and files round-trip."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import SMALL, filled, frames, write_viclip
from torch import Tensor, nn

from raydist.errors import ModelError
from raydist.models.tokenizer import Tokenizer
from raydist.models.viclip import (
    ViCLIP,
    ViclipShape,
    from_reference_layout,
    load_reference,
    shape_from_tensors,
    to_reference,
    to_reference_layout,
)


class PackedBlock(nn.Module):
    """A block as the published code has it: nn.MultiheadAttention and torch's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))


@pytest.mark.parametrize("tower", ["vision_encoder", "text_encoder"])
def test_a_block_equals_torchs_packed_attention(tower: str) -> None:
    torch.manual_seed(0)
    model = ViCLIP(SMALL)
    for parameter in model.parameters():  # biases are drawn as zero, which would hide a mistake
        nn.init.normal_(parameter, std=0.1)
    width, heads = (64, SMALL.vision_heads) if tower == "vision_encoder" else (64, SMALL.text_heads)
    packed = PackedBlock(width, heads)
    prefix = f"{tower}.transformer.resblocks.1."
    weights = {key[len(prefix) :]: value for key, value in to_reference(model).items() if key.startswith(prefix)}
    packed.load_state_dict(weights)
    x = torch.randn(3, 12, width)
    mask = nn.Transformer.generate_square_subsequent_mask(12) if tower == "text_encoder" else None
    ours = getattr(model, tower).transformer.resblocks[1](x)
    torch.testing.assert_close(ours, packed(x, mask), atol=2e-6, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    st.builds(
        ViclipShape,
        vision_width=st.sampled_from([8, 16]),
        vision_layers=st.integers(1, 3),
        vision_heads=st.sampled_from([1, 2, 4]),
        patch_px=st.integers(1, 5),
        image_px=st.just(0),
        frames=st.integers(1, 9),
        text_width=st.sampled_from([8, 24]),
        text_layers=st.integers(1, 3),
        text_heads=st.sampled_from([1, 2, 4]),
        vocabulary=st.integers(2, 40),
        context=st.integers(2, 9),
        embed_dim=st.integers(1, 9),
    ),
    st.integers(1, 4),
)
def test_layouts_round_trip_bit_for_bit_and_tell_the_shape(shape: ViclipShape, grid: int) -> None:
    shape = replace(shape, image_px=grid * shape.patch_px)
    model = ViCLIP(shape)
    packed = to_reference(model)
    again = to_reference_layout(from_reference_layout(packed))
    assert packed.keys() == again.keys()
    assert all(torch.equal(packed[key], again[key]) for key in packed)
    shapes = {key: tuple(value.shape) for key, value in packed.items()}
    assert shape_from_tensors(shapes, vision_heads=shape.vision_heads, text_heads=shape.text_heads) == shape


def test_saving_gives_back_the_file(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "small")
    stored, saved = load_file(folder / "model.safetensors"), to_reference(load_reference(folder))
    assert stored.keys() == saved.keys()
    assert all(torch.equal(stored[key], saved[key]) for key in stored)


def test_float16_weights_are_loaded_as_float32(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "small")
    halved = {key: value.half() for key, value in load_file(folder / "model.safetensors").items()}
    save_file(halved, folder / "model.safetensors")
    saved = to_reference(load_reference(folder))
    assert all(value.dtype == torch.float32 and torch.equal(value, halved[key].float()) for key, value in saved.items())


def test_a_clip_of_another_number_of_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="5 frames a clip; this ViCLIP takes 8 or 1"):
        ViCLIP(SMALL).encode_video(torch.zeros(1, 5, 3, 32, 32))


def test_pixels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 8, 3, 30, 32\); expected \[B, T, 3, 32, 32\]"):
        ViCLIP(SMALL).encode_video(torch.zeros(1, 8, 3, 30, 32))


def test_a_text_is_read_at_its_first_end_token() -> None:
    torch.manual_seed(0)
    model = ViCLIP(SMALL)
    ids = torch.tensor([[49406, 5, 49407, 0, 0, 0], [49406, 5, 49407, 9, 49407, 3]])
    first, second = model.encode_text(ids)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        ("text_encoder.ln_final.bias", "", r"1 missing \(text_encoder.ln_final.bias\)"),
        ("", "vision_encoder.extra", r"1 unknown \(vision_encoder.extra\)"),
        ("vision_encoder.conv1.weight", "", r"'vision_encoder.conv1.weight' is missing"),
    ],
)
def test_other_tensors_than_a_viclips_are_refused_by_name(tmp_path: Path, drop: str, add: str, message: str) -> None:
    folder = write_viclip(tmp_path / "small")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(drop, None)
    if add:
        tensors[add] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        load_reference(folder)


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "small")
    tensors = load_file(folder / "model.safetensors")
    tensors["text_encoder.ln_final.bias"] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"ln_final.bias.*has shape \[3\]; expected \[64\]"):
        load_reference(folder)


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "small")
    (folder / "config.json").write_text('{"vision": {"heads": 7}}')
    with pytest.raises(ModelError, match="7 attention heads do not divide the vision width 64"):
        load_reference(folder)


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_a_torn_file_is_refused(tmp_path: Path, size: int) -> None:
    folder = write_viclip(tmp_path / "small")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:size])
    with pytest.raises(ModelError, match=r"model.safetensors' cannot be read as safetensors.*download it again"):
        load_reference(folder)


def test_features_stay_those_that_agreed_with_the_reference(data: Path) -> None:
    # Written by the code that passed test_viclip_parity; it holds positions, pooling and masks in place without it.
    stored = json.loads((data / "viclip_small.json").read_text())
    model = filled(ViCLIP(SMALL))
    pixels = torch.from_numpy(frames(2)).movedim(-1, 2) / 127.5 - 1
    ids = torch.from_numpy(Tokenizer(32).encode(["a red cat", "a dog jumps over the moon"]))
    with torch.inference_mode():
        found = {
            "clip": model.encode_video(pixels),
            "picture": model.encode_video(pixels[:, :1]),
            "text": model.encode_text(ids),
        }
    for name, features in found.items():
        np.testing.assert_allclose(features.numpy(), np.array(stored[name], np.float32), atol=5e-6, rtol=0)
