"""scratch: the files that the tasks of a join hand on to each other, below its work folder.

    layout/                 the division of space (`cells.Layout`)
    shards/<set>-<n>/       vectors as they were read, a stretch of the table sorted by cell
    groups/<set>-<n>/       distinct vectors of neighbouring cells, then the crowds among them
    crowds/<set>-<n>.parquet, edges/<task>.parquet

Promises  a file appears whole or not at all; vectors are mapped, not read: of most, only the heads are needed

Shape legend: U distinct vectors, those of crowds last; R rows of the table; W crowds; D numbers a vector
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydist.dedup import shared
from raydist.dedup.blocks import Group
from raydist.dedup.cells import Layout
from raydist.dedup.kernel import Block


def save(folder: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays into a folder, which appears when they are all there."""
    draft = folder.with_name(f"{folder.name}.{os.getpid()}.draft")
    draft.mkdir(parents=True, exist_ok=True)
    with shared.room():
        for name, array in arrays.items():
            np.save(draft / f"{name}.npy", array)
    if folder.exists():  # of a task that Ray ran twice: the same arrays
        shutil.rmtree(draft)
    else:
        draft.rename(folder)
    for name in arrays:
        shared.sent(folder / f"{name}.npy")


def load(folder: Path, name: str) -> NDArray[Any]:
    """One of them, mapped."""
    array: NDArray[Any] = np.load(shared.brought(folder / f"{name}.npy"), mmap_mode="r")
    return array


def save_layout(folder: Path, layout: Layout) -> None:
    """Write a layout."""
    save(
        folder / "layout",
        basis=layout.basis,
        centroids=layout.centroids,
        halves=layout.halves,
        reach=np.array(layout.reach),
    )


def load_layout(folder: Path) -> Layout:
    """Read a layout."""
    names = ("basis", "centroids", "halves")
    arrays = {name: np.array(load(folder / "layout", name)) for name in names}
    return Layout(reach=float(load(folder / "layout", "reach")), **arrays)


@dataclass(slots=True)
class Crowds:
    """Crowds of a group; each is a run of the group's vectors, behind the plain ones."""

    starts: NDArray[np.int64]
    """[W + 1] where each begins among the group's vectors."""
    centres: NDArray[np.float32]
    """[W, D] of length 1."""
    heads: NDArray[np.float32]
    """[W, K + 1] of the centres."""
    angles: NDArray[np.float64]
    """[W] the largest angle between a member and the centre."""

    def __len__(self) -> int:
        return len(self.angles)

    def members(self, crowd: int) -> slice:
        """Its vectors."""
        return slice(int(self.starts[crowd]), int(self.starts[crowd + 1]))


@dataclass(slots=True)
class Loaded:
    """A group as a task sees it."""

    block: Block
    """[U] all distinct vectors."""
    plain: Group
    """Those that are in no crowd."""
    crowds: Crowds
    keys: NDArray[np.int64]
    """[R] clip keys, those of one distinct vector side by side."""
    starts: NDArray[np.int64]
    """[U + 1] where those of each begin."""
    weights: NDArray[np.int64]
    """[U] clips of each distinct vector."""

    def clips(self, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
        """The keys of all clips of distinct vectors, in their order."""
        sizes = self.weights[vectors]
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        found: NDArray[np.int64] = self.keys[np.repeat(self.starts[vectors], sizes) + within]
        return found

    def bytes_read(self) -> int:
        """From the disk, so far."""
        fixed = self.block.head.nbytes + self.keys.nbytes + self.starts.nbytes + self.block.squares.nbytes
        return int(fixed + self.block.fetched * self.block.width * self.block.raw.itemsize)


def save_group(folder: Path, plain: Group, crowds: Crowds, keys: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
    """Write a group; the vectors that are in no crowd are the first of its block, and know where they reach."""
    block, reaches = plain.block, plain.reaches
    assert reaches is not None
    save(
        folder,
        raw=block.raw,
        squares=block.squares,
        head=block.head,
        cell=plain.cell,
        radii=plain.radii,
        reaches=reaches,
        crowd_starts=crowds.starts,
        centres=crowds.centres,
        centre_heads=crowds.heads,
        angles=crowds.angles,
        keys=keys,
        starts=starts,
    )


def load_group(folder: Path) -> Loaded:
    """Read a group; the vectors stay on the disk until they are needed."""
    raw, cell = load(folder, "raw"), np.array(load(folder, "cell"))
    cells, first = np.unique(cell, return_index=True)
    squares, head = np.array(load(folder, "squares")), np.array(load(folder, "head"))
    block, starts = Block(raw, squares, head), np.array(load(folder, "starts"))
    crowds = Crowds(
        starts=np.array(load(folder, "crowd_starts")),
        centres=np.array(load(folder, "centres")),
        heads=np.array(load(folder, "centre_heads")),
        angles=np.array(load(folder, "angles")),
    )
    return Loaded(
        block=block,
        plain=Group(
            block=block,
            cell=cell,
            cells=cells,
            starts=np.append(first, len(cell)).astype(np.int64),
            radii=np.array(load(folder, "radii")),
            reaches=np.array(load(folder, "reaches")),
        ),
        crowds=crowds,
        keys=np.array(load(folder, "keys")),
        starts=starts,
        weights=np.diff(starts),
    )
