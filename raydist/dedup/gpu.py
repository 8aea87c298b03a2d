"""gpu: the products of a join on a GPU, whole blocks at a time.

Promises  the same pairs as on a CPU: float32 products with TF32 off keep to the bound that `kernel` proves for any
          order of summing, and what they propose is decided by the same definition
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from raydist.dedup.kernel import Block, Kernel, Near


class GpuKernel(Kernel):
    """Looks at all pairs: to a GPU a matrix product is cheaper than the choice of what to leave out."""

    dense = True

    def __init__(self, width: int, size: int, threshold: float, device: str) -> None:
        super().__init__(width, size, threshold)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        self._device = torch.device(device)
        self._held: dict[int, tuple[Block, torch.Tensor]] = {}

    def near(self, a: Block, rows: NDArray[np.integer] | slice, b: Block, columns: slice) -> Iterator[Near]:
        """As of `Kernel`, in one product: some thousand rows fit well beside two groups."""
        index = rows if isinstance(rows, slice) else torch.from_numpy(np.asarray(rows, np.int64)).to(self._device)
        x, y = self._on_device(a)[index], self._on_device(b)[columns]
        self.count.pairs += len(x) * len(y)
        self.count.whole += len(x) * len(y)
        product = x @ y.T
        i, j = torch.nonzero(product >= float(self.floor), as_tuple=True)
        if len(i):
            yield i.cpu().numpy(), j.cpu().numpy(), product[i, j].cpu().numpy()

    def _on_device(self, block: Block) -> torch.Tensor:
        held = self._held.get(id(block))
        if held is None:  # the block is held too: a number stands for it only while it lives
            held = block, torch.from_numpy(block.units(slice(None))).to(self._device)
            self._held[id(block)] = held
        return held[1]
