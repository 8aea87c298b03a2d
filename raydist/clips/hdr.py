"""hdr: pictures in PQ or HLG as an SDR screen shows them.

Without this they look washed out: their numbers stand for up to 10,000 cd/m2 and for the wide colours of BT.2020. Done
on 8-bit RGB after a model's resize, where it costs about a millisecond.
"""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

from functools import cache

import numpy as np
from av.video.reformatter import ColorTrc
from numpy.typing import NDArray

_WHITE_NITS = 203.0
"""Diffuse white of HDR programmes (ITU-R BT.2408); here an SDR screen's white."""
_PEAK_NITS = 1000.0
"""What is brighter is white too: most programmes are mastered for this peak."""

# BT.2020 to BT.709 in linear light: ITU-R BT.2087, read backwards.
_NARROW = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)
_STEPS = 1 << 12


def is_hdr(transfer: int) -> bool:
    """Whether a frame's transfer characteristic is PQ or HLG."""
    return transfer in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def to_sdr(frame_HWC: NDArray[np.uint8], transfer: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] in PQ or HLG with BT.2020 colours to the same in sRGB."""
    light_HWC = _light(transfer)[frame_HWC] @ _NARROW.T
    steps_HWC = np.clip(light_HWC * (_STEPS - 1) + 0.5, 0, _STEPS - 1).astype(np.int32)
    return np.asarray(_srgb()[steps_HWC])


@cache
def _light(transfer: int) -> NDArray[np.float32]:
    """Linear light, 1 for an SDR screen's white, of each 8-bit value."""
    value = np.arange(256) / 255
    nits = _pq_nits(value) if transfer == ColorTrc.SMPTE2084 else _hlg_nits(value)
    return (_pq_nits(_roll_off(_pq_value(nits))) / _WHITE_NITS).astype(np.float32)


@cache
def _srgb() -> NDArray[np.uint8]:
    """sRGB's 8-bit value for each step of linear light (IEC 61966-2-1)."""
    light = np.arange(_STEPS) / (_STEPS - 1)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * value), dtype=np.uint8)


# SMPTE ST 2084
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def _pq_nits(value: NDArray[np.float64]) -> NDArray[np.float64]:
    root = value ** (1 / _M2)
    nits: NDArray[np.float64] = 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return nits


def _pq_value(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = (nits / 10_000) ** _M1
    value: NDArray[np.float64] = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return value


def _hlg_nits(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """HLG (ITU-R BT.2100) on a screen of 1000 cd/m2: its gamma of 1.2 for each colour, exact for greys."""
    scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    nits: NDArray[np.float64] = _PEAK_NITS * scene**1.2
    return nits


def _roll_off(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """PQ values up to the peak to those up to an SDR white; darker ones stay.

    Source: ITU-R BT.2390, the electrical-electrical transfer function, without a change of black.
    """
    peak, white = (float(_pq_value(np.array(nits))) for nits in (_PEAK_NITS, _WHITE_NITS))
    share = np.minimum(value / peak, 1)
    most = white / peak
    knee = 1.5 * most - 0.5
    part = np.maximum(share - knee, 0) / (1 - knee)
    bent = (
        (2 * part**3 - 3 * part**2 + 1) * knee
        + (part**3 - 2 * part**2 + part) * (1 - knee)
        + (3 * part**2 - 2 * part**3) * most
    )
    rolled: NDArray[np.float64] = np.where(share < knee, share, bent) * peak
    return rolled
