"""tasks: what a join's tasks do: read a stretch of a table, put a group of cells together, compare two groups.

Each takes paths and numbers and gives back a few numbers; vectors travel through files. None needs Ray.

Shape legend: U distinct vectors, R rows, D numbers a vector, W crowds
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydist.dedup import crowds, scratch, shared
from raydist.dedup.blocks import group_of
from raydist.dedup.cells import Layout
from raydist.dedup.kernel import Block, block_of, heads, product_error
from raydist.store import current

CROWDS = pa.schema({"clip_key": pa.int64(), "crowd": pa.int64(), "similarity": pa.float32()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Rows of a table that lie near each other."""

    location: str
    table: str
    version: int
    keys: NDArray[np.int64]
    addresses: NDArray[np.uint64]
    """Ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A stretch that was read."""

    folder: Path
    sizes: NDArray[np.int64]
    """Rows of each cell of the layout."""
    bytes_read: int
    bad: str = ""
    """Why a vector cannot be compared; "" if all can."""


def read(stretch: Stretch, work: Path, folder: Path) -> Shard:
    """Read a stretch, find the cell of each vector, and write them in the order of their cells."""
    layout = scratch.load_layout(work)
    raw = np.empty((len(stretch.keys), len(layout.basis)), np.float16)
    for at, vectors in current.vectors_at(stretch.location, stretch.table, stretch.version, stretch.addresses):
        raw[at] = vectors
    try:
        block = block_of(raw, layout.basis)
    except ValueError as error:
        row = int(str(error).split()[1])
        return Shard(folder=folder, sizes=np.zeros(0, np.int64), bytes_read=0, bad=f"clip {stretch.keys[row]}: {error}")
    cell = layout.assign(block.head)
    order = np.argsort(cell, kind="stable")
    scratch.save(folder, raw=raw[order], keys=stretch.keys[order])
    return Shard(folder=folder, sizes=np.bincount(cell, minlength=layout.cells), bytes_read=raw.nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows [start, end) of a shard, all of one cell."""

    shard: Path
    start: int
    end: int
    cell: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A group that was put together."""

    folder: Path
    cells: NDArray[np.int32]
    """Cells that it has vectors of."""
    reaches: NDArray[np.bool_]
    """Of each cell of the layout, whether a vector of the group must be compared with it."""
    crowd_pairs: int
    """Pairs inside of its crowds."""
    histogram: NDArray[np.float64]
    """Of these."""
    bytes_read: int


def assemble(pieces: list[Piece], work: Path, folder: Path, crowds_file: Path | None, threshold: float) -> Assembled:
    """Put a group together from pieces, sorted by cell: collapse equal vectors, set crowds apart.

    Args:
        crowds_file: where the members of crowds are written to; None: there are to be none.
    """
    layout = scratch.load_layout(work)
    raw, keys = _gathered(pieces, "raw"), _gathered(pieces, "keys")
    cell = np.repeat(
        np.array([piece.cell for piece in pieces], np.int32), [piece.end - piece.start for piece in pieces]
    )
    order, starts = crowds.collapsed(raw)
    first = order[starts[:-1]]
    weights = np.diff(starts)
    block = block_of(raw[first], layout.basis)
    cell = cell[first]  # ascending, for the first rows are
    histogram = crowds.Histogram(threshold)
    found = np.full(len(first), crowds.NONE, np.int64)
    if crowds_file is not None:
        ends = np.append(np.flatnonzero(np.diff(cell, prepend=-1)), len(cell))
        found = crowds.labels(block.units(slice(None)), weights, ends, threshold)
    cells, reaches = _reaches(layout, block, cell)
    places = np.argsort(np.where(found == crowds.NONE, -1, found), kind="stable")
    plain = int((found == crowds.NONE).sum())
    rows = np.concatenate([order[starts[at] : starts[at + 1]] for at in places.tolist()])
    weights = weights[places]
    block = Block(block.raw[places], block.squares[places], block.head[places])
    crowd_starts = plain + np.concatenate([[0], np.cumsum(np.bincount(found[found != crowds.NONE]))]).astype(np.int64)
    members = _crowds(block, weights, crowd_starts, layout)
    clip_starts = np.concatenate([[0], np.cumsum(weights)]).astype(np.int64)
    keys = keys[rows]
    pairs = 0
    for crowd in range(len(members)):
        part = members.members(crowd)
        pairs += crowds.inner(block.units(part), weights[part], threshold, histogram)
    if crowds_file is not None and len(members):
        _write_crowds(crowds_file, block, members, keys, clip_starts)
    group = group_of(block, cell[places[:plain]], layout)
    group.reaches = reaches[np.searchsorted(cells, group.cells)]
    scratch.save_group(folder, group, members, keys, clip_starts)
    return Assembled(
        folder=folder,
        cells=cells,
        reaches=np.asarray(reaches.any(axis=0)),
        crowd_pairs=pairs,
        histogram=histogram.counts,
        bytes_read=raw.nbytes + keys.nbytes,
    )


def _gathered(pieces: list[Piece], name: str) -> NDArray[Any]:
    """One array of all pieces; each shard is opened once, for it has a piece of most cells."""
    arrays = {folder: scratch.load(folder, name) for folder in {piece.shard for piece in pieces}}
    gathered: NDArray[Any] = np.concatenate([arrays[piece.shard][piece.start : piece.end] for piece in pieces])
    return gathered


def _reaches(layout: Layout, block: Block, cell: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The cells [C] of vectors sorted by cell, and for each the cells of the layout that one of its vectors is near."""
    whole = group_of(block, cell, layout)
    neighbours = layout.neighbours(whole.cells, whole.radii)
    found = np.zeros(neighbours.shape, np.bool_)
    for number, (start, end) in enumerate(pairwise(whole.starts.tolist())):
        others = np.flatnonzero(neighbours[number])
        far = np.full(len(others), 2, np.float32)
        found[number, others] = layout.border(block.head[start:end], cell[start:end], others, far).any(axis=0)
    return whole.cells, found


def _crowds(block: Block, weights: NDArray[np.int64], starts: NDArray[np.int64], layout: Layout) -> scratch.Crowds:
    """The crowds that begin at `starts` among the vectors of a block, measured."""
    centres = np.empty((len(starts) - 1, block.width), np.float32)
    angles = np.empty(len(centres))
    for crowd in range(len(centres)):
        part = slice(int(starts[crowd]), int(starts[crowd + 1]))
        units = block.units(part)
        centres[crowd] = crowds.direction(units, weights[part])
        nearest = float((units @ centres[crowd]).min()) - product_error(block.width)
        angles[crowd] = np.arccos(max(-1.0, nearest))
    return scratch.Crowds(starts=starts, centres=centres, heads=heads(centres, layout.basis), angles=angles)


def _write_crowds(
    file: Path, block: Block, members: scratch.Crowds, keys: NDArray[np.int64], clip_starts: NDArray[np.int64]
) -> None:
    """Write who is in which crowd: the clip nearest to its centre is the pivot."""
    parts = []
    for crowd in range(len(members)):
        part = members.members(crowd)
        pivot = part.start + int((block.units(part) @ members.centres[crowd]).argmax())
        rows = np.arange(part.start, part.stop)
        similarity = block.similarity(rows, block, np.full(len(rows), pivot)).astype(np.float32)
        sizes = clip_starts[part.start + 1 : part.stop + 1] - clip_starts[part.start : part.stop]
        clips = keys[clip_starts[part.start] : clip_starts[part.stop]]
        pivots = np.full(len(clips), keys[clip_starts[pivot]])
        columns = [pa.array(clips), pa.array(pivots), pa.array(np.repeat(similarity, sizes))]
        parts.append(pa.table(columns, schema=CROWDS))
    write_table(pa.concat_tables(parts), file)


def write_table(table: pa.Table, file: Path) -> None:
    """Write a Parquet file, which appears when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    with shared.room():
        pq.write_table(table, draft)
    draft.rename(file)
    shared.sent(file)
