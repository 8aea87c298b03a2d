"""Frames get a model's size by the model's own rule, bit for bit."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from raydist.clips.resize import RULES, bilinear, fitted_size, planes_of, resize_frames, resize_planes


@pytest.fixture(scope="module")
def preprocess(shared: Path) -> Path:
    return shared / "parity" / "preprocess"


@pytest.fixture(scope="module")
def recipe(shared: Path) -> Any:
    spec = importlib.util.spec_from_file_location("recipe", shared / "parity" / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_viclip_frames_are_those_of_the_reference(preprocess: Path) -> None:
    known = load_file(preprocess / "viclip.safetensors")
    frames = known["clip.rgb"]
    assert np.array_equal(resize_frames(frames, 32, "viclip"), known["viclip.32x32.uint8"])
    assert np.array_equal(resize_frames(frames[:1], 80, "viclip"), known["viclip.80x80.frame0.uint8"])
    assert np.array_equal(bilinear(frames[0], 28, 40), known["viclip.40x28.frame0.uint8"][0])
    resized = resize_frames(frames, 224, "viclip")
    assert np.array_equal(resized[3], known["viclip.224.frame3.uint8"])


def test_large_viclip_frames_are_those_of_the_reference(preprocess: Path, recipe: Any) -> None:
    resized = resize_frames(recipe.image_u8("preprocess.big", (2, 270, 480, 3), 3), 224, "viclip")
    known = load_file(preprocess / "viclip.safetensors")["viclip.big224.every8.uint8"]
    assert np.array_equal(resized[:, ::8, ::8], known)


@pytest.mark.parametrize("size", [32, 336])
def test_clip_frames_are_those_of_the_reference(preprocess: Path, recipe: Any, size: int) -> None:
    known = json.loads((preprocess / "clip336.json").read_text())
    shapes = {"landscape": (75, 100), "portrait": (101, 77), "upright_small": (20, 31), "large": (430, 611)}
    for name, (height, width) in shapes.items():
        frame = recipe.image_u8("clip." + name, (height, width, 3), 4)
        resized = resize_frames(frame[None], size, "clip")[0]
        digest = hashlib.sha256(np.ascontiguousarray(resized.transpose(2, 0, 1)).tobytes()).hexdigest()
        assert digest == known[f"{name}.{size}"]["uint8_chw_sha256"], name


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 64),
    rule=st.sampled_from(["viclip", "clip"]),
)
def test_a_flat_frame_stays_flat_at_any_size(height: int, width: int, size: int, rule: str) -> None:
    frame = np.full((1, height, width, 3), (0, 130, 255), dtype=np.uint8)
    resized = resize_frames(frame, size, rule)
    assert resized.shape == (1, size, size, 3)
    assert np.array_equal(resized, np.broadcast_to(frame[0, 0, 0], resized.shape))


@settings(max_examples=30, deadline=None)
@given(height=st.integers(2, 90), width=st.integers(2, 90), size=st.integers(1, 80), seed=st.integers(0, 99))
def test_the_integer_rule_is_within_a_level_of_exact_bilinear(height: int, width: int, size: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    along = [np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1) for n in (height, width)]
    low = [np.minimum(np.floor(a).astype(int), n - 1) for a, n in zip(along, (height, width), strict=True)]
    high = [np.minimum(i + 1, n - 1) for i, n in zip(low, (height, width), strict=True)]
    part_y, part_x = (along[0] - low[0])[:, None, None], (along[1] - low[1])[None, :, None]
    rows = [frame[i].astype(float) for i in (low[0], high[0])]
    upper, lower = (row[:, low[1]] * (1 - part_x) + row[:, high[1]] * part_x for row in rows)
    exact = upper * (1 - part_y) + lower * part_y
    assert np.abs(bilinear(frame, size, size) - exact).max() < 1


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700), size=st.integers(1, 240), seed=st.integers(0, 99))
def test_planes_give_what_the_plain_integer_rule_gives(height: int, width: int, size: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(bilinear(frame, size, size), plain_bilinear(frame, size))


def plain_bilinear(frame_HWC: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The rule as its words say it, pixel by pixel of the whole picture."""
    height, width = frame_HWC.shape[:2]
    place_y, place_x = (((np.arange(size) + 0.5) * n / size - 0.5).astype(np.float32) for n in (height, width))
    low_y, low_x = (np.floor(place).astype(np.int64) for place in (place_y, place_x))
    part_y, part_x = place_y - low_y.astype(np.float32), place_x - low_x.astype(np.float32)
    part_x[(low_x < 0) | (low_x >= width - 1)] = 0
    low_x = low_x.clip(0, width - 1)
    wide = frame_HWC.astype(np.int64)
    before, after = wide[:, low_x], wide[:, (low_x + 1).clip(0, width - 1)]
    across = (before * weight(1 - part_x)[:, None] + after * weight(part_x)[:, None]) >> 4
    upper, lower = across[low_y.clip(0, height - 1)], across[(low_y + 1).clip(0, height - 1)]
    upper, lower = upper * weight(1 - part_y)[:, None, None] >> 16, lower * weight(part_y)[:, None, None] >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def weight(part: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.rint(part * 2048).astype(np.int64)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 100), turns=st.integers(0, 3))
@pytest.mark.parametrize("rule", RULES)
def test_turned_views_of_planes_give_what_a_whole_frame_gives(
    rule: str, height: int, width: int, size: int, turns: int
) -> None:
    frame = np.random.default_rng(size).integers(0, 256, (height, width, 3), dtype=np.uint8)
    red, green, blue = (np.rot90(plane, turns) for plane in planes_of(frame))
    whole = np.ascontiguousarray(np.rot90(frame, turns))
    assert np.array_equal(resize_planes((red, green, blue), size, rule), resize_frames(whole[None], size, rule)[0])
    if rule == "clip":
        assert np.array_equal(resize_frames(whole[None], size, rule)[0], plain_crop(Image.fromarray(whole), size))


def plain_crop(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    scale = min(picture.size)
    resized = picture.resize(
        (int(size * picture.width / scale), int(size * picture.height / scale)), Image.Resampling.BICUBIC
    )
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 900), height=st.integers(1, 900), longest=st.integers(1, 700), aspect=st.fractions(1 / 16, 16)
)
def test_what_is_fitted_keeps_the_shape_of_the_screen_and_is_never_enlarged(
    width: int, height: int, longest: int, aspect: Fraction
) -> None:
    wide, high = fitted_size(width, height, longest, aspect)
    assert 1 <= wide <= min(width, longest)
    assert 1 <= high <= min(height, longest)
    shape = aspect * width / height
    if min(wide, high) > 1:
        assert abs(wide - shape * high) <= (1 + shape) / 2  # what rounding both to whole pixels costs
        assert max(wide, high) == longest or wide == width or high == height
    assert (wide, high) == fitted_size(height, width, longest, 1 / aspect)[::-1]


def test_small_frames_are_fitted_as_they_are() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 64, 3), dtype=np.uint8)
    assert np.array_equal(resize_frames(frames, 64, "fit"), frames)
    assert resize_frames(frames, 32, "fit").shape == (2, 20, 32, 3)
    shrunk = np.asarray(Image.fromarray(frames[1]).resize((32, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_frames(frames, 32, "fit")[1], shrunk)


def test_without_a_size_frames_stay_as_decoded() -> None:
    frames = np.zeros((2, 5, 7, 3), dtype=np.uint8)
    assert resize_frames(frames, None, "viclip") is frames


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'nearest'.*viclip, clip"):
        resize_frames(np.zeros((1, 5, 7, 3), dtype=np.uint8), 4, "nearest")
