"""The perceptual hash of a frame."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from videos import draw

from raydist.clips.resize import planes_of
from raydist.clips.signature import frame_hash, planes_hash


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@pytest.mark.parametrize("size", [(720, 1280), (64, 96), (1, 1), (2, 1920)])
@pytest.mark.parametrize("level", [0, 131, 255])
def test_a_flat_frame_has_hash_zero(size: tuple[int, int], level: int) -> None:
    assert frame_hash(np.full((*size, 3), level, dtype=np.uint8)) == 0


def test_the_hash_is_pinned() -> None:
    frame = next(iter(draw(1, 320, 180, seed=5)))
    assert frame_hash(frame) == 0x80E180E8E0BFAF3E


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 1100), width=st.integers(1, 1100), seed=st.integers(0, 99), turns=st.integers(0, 3))
def test_planes_give_the_hash_of_the_whole_picture(height: int, width: int, seed: int, turns: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    frame = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    red, green, blue = (np.rot90(plane, turns) for plane in planes_of(frame))
    assert planes_hash((red, green, blue)) == plain_hash(np.rot90(frame, turns))


def plain_hash(frame_HWC: NDArray[np.uint8]) -> int:
    """The first writing of it, on all colours at once."""
    rows_HWC = np.ascontiguousarray(frame_HWC[:: max(1, len(frame_HWC) // 256)])
    factor = (max(1, rows_HWC.shape[1] // 128), max(1, rows_HWC.shape[0] // 128))
    small = Image.fromarray(rows_HWC).reduce(factor).convert("L").resize((32, 32), Image.Resampling.BOX)
    angle = np.pi * np.arange(8)[:, None] * (2 * np.arange(32)[None] + 1) / 64
    cosines = np.rint(np.cos(angle) * 1024).astype(np.int64)
    low = (cosines @ np.asarray(small).astype(np.int64) @ cosines.T).ravel()
    low[np.abs(low) < 1 << 18] = 0
    middle = np.median(low[1:])
    return sum(1 << place for place, value in enumerate(low) if place and value > middle)


def test_a_scaled_copy_keeps_most_bits_and_another_picture_does_not() -> None:
    random = np.random.default_rng(1)
    seeds = [Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8)) for _ in range(8)]
    pictures = [seed.resize((640, 360), Image.Resampling.BICUBIC) for seed in seeds]
    copies = [picture.resize((480, 270), Image.Resampling.BICUBIC) for picture in pictures]
    hashes = [frame_hash(np.asarray(picture)) for picture in pictures]
    same = [distance(h, frame_hash(np.asarray(copy))) for h, copy in zip(hashes, copies, strict=True)]
    assert max(same) <= 6
    assert min(distance(a, b) for a, b in combinations(hashes, 2)) > 16


def test_hashes_are_unsigned_and_fit_into_64_bits() -> None:
    hashes = [frame_hash(frame) for frame in draw(20, 96, 64)]
    assert all(0 <= value < 1 << 64 for value in hashes)
    assert len(set(hashes)) > 10
