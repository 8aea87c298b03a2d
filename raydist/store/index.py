"""The vector index of an embeddings table: built, refreshed, dropped, and how far a search must look in it.

Reads     the vectors of one table
Writes    Lance's IVF_FLAT with metric `dot` on centres of our own (see `centres`), as part of the table; and
          `indices/<table>.json`: how many partitions a search looks at, as measured
Promises  the index survives commits, deletions and compaction; rows that it lacks are found all the same; a writer
          that commits meanwhile is not held up, and its rows wait for the next refresh

Why IVF_FLAT: its vectors are float16 as they are, so hits need no second look. IVF_RQ takes a third of the disk, but
reads the vectors of several times k hits again from the table, which costs more than the longer scan saves.
"""

# Shape legend: N vectors, C centres, D numbers a vector, Q queries, K neighbours of each

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.lance import indices as native
from numpy.typing import NDArray

from raydist.store import centres, objects
from raydist.store.tables import again, lance_errors, need_table, open_table

NAME = "vector_ivf"
FOLDER = "indices"
DEPTHS = (10, 100, 1000)
"""Hits for which the probes are measured; a filter that passes half of the rows makes ten hits as deep as twenty."""

TARGET = 0.95
MAX_PARTITIONS = 16_384
"""More make training dearer than they make a search cheaper."""

_UNMEASURED = 0.1
"""Share of the partitions to look at for ten hits before anything was measured; texts need 5 to 9 %."""

_MIN_ROWS_A_PARTITION = 8
_RETRAIN_AT = 2.0
"""Growth since the centres were trained from which on they are trained anew: partitions are then twice as long."""

# With many centres Lance deals rows to partitions by an approximate search, six times as fast: of 3,000 it put 15 % of
# the rows elsewhere, and at a million rows searches needed 40 % more probes. Unless a person set it otherwise:
os.environ.setdefault("LANCE_USE_HNSW_SPEEDUP_INDEXING", "disabled")

_MERGE_ALL = 1_000
"""Parts of an index that a refresh makes one of: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The index in one version of a table."""

    parts: tuple[str, ...]
    """Ids of its files' folders."""
    rows: int
    """Rows that it holds and the table too."""
    unindexed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What was measured when the index was trained."""

    partitions: int
    trained_rows: int
    target: float = TARGET
    probes: dict[str, int] = field(default_factory=dict)
    """Depth -> partitions to look at; from the queries that need most."""
    recall: dict[str, float] = field(default_factory=dict)
    """Kind of query -> share of the ten nearest that a search found."""

    def probes_for(self, depth: float) -> int:
        """Partitions to look at for that many hits: between the measured depths on a line of logarithms."""
        known = sorted((int(name), count) for name, count in self.probes.items())
        if not known:
            share = _UNMEASURED * float(max(1.0, depth / DEPTHS[0]) ** 0.4)
            return max(1, min(self.partitions, round(self.partitions * share)))
        depths, counts = zip(*known, strict=True)
        found = np.exp(np.interp(np.log(max(depth, 1)), np.log(depths), np.log(counts)))
        if depth > depths[-1]:
            found *= depth / depths[-1]
        return int(min(self.partitions, max(1, np.ceil(found))))


def find(dataset: lance.LanceDataset) -> Built | None:
    """The index in this version of the table; None: there is none."""
    described = [index for index in dataset.describe_indices() if index.name == NAME]
    if not described:
        return None
    missing = sum(fragment.count_rows() for fragment in outside(dataset))
    parts = tuple(part.uuid for part in described[0].segments)
    return Built(parts=parts, rows=dataset.count_rows() - missing, unindexed=missing)


def outside(dataset: lance.LanceDataset) -> list[lance.LanceFragment]:
    """The fragments that the index lacks."""
    described = [index for index in dataset.describe_indices() if index.name == NAME]
    covered = {fragment for index in described for part in index.segments for fragment in part.fragment_ids}
    return [fragment for fragment in dataset.get_fragments() if fragment.fragment_id not in covered]


def read_card(location: str, table: str) -> Card | None:
    """What was measured of the table's index; None where nothing was, or it cannot be read."""
    data = objects.read(location, _card_name(table))
    try:
        return None if data is None else Card(**json.loads(data))
    except (ValueError, TypeError):
        return None


def write_card(location: str, table: str, card: Card) -> None:
    """Keep what was measured beside the tables."""
    objects.replace(location, _card_name(table), json.dumps(asdict(card), indent=2).encode())


def partitions_for(rows: int) -> int:
    """4 √rows, as faiss advises, within bounds."""
    return int(max(1, min(4 * rows**0.5, rows / _MIN_ROWS_A_PARTITION, MAX_PARTITIONS)))


def build(location: str, table: str, *, partitions: int = 0, seed: int = 0) -> Card:
    """Train centres and build the index anew, over all rows; an old one serves until it is there.

    Args:
        partitions: 0: by the number of rows.

    Returns:
        A card without measurements, written.

    Raises:
        StoreError: no such table, or Lance fails.
        ValueError: the table is empty.
    """
    dataset = need_table(location, table)
    rows = dataset.count_rows()
    partitions = partitions or partitions_for(rows)
    sample_ND = _sample(dataset, rows, partitions * centres.SAMPLE_PER_CENTRE, seed)
    centres_CD = centres.train(sample_ND, partitions, seed=seed)
    flat = pa.array(centres_CD.astype(np.float16).reshape(-1))
    with lance_errors(dataset.uri):
        again(
            lambda: need_table(location, table).create_index(
                "vector",
                "IVF_FLAT",
                name=NAME,
                metric="dot",
                num_partitions=partitions,
                ivf_centroids=pa.FixedSizeListArray.from_arrays(flat, centres_CD.shape[1]),
                replace=True,
            )
        )
    card = Card(partitions=partitions, trained_rows=rows)
    write_card(location, table, card)
    return card


def refresh(location: str, table: str) -> None:
    """Take the rows into the index that it lacks, on the centres it has; one part comes of it.

    Raises:
        StoreError: no such table, or Lance fails.
    """
    dataset = need_table(location, table)
    with lance_errors(dataset.uri):
        again(
            lambda: need_table(location, table).optimize.optimize_indices(
                index_names=[NAME], num_indices_to_merge=_MERGE_ALL
            )
        )


def wants(location: str, table: str, index_rows: int, unindexed_share: float) -> str:
    """What the table's index needs: "" nothing, `refresh`, or `build`.

    Args:
        index_rows: rows from which on a table has an index; 0: none ever.
        unindexed_share: share of the rows that may lie outside it.
    """
    dataset = open_table(location, table)
    if dataset is None or not index_rows:
        return ""
    rows, built = dataset.count_rows(), find(dataset)
    if built is None:
        return "build" if rows >= index_rows else ""
    card = read_card(location, table)
    if rows and (card is None or rows > _RETRAIN_AT * card.trained_rows):
        return "build"
    return "refresh" if built.unindexed > unindexed_share * rows else ""


def drop(location: str, table: str) -> bool:
    """Drop the index; whether there was one. Its files go with the old versions of the table."""
    objects.delete(location, _card_name(table))
    dataset = open_table(location, table)
    if dataset is None or find(dataset) is None:
        return False
    with lance_errors(dataset.uri):
        dataset.drop_index(NAME)
    return True


def rebuild(location: str, table: str) -> bool:
    """Build the index anew with the measurements that there are, if the table has one; whether it has.

    After rows were deleted, and `compact` or this, nothing of them is in the files of the new index.
    """
    dataset = open_table(location, table)
    if dataset is None or find(dataset) is None:
        return False
    if dataset.count_rows() == 0:
        return drop(location, table)
    old = read_card(location, table)
    made = build(location, table, partitions=old.partitions if old else 0)
    if old is not None:
        write_card(location, table, Card(**{**asdict(old), "trained_rows": made.trained_rows}))
    return True


def centres_of(dataset: lance.LanceDataset) -> NDArray[np.float32]:
    """The index's centres [C, D], as Lance keeps them: rounded to float16."""
    model = native.get_ivf_model(dataset._ds, NAME)  # type: ignore[attr-defined]  # missing in Lance's stub
    flat = model.centroids.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(model.centroids), -1)


def partition_ranks(
    centres_CD: NDArray[np.float32], queries_QD: NDArray[np.float32], neighbours: Sequence[NDArray[np.float16]]
) -> list[NDArray[np.int64]]:
    """For each query, the place of each neighbour's partition in the order in which a search looks at them, from 1.

    Args:
        neighbours: for each query its nearest vectors [K, D].
    """
    ranks = []
    for query_D, vectors_KD in zip(queries_QD, neighbours, strict=True):
        at_K = np.argmax(vectors_KD.astype(np.float32) @ centres_CD.T, axis=1)
        order_C = np.argsort(-(centres_CD @ query_D.astype(np.float16).astype(np.float32)), kind="stable")
        place_C = np.empty(len(order_C), np.int64)
        place_C[order_C] = np.arange(1, len(order_C) + 1)
        ranks.append(place_C[at_K])
    return ranks


def fewest_probes(ranks: Sequence[NDArray[np.int64]], depth: int, target: float) -> int:
    """The smallest number of partitions in which a share `target` of the `depth` nearest lie, all queries together."""
    nearest = np.concatenate([each[:depth] for each in ranks])
    return int(np.sort(nearest)[min(len(nearest) - 1, int(np.ceil(target * len(nearest))) - 1)])


def _sample(dataset: lance.LanceDataset, rows: int, wanted: int, seed: int) -> NDArray[np.float16]:
    """Up to `wanted` vectors [N, D], drawn without replacement from all rows."""
    if not rows:
        raise ValueError(f"table {dataset.uri!r} is empty, there is nothing to index")
    width = dataset.schema.field("vector").type.list_size
    chosen = np.zeros(rows, bool)
    chosen[np.random.default_rng(seed).permutation(rows)[:wanted]] = True
    parts, start = [], 0
    with lance_errors(dataset.uri):
        for batch in dataset.scanner(columns=["vector"], batch_size=8_192, scan_in_order=True).to_batches():
            vectors_ND = batch["vector"].flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
            parts.append(vectors_ND[chosen[start : start + len(vectors_ND)]])
            start += len(vectors_ND)
    return np.concatenate(parts)


def _card_name(table: str) -> str:
    return f"{FOLDER}/{table}.json"


def as_figures(card: Card) -> dict[str, Any]:
    """The card for a report."""
    return asdict(card)
