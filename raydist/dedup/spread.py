"""spread: the join of an archive's vectors, or of new ones with those that are known, as tasks on Ray.

Reads   `embeddings_<model_key>` and `clips` of one archive or two
Writes  Parquet files of pairs below a work folder
Again   a second run with the same work folder starts anew and gives the same result
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydist.config import Config
from raydist.runtime import Resources
from raydist.store import current

EDGES = pa.schema({"a": pa.int64(), "b": pa.int64(), "similarity": pa.float32()})
CROWDS = pa.schema({"clip_key": pa.int64(), "crowd": pa.int64(), "similarity": pa.float32()})
KEYS = pa.schema({"clip_key": pa.int64(), "fingerprint": pa.string()})

BIN = 0.005
"""Width of a bin of the histogram."""


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
    """A folder of Parquet files in `EDGES`: a is a clip key of `side`, b of `other` or of the same side; each pair of
    clips once, in either direction."""
    crowds: pa.Table
    """`CROWDS`: the clip, the pivot's clip key, the similarity to the pivot; the pivot is one of the rows."""
    pairs: int
    """Pairs of clips at or above the threshold, those inside of crowds and beside them included."""
    written: int
    """Edges in the files."""
    clips: int
    """Clips that were joined: those of both sides."""
    products: int
    """Pairs of vectors that were compared."""
    share: float
    """Of all pairs that there are."""
    bytes_read: int
    histogram: dict[float, int] = field(default_factory=dict)
    """Lower end of a bin of `BIN` -> pairs."""
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
        work: a folder of this run alone, seen by all nodes; emptied first.
        other: rows of another archive: only pairs of a clip of `side` and one of `other`.
        known: `clip_key`, `fingerprint`, `crowd` (or NULL) of rows of `side` whose pairs with each other (with
            `other`, if given) were found before: pairs of two known rows are left out.
    """
    shutil.rmtree(work / "edges", ignore_errors=True)
    (work / "edges").mkdir(parents=True)
    rows = current.current_rows(side.location, side.table, side.where)
    fresh = np.ones(len(rows.keys), np.bool_)
    if known is not None and known.num_rows:
        pairs = set(zip(known["clip_key"].to_pylist(), known["fingerprint"].to_pylist(), strict=True))
        here = zip(rows.keys.tolist(), rows.fingerprints.to_pylist(), strict=True)
        fresh = np.array([pair not in pairs for pair in here], np.bool_)
    x = _all(rows)
    if other is not None:
        theirs = current.current_rows(other.location, other.table, other.where)
        y, keys_b = _all(theirs), theirs.keys
        ok = fresh[:, None] & np.ones((1, len(keys_b)), np.bool_)
    else:
        y, keys_b = x, rows.keys
        ok = np.triu(fresh[:, None] | fresh[None, :], 1)
    similarity = x @ y.T
    a, b = np.nonzero((similarity >= threshold) & ok)
    found = similarity[a, b].astype(np.float32)
    table = pa.table([pa.array(rows.keys[a]), pa.array(keys_b[b]), pa.array(found)], schema=EDGES)
    pq.write_table(table, work / "edges" / "part-0.parquet")
    bins, counts = np.unique(np.floor((similarity[a, b] - threshold) / BIN).astype(int), return_counts=True)
    return Joined(
        edges=work / "edges",
        crowds=CROWDS.empty_table(),
        pairs=len(a),
        written=len(a),
        clips=len(x) + (len(y) if other is not None else 0),
        products=int(ok.sum()),
        share=1.0,
        bytes_read=x.nbytes // 4,
        histogram={round(threshold + BIN * int(bin), 6): int(n) for bin, n in zip(bins, counts, strict=True)},
        keys=pa.table([pa.array(rows.keys), rows.fingerprints], schema=KEYS).filter(pc.equal(pa.array(fresh), True)),
    )


def _all(rows: current.Rows) -> NDArray[np.float64]:
    order = np.argsort(rows.addresses)
    vectors = np.empty((len(order), rows.width))
    for at, found in current.vectors_at(rows.location, rows.table, rows.version, rows.addresses[order]):
        vectors[order[at]] = found
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
