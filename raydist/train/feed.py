"""What the workers are fed: their shares of each global batch, read ahead by a thread.

Promises  the batches are a pure function of the seed, the epoch and the step: the same after a resume, and the same
          global batches on any number of workers; a clip that cannot be read keeps its row, marked as not valid
"""

# Shape legend: b clips of this worker's share, T frames, H W pixels, C colours, L tokens

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raydist.frames.reader import FrameReader
from raydist.train.data import Order
from raydist.train.share import Ids, Share, share_of, shares

AHEAD = 3
"""Batches that wait for the model: one more than what a slow read costs, few enough for memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """A worker's share of a global batch, and what the whole batch is."""

    share: Share
    indices: NDArray[np.int64]
    """Of all clips of the global batch, into the pairs."""
    unread: tuple[str, ...]
    """Clip ids of this worker's share that could not be read."""


class Feed:
    """The shares of one worker, from a step of the run to its last."""

    def __init__(
        self,
        pairs: pa.Table,
        order: Order,
        reader: FrameReader,
        ids: Ids,
        *,
        device: torch.device,
        rank: int,
        workers: int,
        frames: int,
        candidates: int = 1,
        flip: bool = False,
    ) -> None:
        self._pairs = pairs
        self._order = order
        self._reader = reader
        self._ids = ids
        self._device = device
        self._rank = rank
        self._workers = workers
        self._frames = frames
        self._candidates = candidates
        self._flip = flip

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def batches(self, first: int, last: int) -> Iterator[Fed]:
        """The shares of steps `first` to `last`, the last left out, counted over all epochs."""
        for step in range(first, last):
            yield self.at(step)

    def at(self, step: int) -> Fed:
        """This worker's share of one step."""
        epoch, place = divmod(step, self._order.steps_per_epoch)
        whole = self._order.batch(epoch, place)
        sizes = shares(len(whole), self._workers)
        start = sum(sizes[: self._rank])
        own = whole[start : start + sizes[self._rank]]
        share, unread = self._share(epoch, own, sizes)
        return Fed(share=share, indices=whole, unread=unread)

    def _share(self, epoch: int, own: NDArray[np.int64], sizes: tuple[int, ...]) -> tuple[Share, tuple[str, ...]]:
        rows = self._pairs.take(pa.array(own))
        choice = self._order.jitter(epoch, own, self._frames, self._candidates) if self._candidates > 1 else None
        frames_bTHWC, valid_b = self._reader.read(rows, choice)
        unread = tuple(rows["clip_id"].filter(pa.array(~valid_b)).to_pylist())
        if self._flip:
            mirrored = self._order.flips(epoch, own)
            frames_bTHWC[mirrored] = frames_bTHWC[mirrored][:, :, :, ::-1]
        which = self._order.captions(epoch, own)
        texts = [texts[number] for texts, number in zip(rows["captions"].to_pylist(), which.tolist(), strict=True)]
        return share_of(frames_bTHWC, valid_b, texts, self._ids, sizes, self._device), unread


class Ahead:
    """An iterator whose items are made by a thread before they are asked for."""

    def __init__(self, items: Iterator[Fed], depth: int = AHEAD) -> None:
        self._items = items
        self._made: queue.Queue[Fed | BaseException | None] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._make, name="feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Fed]:
        while (item := self._made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the thread; what it made is dropped."""
        self._closed.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._made.get(timeout=0.05)
        self._thread.join()

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(None)
        except Exception as error:  # noqa: BLE001  # raised again where the items are used
            self._put(error)

    def _put(self, item: Fed | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._made.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
