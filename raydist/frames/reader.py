"""frames/reader: the frames of clips, from wherever they are nearest.

Reads     a copy on this node, else the cache, else the clip's file, which a child process decodes
Promises  the same frames whichever it was; a clip that cannot be had is zeros and False, never an exception, and costs
          itself only; a reader may be pickled, and be used after a fork: it opens everything anew in each process
"""

# Shape legend: B clips, T frames, S height and width, 3 colours

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist.clips.decoder import Geometry
from raydist.clips.naming import is_settled, locate
from raydist.clips.sampling import CANDIDATES
from raydist.errors import StoreError
from raydist.frames import pixels
from raydist.frames.local import LocalCopies
from raydist.frames.pool import FileSpans, Found, Pool
from raydist.records import Limits, Span
from raydist.store.frames import Stored, open_stored

_COLUMNS = ["clip_key", "fingerprint", "root", "path", "file_fingerprint", "start_ms", "end_ms"]

_LOOK_AGAIN_S = 30.0
"""How often a cache that lacks a clip is opened anew: it may be growing."""

_TAKEN_BYTES = 10_000_000
"""Taken of a table at once: memory of this size is used again, a whole batch's is faulted in anew (5 times slower)."""


class FrameReader:
    """Frames of clips. For one thread at a time."""

    def __init__(
        self,
        location: str,
        geometry: Geometry,
        places: Mapping[str, str],
        limits: Limits,
        *,
        encoding: str = pixels.RAW,
        candidates: int = 1,
        local: str | os.PathLike[str] | None = None,
        local_bytes: int = 50_000_000_000,
        decoders: int = 1,
    ) -> None:
        """
        Args:
            geometry: `frames` is T, also where there are several candidates for each.
            places: root name -> its folder on this machine, or its address.
            encoding: `raw` or `jpeg`: which cache is read; `none`: none is, every clip is decoded.
            candidates: frames to choose from for each of the T, 1 or 3.
            local: folder of this node for copies of what was read; None: none are kept.
            local_bytes: what that folder may hold.
            decoders: child processes that decode side by side what no cache has.

        Raises:
            ValueError: another encoding or number of candidates.
        """
        pixels.check(encoding, candidates)
        self.geometry = geometry
        self._location, self._places, self._limits = location, dict(places), limits
        self._encoding, self._candidates = encoding, candidates
        self._local = None if local is None or encoding == pixels.NONE else Path(local)
        self._local_bytes, self._decoders = local_bytes, decoders
        self._open: _Open | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def read(
        self, pairs: pa.Table, choice: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Frames of clips.

        Args:
            pairs: rows of `store.pairs.captioned_clips`.
            choice: [B, T], which of the candidates of each frame; None: the recipe's, the one in the middle.

        Returns:
            uint8 [B, T, S, S, 3], and bool [B]: whether a clip could be had; its frames are zeros where not.

        Raises:
            ValueError: a choice of another shape or out of bounds.
        """
        wanted = self._wanted(pairs.num_rows, choice)
        side = self.geometry.size_px
        frames_BTSS3 = np.zeros((pairs.num_rows, self.geometry.frames, side, side, 3), np.uint8)
        good_B = np.zeros(pairs.num_rows, np.bool_)
        rows = pairs.select(_COLUMNS).to_pylist()
        for sources in (self._copies, self._cached, self._decoded):
            missing = [row for row in range(len(rows)) if not good_B[row]]
            if not missing:
                break
            for row, found in sources(rows, missing, pairs):
                np.take(found, wanted[row], axis=0, out=frames_BTSS3[row], mode="clip")  # any other mode copies twice
                good_B[row] = True
        return frames_BTSS3, good_B

    def close(self) -> None:
        """End the child processes. The reader can be used again afterwards."""
        opened, self._open = self._open, None
        if opened is not None and opened.pid == os.getpid():
            opened.close()

    def _wanted(self, clips: int, choice: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Which of a clip's decoded frames are shown, [B, T]."""
        shape = (clips, self.geometry.frames)
        if choice is None:
            choice = np.full(shape, self._candidates // 2)
        if choice.shape != shape or (choice.size and not 0 <= choice.min() <= choice.max() < self._candidates):
            raise ValueError(f"a choice of shape {choice.shape}: expected {shape}, of 0 to {self._candidates - 1}")
        return np.arange(self.geometry.frames) * self._candidates + choice

    @property
    def _own(self) -> _Open:
        """What is open in this process."""
        if self._open is None or self._open.pid != os.getpid():
            # After a fork, what the other process opened is its own: it is let go of here and not closed.
            self._open = _Open(Pool(self._limits, self._decoders))
            if self._local is not None:
                folder = self._local / pixels.table_of(self.geometry, self._encoding, self._candidates)
                self._open.copies = LocalCopies(folder, self._local_bytes)
        return self._open

    def _copies(self, rows: list[dict[str, Any]], missing: list[int], pairs: pa.Table) -> Iterator[Found]:
        copies = self._own.copies
        if copies is None:
            return
        for row in missing:
            clip = (rows[row]["clip_key"], rows[row]["fingerprint"])
            data = copies.get(*clip)
            found = None if data is None else self._unpacked(memoryview(data), self._candidates)
            if found is not None:
                yield row, found
            elif data is not None:
                copies.drop(*clip)

    def _cached(self, rows: list[dict[str, Any]], missing: list[int], pairs: pa.Table) -> Iterator[Found]:
        if self._encoding == pixels.NONE:
            return
        own = self._own
        for candidates in dict.fromkeys((self._candidates, CANDIDATES)):
            table = pixels.table_of(self.geometry, self._encoding, candidates)
            at_once = int(_TAKEN_BYTES // pixels.bytes_a_clip(self.geometry, self._encoding, candidates)) or 1
            for row, data in own.taken(self._location, table, pairs, missing, at_once):
                frames = self._unpacked(data, candidates)
                if frames is None:
                    continue
                if candidates == self._candidates:
                    own.keep(rows[row], data)
                else:  # of a cache for jitter, what the recipe takes
                    frames = frames[candidates // 2 :: candidates]
                missing = [other for other in missing if other != row]
                yield row, frames

    def _decoded(self, rows: list[dict[str, Any]], missing: list[int], pairs: pa.Table) -> Iterator[Found]:
        geometry = pixels.decoded(self.geometry, self._candidates)
        settled = [
            row
            for row in missing
            if rows[row]["root"] in self._places and is_settled(rows[row], rows[row]["file_fingerprint"])
        ]
        place = {row: (rows[row]["root"], rows[row]["path"], rows[row]["start_ms"]) for row in settled}
        settled.sort(key=place.__getitem__)
        files = [
            FileSpans(
                locate(self._places[root], path),
                rows[group[0]]["file_fingerprint"],
                {row: Span(start_ms=rows[row]["start_ms"], end_ms=rows[row]["end_ms"]) for row in group},
            )
            for (root, path), group in (
                (key, list(members)) for key, members in groupby(settled, key=lambda row: place[row][:2])
            )
        ]
        for row, frames in self._own.pool.decode(files, geometry):
            if self._encoding != pixels.NONE:
                data = memoryview(pixels.pack(frames, self._encoding))
                self._own.keep(rows[row], data)
                kept = self._unpacked(data, self._candidates)  # JPEG: as it would have come from the cache
                assert kept is not None
                frames = kept
            yield row, frames

    def _unpacked(self, data: memoryview, candidates: int) -> NDArray[np.uint8] | None:
        return pixels.unpack(data, self.geometry, candidates, self._encoding)


@dataclass(slots=True)
class _Open:
    """What a reader holds open in one process."""

    pool: Pool
    copies: LocalCopies | None = None
    pid: int = field(default_factory=os.getpid)
    tables: dict[str, tuple[float, Stored | None]] = field(default_factory=dict)
    """By name: when it was looked at last, and what was there."""

    def taken(
        self, location: str, table: str, pairs: pa.Table, rows: list[int], at_once: int
    ) -> Iterator[tuple[int, memoryview]]:
        """Of some clips, those that the table has; `at_once` of them in memory."""
        clips = pairs.take(rows) if rows else pairs.slice(0, 0)
        for attempt in range(2):
            stored = self._stored(location, table, clips, anew=attempt > 0)
            places = np.empty(0, np.int64) if stored is None else stored.places(clips)
            there = np.flatnonzero(places >= 0)
            if stored is None or not len(there):
                return
            try:
                for start in range(0, len(there), at_once):
                    part = there[start : start + at_once]
                    data = stored.take(places[part])
                    yield from ((rows[row], memoryview(data[number].as_buffer())) for number, row in enumerate(part))
                return
            except StoreError:  # dropped, or tidied up: what is there now?
                continue

    def keep(self, clip: Mapping[str, Any], data: memoryview) -> None:
        """Copy what was read to this node, where that is wanted."""
        if self.copies is not None:
            self.copies.put(clip["clip_key"], clip["fingerprint"], data)

    def close(self) -> None:
        """End what runs."""
        self.pool.close()

    def _stored(self, location: str, table: str, clips: pa.Table, *, anew: bool) -> Stored | None:
        since, stored = self.tables.get(table, (-_LOOK_AGAIN_S, None))
        lacks = stored is None or bool((stored.places(clips) < 0).any())
        if anew or (lacks and time.monotonic() - since >= _LOOK_AGAIN_S):
            try:
                stored = open_stored(location, table, None if anew else stored)
            except StoreError:
                stored = None
            self.tables[table] = time.monotonic(), stored
        return stored
