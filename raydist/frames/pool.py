"""frames/pool: clips decoded by some child processes side by side, here and now.

Promises  a clip that does not decode is left out; a file that kills its process costs its own clips
"""

# Shape legend: T frames, H height, W width, 3 colours

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydist.clips.child import Child
from raydist.clips.decoder import Geometry
from raydist.records import Limits, Span

Found = tuple[int, NDArray[np.uint8]]
"""Number of a clip, and its frames [T, H, W, 3]."""


@dataclass(frozen=True, slots=True)
class FileSpans:
    """Clips of one file."""

    location: str
    fingerprint: str
    spans: dict[int, Span]
    """Row of a clip -> its span."""


class Pool:
    """Child processes, each served by a thread of its own."""

    def __init__(self, limits: Limits, size: int) -> None:
        self._limits, self._size = limits, size
        self._threads: ThreadPoolExecutor | None = None
        self._mine = threading.local()
        self._children: list[Child] = []

    def decode(self, files: list[FileSpans], geometry: Geometry) -> Iterator[Found]:
        """The clips that decode, file by file."""
        if not files:
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, "decode")
        for found in self._threads.map(lambda file: self._decode(file, geometry), files):
            yield from found

    def _decode(self, file: FileSpans, geometry: Geometry) -> list[Found]:
        child: Child | None = getattr(self._mine, "child", None)
        if child is None:
            child = self._mine.child = Child(self._limits)
            self._children.append(child)
        clips = child.decode(
            file.location,
            list(file.spans.values()),
            frames=geometry.frames,
            size_px=geometry.size_px,
            resize=geometry.resize,
            sampling=geometry.sampling,
            hashes=False,
            fingerprint=file.fingerprint,
        )
        return [(row, clip.frames) for row, clip in zip(file.spans, clips, strict=True) if clip.frames is not None]

    def close(self) -> None:
        """End threads and processes."""
        if self._threads is not None:
            self._threads.shutdown()
        for child in self._children:
            child.close()
