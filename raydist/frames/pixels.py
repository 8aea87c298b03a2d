"""frames/pixels: how a clip's frames are kept: raw, or as JPEG pictures of quality 95 with full colour.

Promises  raw frames come back bit for bit; a JPEG's size in bytes depends on the pictures, the estimate is on the safe
          side of ordinary video
"""

# Shape legend: T frames, H height, W width

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydist.clips.decoder import Geometry
from raydist.clips.sampling import CANDIDATES
from raydist.store import frames as tables

RAW, JPEG, NONE = "raw", "jpeg", "none"
ENCODINGS = (RAW, JPEG, NONE)

_QUALITY = 95
_JPEG_BYTES_A_PIXEL = 0.6
"""Measured on real files of many kinds: 0.40 at 336 pixels, 0.49 at 224."""
_ROW_BYTES = 512
"""Key, fingerprint, times, and a share of the table's own books."""


def check(encoding: str, candidates: int) -> None:
    """
    Raises:
        ValueError: another encoding, or another number of candidates.
    """
    if encoding not in ENCODINGS or candidates not in (1, CANDIDATES):
        raise ValueError(
            f"encoding {encoding!r}, {candidates} candidates: expected one of {', '.join(ENCODINGS)}, 1 or {CANDIDATES}"
        )


def decoded(geometry: Geometry, candidates: int) -> Geometry:
    """What is decoded of a clip so that each of its frames can be one of some candidates."""
    if candidates == 1:
        return geometry
    return replace(geometry, frames=geometry.frames * candidates, sampling="thirds")


def table_of(geometry: Geometry, encoding: str, candidates: int) -> str:
    """The table that holds such frames."""
    kept = decoded(geometry, candidates)
    return tables.table_name(
        resize=kept.resize, size_px=kept.size_px, sampling=kept.sampling, frames=kept.frames, encoding=encoding
    )


def bytes_a_clip(geometry: Geometry, encoding: str, candidates: int) -> float:
    """What a clip takes on disk, about."""
    pixels = geometry.frames * candidates * geometry.size_px**2
    return _ROW_BYTES + pixels * (_JPEG_BYTES_A_PIXEL if encoding == JPEG else 3)


def pack(frames_THWC: NDArray[np.uint8], encoding: str) -> bytes:
    """Frames as they are kept."""
    if encoding != JPEG:
        return frames_THWC.tobytes()
    pictures = [_as_jpeg(frame) for frame in frames_THWC]
    return np.array([len(picture) for picture in pictures], "<u4").tobytes() + b"".join(pictures)


def unpack(data: memoryview, geometry: Geometry, candidates: int, encoding: str) -> NDArray[np.uint8] | None:
    """Frames of one clip, [T * candidates, H, W, 3]; None where `data` does not hold them."""
    count, side = geometry.frames * candidates, geometry.size_px
    shape = (count, side, side, 3)
    if encoding != JPEG:
        whole = len(data) == count * side * side * 3
        return np.frombuffer(data, np.uint8).reshape(shape) if whole else None
    if len(data) < 4 * count:
        return None
    ends = 4 * count + np.cumsum(np.frombuffer(data[: 4 * count], "<u4").astype(np.int64))
    frames_THWC = np.empty(shape, np.uint8)
    start = 4 * count
    for number, end in enumerate(ends.tolist()):
        try:
            picture = np.asarray(Image.open(io.BytesIO(data[start:end])))
        except OSError:  # no picture, or half of one
            return None
        if picture.shape != shape[1:]:
            return None
        frames_THWC[number], start = picture, end
    return frames_THWC


def _as_jpeg(frame_HWC: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()
