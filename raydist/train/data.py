"""train/data: the order in which clips are learnt from, and the clips themselves as a torch dataset.

Reads     the archive's captioned clips, frames from the cache where it has them, else from the files
Promises  `Order` is a pure function of its seed, the epoch and the clips' keys: each clip comes exactly once an epoch,
          every epoch in another order, and the same after a resume and for any number of workers
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from raydist import config as settings
from raydist.clips.decoder import Geometry
from raydist.errors import ArchiveError, SourceError, UsageError
from raydist.frames.build import STAGES
from raydist.frames.reader import FrameReader
from raydist.models.registry import FRAMES, describe
from raydist.store import frames, pairs, roots
from raydist.store import settings as archives

# Shape legend: N clips, B clips of a batch, T frames of a clip, H height, W width

_SPLITS = ("train", "val", "test")

_SHUFFLE, _CAPTION, _JITTER, _FLIP = range(4)
"""What a number is drawn for: no two draws hang together."""


class Order:
    """An exact, seeded, global shuffle, different each epoch."""

    def __init__(
        self, keys: Sequence[int] | NDArray[np.int64], batch: int, seed: int, counts: Sequence[int] | None = None
    ) -> None:
        """
        Args:
            keys: of the clips, no two alike; what is drawn for a clip does not depend on which others there are.
            batch: clips of a step, at most.
            counts: how many captions each clip has, at least 1; None: one each.

        Raises:
            ValueError: no clips, keys that repeat, or a number below 1.
        """
        self.keys = np.asarray(keys, np.int64)
        self.counts = np.ones(len(self.keys), np.int64) if counts is None else np.asarray(counts, np.int64)
        self._batch, self._seed = batch, seed
        if batch < 1 or not len(self.keys) or len(np.unique(self.keys)) < len(self.keys):
            raise ValueError(
                f"batches of {batch} of {len(self.keys)} clips, {len(np.unique(self.keys))} of them distinct: "
                "expected at least 1 of at least 1, all distinct"
            )
        if self.counts.shape != self.keys.shape or self.counts.min() < 1:
            raise ValueError(f"{self.counts.tolist()[:8]} captions: expected at least 1 for each of {len(self.keys)}")
        self._shuffled: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; their sizes differ by one at most."""
        return -(-len(self.keys) // self._batch)

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Which clips step `step` of an epoch takes, as places in `keys`.

        Raises:
            IndexError: if the epoch has no such step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of an epoch of {self.steps_per_epoch}")
        if self._shuffled[0] != epoch:
            order_N = np.lexsort((self.keys, _draw(self.keys, self._seed, epoch, _SHUFFLE)))
            self._shuffled = epoch, np.array_split(order_N, self.steps_per_epoch)
        return self._shuffled[1][step]

    def captions(self, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of its captions each clip has in an epoch."""
        return self._drawn(epoch, indices, _CAPTION, self.counts[indices])

    def jitter(self, epoch: int, indices: NDArray[np.int64], frames: int, candidates: int) -> NDArray[np.int64]:
        """Which of the candidates of each of its intervals a clip shows in an epoch, [B, T]."""
        drawn = [self._drawn(epoch, indices, _JITTER + 16 * frame, candidates) for frame in range(frames)]
        return np.stack(drawn, axis=1)

    def flips(self, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a clip is mirrored in an epoch, half of them are."""
        return self._drawn(epoch, indices, _FLIP, 2).astype(np.bool_)

    def _drawn(
        self, epoch: int, indices: NDArray[np.int64], purpose: int, below: int | NDArray[np.int64]
    ) -> NDArray[np.int64]:
        numbers = _draw(self.keys[indices], self._seed, epoch, purpose) >> np.uint64(1)
        return numbers.astype(np.int64) % below


def _draw(keys: NDArray[np.int64], seed: int, epoch: int, purpose: int) -> NDArray[np.uint64]:
    """A random 64-bit number for each key: the finaliser of SplitMix64 after each part.

    Not numpy's generators: their streams may change with a version, and a resume must not.
    """
    state = np.zeros(1, np.uint64)
    for part in (seed, epoch, purpose):
        state = _mixed(state ^ np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return _mixed(state ^ keys.view(np.uint64))


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators (OOPSLA 2014), `splitmix64`."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


class VideoTextDataset(Dataset[tuple[tuple[Tensor, ...], str]]):
    """Captioned clips of an archive, one an item; it needs no Ray.

    Item i is the clip's eight RGB frames, uint8 [3, H, W] each, and a caption: of several, one is drawn an epoch.
    Frames come from the cache of `raydist train` where it has them, else from the clip's file. Clips that earlier runs
    could not decode are left out. It works in a DataLoader with workers.
    """

    def __init__(
        self,
        archive: str | os.PathLike[str],
        split: str = "train",
        *,
        model: str | None = None,
        size: int = 224,
        resize: str = "viclip",
        seed: int = 0,
    ) -> None:
        """
        Args:
            archive: its location.
            split: `train`, `val` or `test`.
            model: the model whose size and rule the frames have; in place of the next two.
            size: edge of the frames in pixels.
            resize: a rule of `clips.resize`.
            seed: of the draw of captions.

        Raises:
            ArchiveError: no archive there, or no captioned clip in the split.
            UsageError: another split.
            ModelError: no such model.
        """
        if split not in _SPLITS:
            raise UsageError(f"split {split!r}: expected one of {', '.join(_SPLITS)}")
        config = settings.load(options={"archive": os.fspath(archive)}).config
        location = config.require_archive()
        archives.open_existing(location)
        info = describe(model) if model else None
        geometry = Geometry(
            frames=info.frames if info else FRAMES,
            sampling=info.sampling if info else "exact",
            size_px=info.size_px if info else size,
            resize=info.resize if info else resize,
        )
        found = pairs.captioned_clips(location, split)
        if not found.num_rows:
            raise ArchiveError(
                f"the archive {location!r} has no captioned clip in the split {split!r}: run `raydist scan` and "
                "`raydist caption --from FILE` first, or name another split"
            )
        known = frames.known(location, "", found, hash_version=0, stages=STAGES)
        self.pairs = found.filter([not reason for reason in known.reasons])
        """A row a clip, in the order of the items."""
        self.left_out = found.num_rows - self.pairs.num_rows
        """Clips that earlier runs could not decode."""
        self.epoch = 0
        self._captions = self.pairs["captions"].to_pylist()
        self._order = None
        if self.pairs.num_rows:
            counts = [len(own) for own in self._captions]
            self._order = Order(self.pairs["clip_key"].to_numpy(), self.pairs.num_rows, seed, counts)
        places = roots.places(location, config.roots)
        self._reader = FrameReader(location, geometry, places, config.limits())

    def __len__(self) -> int:
        return int(self.pairs.num_rows)

    def set_epoch(self, epoch: int) -> None:
        """Draw the captions of this epoch. Before a DataLoader's workers start: they have copies of their own."""
        self.epoch = epoch

    def caption(self, index: int) -> str:
        """The caption of an item in this epoch, without its frames.

        Raises:
            IndexError: no such item.
        """
        row = self._row(index)
        assert self._order is not None  # there are clips
        number = int(self._order.captions(self.epoch, np.array([row]))[0])
        return str(self._captions[row][number])

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, ...], str]:
        """
        Raises:
            IndexError: no such item.
            SourceError: the clip does not decode any more.
        """
        clip = self.pairs.slice(self._row(index), 1)
        frames_BTHWC, good_B = self._reader.read(clip)
        if not good_B[0]:
            name = clip["clip_id"][0].as_py()
            raise SourceError(
                "unreadable",
                f"{name} does not decode now: is its file there? `raydist train` records such clips, and they are "
                "left out from then on",
            )
        frames_TCHW = torch.from_numpy(frames_BTHWC[0]).movedim(-1, 1).contiguous()
        return tuple(frames_TCHW), self.caption(index)

    def _row(self, index: int) -> int:
        clips = len(self)
        if not -clips <= index < clips:
            raise IndexError(f"item {index} of {clips}")
        return index % clips
