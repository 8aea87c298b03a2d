"""A worker's share of a global batch, on its device."""

# Shape legend: b clips of this worker's share, T frames, H W pixels, C colours, L tokens

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = Callable[[Sequence[str]], Tensor]
"""Texts -> token ids on the model's device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one worker sees of a global batch; rows of all workers, in the order of their ranks, are the batch."""

    frames_bTHWC: Tensor
    """uint8, on the device."""
    ids_bL: Tensor
    """Token ids of a caption each, on the device."""
    caption_b: Tensor
    """int64, equal where two captions have the same ids."""
    valid_b: Tensor
    """bool; False where a clip had no frames."""
    sizes: tuple[int, ...]
    """Clips of each worker's share."""


def shares(count: int, workers: int) -> tuple[int, ...]:
    """How `count` clips are dealt to workers: sizes that differ by one at most."""
    return tuple(count // workers + (rank < count % workers) for rank in range(workers))


def share_of(
    frames_bTHWC: NDArray[np.uint8],
    valid_b: NDArray[np.bool_],
    texts: Sequence[str],
    ids: Ids,
    sizes: tuple[int, ...],
    device: torch.device,
) -> Share:
    """Frames and captions as a share on the device."""
    ids_bL = ids(texts)
    return Share(
        frames_bTHWC=torch.from_numpy(np.ascontiguousarray(frames_bTHWC)).to(device, non_blocking=True),
        ids_bL=ids_bL,
        caption_b=alike(ids_bL).to(device),
        valid_b=torch.from_numpy(valid_b).to(device),
        sizes=sizes,
    )


def alike(ids_bL: Tensor) -> Tensor:
    """int64 [b], equal where rows of ids are: to the model two captions are one if their ids are, cut ones too."""
    rows = ids_bL.cpu().numpy()
    digests = [blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)
