"""signature: a 64-bit perceptual hash of a frame, to find the same picture again after re-encoding.

The hash is taken before any model's resize, and in integers from the grey picture on: it is the same on every machine.
Two hashes are compared by the number of bits in which they differ.
"""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydist.clips.resize import Planes, planes_of

HASH_VERSION = 1
"""Goes up when the same frame gets another hash."""

_SIDE = 32
_LOW = 8
_ROWS = 256
_QUIET = 1 << 18
"""Coefficients below a fraction of a grey level say nothing: a flat frame with rounding noise is a flat frame."""


def _cosines() -> NDArray[np.int64]:
    order = np.arange(_LOW)[:, None]
    place = np.arange(_SIDE)[None, :]
    exact: NDArray[np.float64] = np.cos(np.pi * order * (2 * place + 1) / (2 * _SIDE)) * (1 << 10)
    return np.rint(exact).astype(np.int64)


_DCT = _cosines()


def frame_hash(frame_HWC: NDArray[np.uint8]) -> int:
    """`planes_hash` of one frame, uint8 [H, W, 3] RGB."""
    return planes_hash(planes_of(frame_HWC))


def planes_hash(planes: Planes) -> int:
    """Hash of one frame.

    Returns:
        An unsigned 64-bit number: bit 8 * v + u tells whether the coefficient of vertical frequency v and horizontal
        frequency u of the 32 x 32 grey picture lies above the median of the 63 that are no average. Bit 0, the
        average's, is always 0, and so is the whole hash of a flat frame.

    Source: the DCT hash known as pHash (C. Zauner, 2010).
    """
    # Some rows are enough, and a cheap reduction by a whole factor comes first: grey is then made of few pixels.
    step = max(1, planes[0].shape[0] // _ROWS)
    colours = [Image.fromarray(np.ascontiguousarray(plane[::step])) for plane in planes]
    width, height = colours[0].size
    factor = (max(1, width // (4 * _SIDE)), max(1, height // (4 * _SIDE)))
    small = Image.merge("RGB", [colour.reduce(factor) for colour in colours])
    grey = np.asarray(small.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)).astype(np.int64)
    low = (_DCT @ grey @ _DCT.T).ravel()
    low[np.abs(low) < _QUIET] = 0
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
