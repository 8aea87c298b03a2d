"""One bit a row: which rows of a version of a table are meant, by row address (fragment id << 32 | row)."""

from __future__ import annotations

import lance
import numpy as np
from numpy.typing import NDArray


class RowBits:
    """One bit for each row of a version of a table, by row address."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        fragments = dataset.get_fragments()
        sizes = np.array([fragment.physical_rows for fragment in fragments], np.int64)
        ids = np.array([fragment.fragment_id for fragment in fragments], np.int64)
        self._order = np.argsort(ids)
        self._ids = ids[self._order]
        self._bases = (np.cumsum(sizes) - sizes)[self._order]
        self._bits = np.zeros(int(sizes.sum()) // 8 + 1, np.uint8)

    def set(self, addresses: NDArray[np.uint64]) -> None:
        """Set the bits of these rows."""
        at = self._positions(addresses)
        np.bitwise_or.at(self._bits, at >> 3, np.left_shift(1, at & 7).astype(np.uint8))

    def get(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """The bits of these rows."""
        at = self._positions(addresses)
        bits: NDArray[np.bool_] = (self._bits[at >> 3] >> (at & 7).astype(np.uint8) & 1).astype(np.bool_)
        return bits

    def any_in(self, fragment: lance.LanceFragment) -> bool:
        """Whether a row of the fragment may be set (its neighbours in the same byte may be the ones)."""
        base = int(self._bases[np.searchsorted(self._ids, fragment.fragment_id)])
        return bool(self._bits[base >> 3 : (base + fragment.physical_rows + 7 >> 3) + 1].any())

    def _positions(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        fragment = (addresses >> np.uint64(32)).astype(np.int64)
        row = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
        positions: NDArray[np.int64] = self._bases[np.searchsorted(self._ids, fragment)] + row
        return positions
