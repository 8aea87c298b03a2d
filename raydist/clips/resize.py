"""resize: frames to a model's input size, by the model's own rule, bit for bit.

`viclip`  squash to a square, bilinear without antialias, in the fixed point arithmetic of OpenCV's 8-bit resize
`clip`    shortest edge to the size, Pillow's bicubic, centre crop
`squash-bicubic`, `squash-bilinear`   to a square with Pillow's antialiased filter (SigLIP, SigLIP 2)
`fit`     no square: longest edge at most the size, in the shape that a screen shows, never enlarged; Pillow's bicubic
"""

# Shape legend: T frames, H height, W width, C = 3 colours

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Planes: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Red, green and blue of one frame, each [H, W]; views of any layout. numpy is slow along an axis of 3."""

_SQUASH = {"squash-bicubic": Image.Resampling.BICUBIC, "squash-bilinear": Image.Resampling.BILINEAR}
RULES = ("viclip", "clip", *_SQUASH, "fit")

_ONE = 2048
"""1.0 in the fixed point of the weights."""


def resize_frames(frames_THWC: NDArray[np.uint8], size_px: int | None, rule: str) -> NDArray[np.uint8]:
    """Resize frames of square pixels.

    Args:
        frames_THWC: uint8 [T, H, W, 3].
        size_px: edge of the square result, by `fit` the longest edge; None: as they are.
        rule: one of `RULES`.

    Returns:
        uint8 [T, size_px, size_px, 3]; by `fit` [T, H, W, 3] with no edge longer.

    Raises:
        ValueError: if the rule or the size is unknown.
    """
    if size_px is None:
        return frames_THWC
    return np.stack([resize_planes(planes_of(frame_HWC), size_px, rule) for frame_HWC in frames_THWC])


def planes_of(frame_HWC: NDArray[np.uint8]) -> Planes:
    """Views of the colours of uint8 [H, W, 3]."""
    return frame_HWC[..., 0], frame_HWC[..., 1], frame_HWC[..., 2]


def image_of(planes: Planes) -> Image.Image:
    """The same in Pillow."""
    return Image.merge("RGB", [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes])


def resize_planes(
    planes: Planes, size_px: int | None, rule: str, pixel_aspect: Fraction = Fraction(1)
) -> NDArray[np.uint8]:
    """One frame as uint8 [size_px, size_px, 3]; without a size [H, W, 3], the pixels as they are.

    Args:
        pixel_aspect: width ÷ height of a pixel on the screen. It decides what `clip` crops and the shape that `fit`
            gives; squashing undoes it.
    """
    if size_px is None:
        return np.stack(planes, axis=-1)
    if size_px < 1:
        raise ValueError(f"size {size_px}: expected at least 1 pixel")
    if rule == "viclip":
        return _bilinear(planes, size_px, size_px)
    if rule == "clip":
        return _shortest_edge_crop(image_of(planes), size_px, pixel_aspect)
    if rule in _SQUASH:
        return np.asarray(image_of(planes).resize((size_px, size_px), _SQUASH[rule]))
    if rule == "fit":
        height, width = planes[0].shape
        fitted = fitted_size(width, height, size_px, pixel_aspect)
        if fitted == (width, height):
            return np.stack(planes, axis=-1)
        # What is far too large is first averaged over whole pixels: half the time, and no difference to be seen.
        return np.asarray(image_of(planes).resize(fitted, Image.Resampling.BICUBIC, reducing_gap=2.0))
    raise ValueError(f"resize rule {rule!r}: expected one of {', '.join(RULES)}")


def fitted_size(width: int, height: int, longest_px: int, pixel_aspect: Fraction = Fraction(1)) -> tuple[int, int]:
    """Width and height on a screen of square pixels, no edge beyond `longest_px`, none longer than it is."""
    # Pixels that are no squares lose along the edge that has too many of them: nothing is made up.
    wide, high = width * min(pixel_aspect, Fraction(1)), height / max(pixel_aspect, Fraction(1))
    scale = min(Fraction(1), longest_px / max(wide, high))
    return max(1, round(wide * scale)), max(1, round(high * scale))


def bilinear(frame_HWC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bilinear without antialias, in integers: uint8 [H, W, 3] to [height, width, 3].

    Only the at most 2 * height rows and 2 * width columns that enter the result are touched.

    Source: the integer rule of the parity data, which gives OpenCV's 8-bit result bit for bit.
    """
    return _bilinear(planes_of(frame_HWC), height, width)


def _bilinear(planes: Planes, height: int, width: int) -> NDArray[np.uint8]:
    columns = _columns(planes[0].shape[1], width)
    rows = _rows(planes[0].shape[0], height)
    resized = np.empty((height, width, 3), dtype=np.uint8)
    # A colour at a time: what is worked on stays in the cache, and small enough for malloc to keep it.
    for colour, plane in enumerate(planes):
        taken = plane[rows.used]
        across = np.take(taken, columns.low, axis=1) * columns.low_weight
        across += np.take(taken, columns.high, axis=1) * columns.high_weight
        across >>= 4
        upper, lower = across[rows.low], across[rows.high]
        upper *= rows.low_weight[:, None]
        lower *= rows.high_weight[:, None]
        upper >>= 16
        lower >>= 16
        upper += lower
        upper += 2
        upper >>= 2
        resized[..., colour] = upper
    return resized


class _Taps:
    """For each output position the two input positions and their weights."""

    def __init__(self, low: NDArray[np.int64], high: NDArray[np.int64], fraction: NDArray[np.float32]) -> None:
        self.used, places = np.unique(np.concatenate([low, high]), return_inverse=True)
        self.low = places[: len(low)]
        self.high = places[len(low) :]
        self.low_weight = np.rint((np.float32(1) - fraction) * _ONE).astype(np.int32)
        self.high_weight = np.rint(fraction * _ONE).astype(np.int32)


def _positions(n_in: int, n_out: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    exact = ((np.arange(n_out) + 0.5) * n_in / n_out - 0.5).astype(np.float32)
    whole = np.floor(exact)
    return whole.astype(np.int64), exact - whole


@lru_cache(maxsize=64)
def _columns(n_in: int, n_out: int) -> _Taps:
    whole, fraction = _positions(n_in, n_out)
    fraction[(whole < 0) | (whole >= n_in - 1)] = 0
    whole = np.clip(whole, 0, n_in - 1)
    taps = _Taps(whole, np.minimum(whole + 1, n_in - 1), fraction)
    taps.low, taps.high = taps.used[taps.low], taps.used[taps.high]  # columns are taken from the whole row
    return taps


@lru_cache(maxsize=64)
def _rows(n_in: int, n_out: int) -> _Taps:
    # Unlike columns, rows outside keep their fraction: both neighbours are the border row.
    whole, fraction = _positions(n_in, n_out)
    return _Taps(np.clip(whole, 0, n_in - 1), np.clip(whole + 1, 0, n_in - 1), fraction)


def _shortest_edge_crop(picture: Image.Image, size_px: int, pixel_aspect: Fraction) -> NDArray[np.uint8]:
    # Both edges in one unit, so that square pixels leave the numbers that the rule is stated in.
    width, height = picture.width * pixel_aspect.numerator, picture.height * pixel_aspect.denominator
    short = min(height, width)
    new_width, new_height = int(size_px * width / short), int(size_px * height / short)
    left, top = (new_width - size_px) // 2, (new_height - size_px) // 2
    resized = picture.resize((new_width, new_height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size_px, top + size_px)))
