"""Evaluations while a run trains: the same held-out clips in the same order, each time.

Every worker embeds its part of the clips; vectors are gathered, so all workers know the same loss and decide alike.
A clip stands for its first caption here; the stage `eval` judges with all of them.
"""

# Shape legend: N held-out clips, b clips of this worker's part, M different captions, T frames, H W pixels, E size

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydist import metrics
from raydist.errors import TrainError
from raydist.frames.reader import FrameReader
from raydist.train.loss import contrastive
from raydist.train.share import Ids, share_of, shares
from raydist.train.step import Step, gather

CHUNK = 32
"""Clips embedded at once without gradient."""

SHOWN_CAPTIONS, SHOWN_STRIPS = 6, 3
"""Of the visual confirmation."""

SHOWN_SIMILARITIES = 64


class NotFiniteError(Exception):
    """The loss is NaN or infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one evaluation said."""

    loss: float
    text_to_video: metrics.Retrieval
    video_to_text: metrics.Retrieval
    video_NE: NDArray[np.float32]
    """Unit vectors of the clips that could be read."""
    text_NE: NDArray[np.float32]
    """Of their captions."""
    indices: NDArray[np.int64]
    """Their rows in the held-out pairs."""
    caption_N: NDArray[np.int64]
    """Equal where captions are."""

    def figures(self) -> dict[str, Any]:
        """What is kept of it: plain numbers."""
        return {
            "loss": self.loss,
            "text_to_video": asdict(self.text_to_video),
            "video_to_text": asdict(self.video_to_text),
        }


class Watch:
    """Held-out clips, and how to look at them with the model of the moment."""

    def __init__(
        self,
        pairs: pa.Table,
        reader: FrameReader,
        ids: Ids,
        *,
        batch: int,
        device: torch.device,
        rank: int,
        workers: int,
    ) -> None:
        """
        Args:
            batch: clips of one loss; the clips are cut into equal batches of at most so many.
        """
        self.pairs = pairs
        self._reader = reader
        self._ids = ids
        self._batch = batch
        self._device = device
        sizes = shares(len(pairs), workers)
        start = sum(sizes[:rank])
        self._sizes, self._own = sizes, slice(start, start + sizes[rank])

    def look(self, step: Step, temperature: float) -> Seen:
        """Embed all clips and say how well captions and clips find each other.

        Raises:
            TrainError: none of the clips can be read.
            NotFiniteError: the model gives NaN or infinity.
        """
        video_NE, text_NE, caption_N, valid_N = self._embedded(step)
        keep = torch.nonzero(valid_N).flatten()
        if not len(keep):
            raise TrainError(
                f"none of the {len(valid_N):,} held-out clips can be read any more: expected their frames in the cache "
                "or their files where `raydist scan` found them; bring those back and run the same command again"
            )
        video_NE, text_NE, caption_N = video_NE[keep], text_NE[keep], caption_N[keep]
        loss = self._loss(video_NE, text_NE, caption_N, temperature)
        _, first, which = np.unique(caption_N.cpu().numpy(), return_index=True, return_inverse=True)
        video, text = video_NE.float().cpu().numpy(), text_NE.float().cpu().numpy()
        pairs = np.stack([np.arange(len(which)), which], axis=1)
        if not math.isfinite(loss):
            raise NotFiniteError
        ranks = metrics.ranks(video, text[first], pairs)
        return Seen(
            loss=loss,
            text_to_video=metrics.summarise(ranks.text_to_video),
            video_to_text=metrics.summarise(ranks.video_to_text),
            video_NE=video,
            text_NE=text,
            indices=keep.cpu().numpy(),
            caption_N=caption_N.cpu().numpy(),
        )

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def strips(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Frames of held-out clips as the model sees them: uint8 [n, T, S, S, 3]."""
        return self._reader.read(self.pairs.take(pa.array(indices, pa.int64())))[0]

    def _embedded(self, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = self.pairs.slice(self._own.start, self._own.stop - self._own.start)
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for start in range(0, len(own), CHUNK):
            rows = own.slice(start, CHUNK)
            frames_bTHWC, valid_b = self._reader.read(rows)
            texts = [captions[0] for captions in rows["captions"].to_pylist()]
            share = share_of(frames_bTHWC, valid_b, texts, self._ids, (len(rows),), self._device)
            parts.append((*step.embed(share), share.caption_b, share.valid_b))
        video, text, caption, valid = (gather(torch.cat(column), self._sizes) for column in zip(*parts, strict=True))
        return video, text, caption, valid

    def _loss(self, video_NE: Tensor, text_NE: Tensor, caption_N: Tensor, temperature: float) -> float:
        heat = torch.tensor(temperature, dtype=video_NE.dtype, device=video_NE.device)
        batches = -(-len(caption_N) // self._batch)
        total = 0.0
        for rows in torch.tensor_split(torch.arange(len(caption_N), device=caption_N.device), batches):
            total += float(contrastive(video_NE[rows], text_NE[rows], heat, caption_N[rows])) * len(rows)
        return total / len(caption_N)
