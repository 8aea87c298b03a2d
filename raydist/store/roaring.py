"""Sets of row addresses in the form that a scan takes them: a roaring bitmap a fragment.

Format: the number of fragments, then for each its id, the length of its bitmap in bytes, and the bitmap as
https://github.com/RoaringBitmap/RoaringFormatSpec lays it out (all numbers little-endian, no run containers).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_COOKIE = 12346
_ARRAY_MAX = 4096
"""Members up to which a container lists them; a larger one is a bitmap of 8 KiB."""


def packed(addresses: NDArray[np.uint64]) -> bytes:
    """The set of row addresses (fragment id << 32 | row) as a scan's `row_addr_allowlist`."""
    addresses = np.sort(addresses)
    fragments, starts = np.unique(addresses >> np.uint64(32), return_index=True)
    parts = [struct.pack("<I", len(fragments))]
    for fragment, rows in zip(fragments.tolist(), np.split(addresses, starts[1:]), strict=False):
        bitmap = _bitmap((rows & np.uint64(0xFFFFFFFF)).astype(np.uint32))
        parts += [struct.pack("<II", fragment, len(bitmap)), bitmap]
    return b"".join(parts)


def _bitmap(rows: NDArray[np.uint32]) -> bytes:
    keys, starts, counts = np.unique(rows >> 16, return_index=True, return_counts=True)
    bodies = []
    for members in np.split((rows & 0xFFFF).astype("<u2"), starts[1:]):
        if len(members) <= _ARRAY_MAX:
            bodies.append(members.tobytes())
        else:
            bits = np.zeros(1 << 16, np.uint8)
            bits[members] = 1
            bodies.append(np.packbits(bits, bitorder="little").tobytes())
    head = struct.pack("<II", _COOKIE, len(keys)) + np.stack([keys, counts - 1], axis=1).astype("<u2").tobytes()
    sizes = [len(body) for body in bodies]
    offsets = np.cumsum([len(head) + 4 * len(keys), *sizes[:-1]]).astype("<u4")
    return head + offsets.tobytes() + b"".join(bodies)
