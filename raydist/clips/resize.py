"""resize: frames to a model's input size, by the model's own rule, bit for bit.

`viclip`  squash to a square, bilinear without antialias, in the fixed point arithmetic of OpenCV's 8-bit resize
`clip`    shortest edge to the size, Pillow's bicubic, centre crop
`squash-bicubic`, `squash-bilinear`   to a square with Pillow's antialiased filter (SigLIP, SigLIP 2)
"""

# Shape legend: T frames, H height, W width, C = 3 colours

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SQUASH = {"squash-bicubic": Image.Resampling.BICUBIC, "squash-bilinear": Image.Resampling.BILINEAR}
RULES = ("viclip", "clip", *_SQUASH)

_ONE = 2048
"""1.0 in the fixed point of the weights."""


def resize_frames(frames_THWC: NDArray[np.uint8], size_px: int | None, rule: str) -> NDArray[np.uint8]:
    """Resize frames.

    Args:
        frames_THWC: uint8 [T, H, W, 3].
        size_px: edge of the square result; None: as they are.
        rule: one of `RULES`.

    Returns:
        uint8 [T, size_px, size_px, 3].

    Raises:
        ValueError: if the rule or the size is unknown.
    """
    if size_px is None:
        return frames_THWC
    return np.stack([resize_frame(frame_HWC, size_px, rule) for frame_HWC in frames_THWC])


def resize_frame(frame_HWC: NDArray[np.uint8], size_px: int | None, rule: str) -> NDArray[np.uint8]:
    """One frame of `resize_frames`: uint8 [H, W, 3] to [size_px, size_px, 3]."""
    if size_px is None:
        return frame_HWC
    if size_px < 1:
        raise ValueError(f"size {size_px}: expected at least 1 pixel")
    if rule == "viclip":
        return bilinear(frame_HWC, size_px, size_px)
    if rule == "clip":
        return _shortest_edge_crop(frame_HWC, size_px)
    if rule in _SQUASH:
        return np.asarray(Image.fromarray(frame_HWC).resize((size_px, size_px), _SQUASH[rule]))
    raise ValueError(f"resize rule {rule!r}: expected one of {', '.join(RULES)}")


def bilinear(frame_HWC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bilinear without antialias, in integers.

    Only the at most 2 * height rows and 2 * width columns that enter the result are touched.

    Source: the integer rule of the parity data, which gives OpenCV's 8-bit result bit for bit.
    """
    columns = _columns(frame_HWC.shape[1], width)
    rows = _rows(frame_HWC.shape[0], height)
    taken = frame_HWC[rows.used]
    # From here on a row is a flat line of width * 3 values: numpy is several times slower along an axis of 3.
    left = np.take(taken, columns.low, axis=1).reshape(len(taken), -1).astype(np.int32)
    right = np.take(taken, columns.high, axis=1).reshape(len(taken), -1).astype(np.int32)
    left *= np.repeat(columns.low_weight, 3)
    right *= np.repeat(columns.high_weight, 3)
    left += right
    left >>= 4
    upper, lower = left[rows.low], left[rows.high]
    upper *= rows.low_weight[:, None]
    lower *= rows.high_weight[:, None]
    upper >>= 16
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    return upper.astype(np.uint8).reshape(height, width, 3)


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


def _shortest_edge_crop(frame_HWC: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    height, width = frame_HWC.shape[:2]
    short = min(height, width)
    new_width, new_height = int(size_px * width / short), int(size_px * height / short)
    picture = Image.fromarray(frame_HWC).resize((new_width, new_height), Image.Resampling.BICUBIC)
    left, top = (new_width - size_px) // 2, (new_height - size_px) // 2
    return np.asarray(picture.crop((left, top, left + size_px, top + size_px)))
