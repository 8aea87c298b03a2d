"""spread: the join of an archive's vectors, or of new ones with those that are known, as tasks on Ray.

    a sample -> the layout of space           this process
    stretches of the table -> shards          a task each: read, find cells, sort by them
    shards -> groups of neighbouring cells    a task each: collapse equal vectors, set crowds apart
    groups -> edges                           a task for one and a few others within its reach

Reads   `embeddings_<model_key>` and `clips` of one archive or two
Writes  Parquet files of edges below a work folder
Again   a second run with the same work folder starts anew and gives the same result
Memory  a task: two groups and a product, below 500 MB; this process: keys, fingerprints and addresses of the clips
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydist import runtime
from raydist.config import Config
from raydist.dedup import cells, crowds, scratch, shared, tasks
from raydist.dedup.exact import check_threshold
from raydist.dedup.facing import EDGES, Faced, face
from raydist.dedup.kernel import block_of
from raydist.dedup.tasks import CROWDS, Assembled, Piece, Shard, Stretch
from raydist.dedup.workers import Call, run_all
from raydist.errors import StoreError
from raydist.runtime import Resources
from raydist.store import current

__all__ = ["CROWDS", "EDGES", "Joined", "Side", "join"]

KEYS = pa.schema({"clip_key": pa.int64(), "fingerprint": pa.string()})

GROUP_BYTES = 32 << 20
"""Of a group's vectors in float32. A task holds two groups so, and their float16 originals are mapped."""


_FACED_AT_ONCE = 8
"""Groups that a task compares one with, one after the other: to start a task costs as much as to compare two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Rows of an archive's table of embeddings."""

    location: str
    table: str
    where: str | None = None
    """An SQL condition over the table's columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a join found."""

    edges: Path
    """A folder of Parquet files in `EDGES`: a is a clip key of `side`, b of `other` or of the same side. Each pair of
    clips that are in no crowd once, in either direction; one edge for a clip and a crowd, one for two crowds."""
    crowds: pa.Table
    """`CROWDS`: the clip, the pivot's clip key, the similarity to the pivot; the pivot is one of the rows. Each two
    clips of a crowd are a pair. Empty with `other`."""
    pairs: int
    """Pairs of clips at or above the threshold, those inside of crowds and beside them included."""
    written: int
    """Edges in the files."""
    left_out: int
    """Of `pairs`, those in places so dense that they were only counted, though no crowd: see `facing`."""
    clips: int
    """Clips that were joined: those of both sides."""
    products: int
    """Pairs of vectors that were compared, most of them by their heads alone: see `kernel`."""
    whole: int
    """Of these, whole vectors."""
    share: float
    """`products`, of all pairs of clips."""
    bytes_read: int
    histogram: dict[float, int] = field(default_factory=dict)
    """Lower end of a bin of 0.005 -> pairs; inside of crowds and beside them estimated from samples."""
    keys: pa.Table
    """`KEYS`: the rows of `side` that were joined as new."""


def join(
    config: Config,
    resources: Resources,
    side: Side,
    work: Path,
    *,
    threshold: float,
    other: Side | None = None,
    known: pa.Table | None = None,
) -> Joined:
    """All pairs of clips whose vectors have a cosine of `threshold` or more.

    Args:
        work: a folder of this run alone that all nodes see, or that is `shared`; what an earlier run left there is
            deleted.
        other: rows of another archive: pairs of a clip of `side` and one of `other` only.
        known: `clip_key`, `fingerprint` of rows of `side` that were joined before: pairs of two of them are left out,
            and with `other` all of theirs.

    Raises:
        UsageError: a threshold out of bounds.
        StoreError: no such table, tables of two widths, a condition that is none, or a vector that is zero or no
            number.
        ResourceError: `dedup.device` is `cuda` and the cluster has no GPU.
    """
    check_threshold(threshold)
    device = "cuda" if resources.use_gpu(config.dedup.device, "dedup.device") else "cpu"
    for name in ("layout", "shards", "groups", "crowds", "edges"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "edges").mkdir(parents=True)
    rows = current.current_rows(side.location, side.table, side.where)
    old = np.zeros(len(rows.keys), np.bool_) if known is None else rows.among(known)
    new = rows.only(~old)
    if other is not None:
        others = current.current_rows(other.location, other.table, other.where)
        _refuse_other_width(rows, others)
    else:
        others = rows.only(old)
    limit = config.dedup.tasks or max(1, int(resources.most_cpus - runtime.LIGHT_CPUS))
    gpus = int(resources.most_gpus) if device == "cuda" else 0
    plan = runtime.Plan(workers=limit, worker_cpus=1.0, encoders=gpus, encoder_gpus=1.0)
    runtime.announce(plan, resources, what="tasks", encoders="comparisons")
    run = _Run(work, threshold, limit=limit)
    try:
        return run.joined(new, others, device, int(resources.most_gpus), within=other is None)
    finally:
        shared.clear_nodes()


def _refuse_other_width(side: current.Rows, other: current.Rows) -> None:
    if side.width != other.width:
        raise StoreError(
            f"table {side.table!r} of {side.location!r} holds {side.width}-d vectors, {other.table!r} of "
            f"{other.location!r} {other.width}-d ones: join archives that were embedded with one model"
        )


class _Run:
    """One join at work. Set a: the new clips; set b: those that they are joined with besides."""

    def __init__(self, work: Path, threshold: float, *, limit: int) -> None:
        self._work, self._threshold, self._limit = work, threshold, limit
        self._bytes = 0
        self._histogram = crowds.Histogram(threshold)

    def joined(self, new: current.Rows, others: current.Rows, device: str, gpus: int, *, within: bool) -> Joined:
        """Do it all; `within`: the new clips are joined with each other too."""
        count, beside = len(new.keys), len(others.keys)
        possible = count * beside + (count * (count - 1) // 2 if within else 0)
        a: list[Assembled] = []
        faced: list[Faced] = []
        if possible:
            scratch.save_layout(self._work, self._layout([new, others], possible))
            shards_a, shards_b = self._shards({"a": new, "b": others})
            a, b = self._groups({"a": shards_a, "b": shards_b}, new.width, crowded={"a": within, "b": True})
            faced = self._face(a, b, device, gpus, within=within)
        for found in faced:
            self._histogram.counts += found.histogram
        for group in a:
            self._histogram.counts += group.histogram
        products = sum(found.compared for found in faced)
        result = Joined(
            edges=self._work / "edges",
            crowds=self._crowds(),
            pairs=sum(found.pairs for found in faced) + sum(group.crowd_pairs for group in a),
            written=sum(found.written for found in faced),
            left_out=sum(found.left_out for found in faced),
            clips=count + beside,
            products=products,
            whole=sum(found.whole for found in faced),
            share=products / max(1, possible),
            bytes_read=self._bytes + sum(found.bytes_read for found in faced),
            histogram=self._histogram.as_dict(),
            keys=pa.table([pa.array(new.keys), new.fingerprints], schema=KEYS),
        )
        for name in ("layout", "shards", "groups", "crowds"):
            shutil.rmtree(self._work / name, ignore_errors=True)
        return result

    def _layout(self, sets: list[current.Rows], possible: int) -> cells.Layout:
        """Learn the division of space from vectors drawn evenly from all sets."""
        total = sum(len(rows.keys) for rows in sets)
        drawn = np.random.default_rng(0).permutation(total)[: cells.sample_size(possible)]
        first = _directed(self._sample(sets, drawn[: cells.SAMPLE]))
        basis = cells.principal(block_of(first).units(slice(None)), self._threshold)
        heads = [block_of(first, basis).head]
        for start in range(cells.SAMPLE, len(drawn), 2 * cells.SAMPLE):
            heads.append(block_of(_directed(self._sample(sets, drawn[start : start + 2 * cells.SAMPLE])), basis).head)
        return cells.learn(basis, np.concatenate(heads), self._threshold, possible)

    def _sample(self, sets: list[current.Rows], drawn: NDArray[np.int64]) -> NDArray[np.float16]:
        parts, base = [], 0
        for rows in sets:
            own = drawn[(drawn >= base) & (drawn < base + len(rows.keys))] - base
            addresses = np.sort(rows.addresses[own])
            parts.append(current.sampled_vectors(rows.location, rows.table, rows.version, addresses))
            base += len(rows.keys)
        vectors = np.concatenate(parts)
        self._bytes += vectors.nbytes
        return vectors

    def _shards(self, sets: dict[str, current.Rows]) -> tuple[list[Shard], list[Shard]]:
        """Read the tables, a stretch a task."""
        calls = []
        for name, rows in sets.items():
            size = _group_rows(rows.width)
            order = np.argsort(rows.addresses)
            for number, start in enumerate(range(0, len(order), size)):
                part = order[start : start + size]
                stretch = Stretch(
                    location=rows.location,
                    table=rows.table,
                    version=rows.version,
                    keys=rows.keys[part],
                    addresses=rows.addresses[part],
                )
                calls.append(Call(tasks.read, (stretch, self._work, self._work / "shards" / f"{name}-{number}")))
        shards: list[Shard] = run_all("reading vectors", calls, self._limit)
        for shard in shards:
            if shard.bad:
                raise StoreError(f"{shard.bad}; delete its row, then run `raydist embed` again")
            self._bytes += shard.bytes_read
        return [s for s in shards if s.folder.name[0] == "a"], [s for s in shards if s.folder.name[0] == "b"]

    def _groups(
        self, sets: dict[str, list[Shard]], width: int, crowded: dict[str, bool]
    ) -> tuple[list[Assembled], list[Assembled]]:
        """Put groups together, a task each."""
        calls = []
        for name, shards in sets.items():
            for number, pieces in enumerate(grouped(shards, _group_rows(width))):
                folder = self._work / "groups" / f"{name}-{number}"
                own_crowds = self._work / "crowds" / f"{folder.name}.parquet" if crowded[name] else None
                calls.append(Call(tasks.assemble, (pieces, self._work, folder, own_crowds, self._threshold)))
        groups: list[Assembled] = run_all("sorting vectors", calls, self._limit)
        self._bytes += sum(group.bytes_read for group in groups)
        return [g for g in groups if g.folder.name[0] == "a"], [g for g in groups if g.folder.name[0] == "b"]

    def _face(self, a: list[Assembled], b: list[Assembled], device: str, gpus: int, *, within: bool) -> list[Faced]:
        """Compare the groups that have cells within reach of each other, one with a few others a task."""
        calls = []
        for number, one in enumerate(a):
            others = [
                other.folder
                for other in [*(a[number:] if within else []), *b]
                if one.reaches[other.cells].any() or other.reaches[one.cells].any()
            ]
            for start in range(0, len(others), _FACED_AT_ONCE):
                part = others[start : start + _FACED_AT_ONCE]
                edges = self._work / "edges" / f"{one.folder.name}_{start}.parquet"
                calls.append(Call(face, (one.folder, part, self._work, edges, self._threshold, device)))
        on_gpu = device != "cpu"
        return run_all("comparing vectors", calls, gpus if on_gpu else self._limit, gpus=1.0 if on_gpu else 0.0)

    def _crowds(self) -> pa.Table:
        """The crowds of the new clips; those of others only say what is written of pairs with them."""
        files = shared.files(self._work / "crowds", "a-")
        return pa.concat_tables([CROWDS.empty_table(), *map(pq.read_table, files)])


def _group_rows(width: int) -> int:
    return max(1_024, GROUP_BYTES // (4 * width))


def _directed(raw: NDArray[np.float16]) -> NDArray[np.float16]:
    """Without vectors that cannot be compared; they are refused when they are read, with the name of their clip."""
    lengths = np.linalg.norm(raw.astype(np.float32), axis=1)
    found: NDArray[np.float16] = raw[np.isfinite(lengths) & (lengths > 0)]
    return found


def grouped(shards: list[Shard], limit: int) -> list[list[Piece]]:
    """Pieces of shards for groups of at most `limit` rows: whole cells one after the other, large ones cut up."""
    if not shards:
        return []
    sizes = np.stack([shard.sizes for shard in shards])
    ends = np.cumsum(sizes, axis=1)
    groups: list[list[Piece]] = [[]]
    room = limit
    for cell in np.flatnonzero(sizes.any(axis=0)).tolist():
        if sizes[:, cell].sum() > room and groups[-1]:
            groups.append([])
            room = limit
        for number in np.flatnonzero(sizes[:, cell]).tolist():
            start, end = int(ends[number, cell] - sizes[number, cell]), int(ends[number, cell])
            while start < end:
                if not room:
                    groups.append([])
                    room = limit
                count = min(room, end - start)
                groups[-1].append(Piece(shard=shards[number].folder, start=start, end=start + count, cell=cell))
                start, room = start + count, room - count
    return [group for group in groups if group]
