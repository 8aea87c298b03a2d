"""The perceptual hash of a frame."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from videos import draw

from raydist.clips.signature import frame_hash


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@pytest.mark.parametrize("size", [(720, 1280), (64, 96), (1, 1), (2, 1920)])
@pytest.mark.parametrize("level", [0, 131, 255])
def test_a_flat_frame_has_hash_zero(size: tuple[int, int], level: int) -> None:
    assert frame_hash(np.full((*size, 3), level, dtype=np.uint8)) == 0


def test_the_hash_is_pinned() -> None:
    frame = next(iter(draw(1, 320, 180, seed=5)))
    assert frame_hash(frame) == 0x80E180E8E0BFAF3E


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
