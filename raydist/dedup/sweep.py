"""Pairs and groups by threshold, with examples around each: the right threshold differs by model.

Reads     vectors, frames of the examples
Writes    `runs/<name>/dedup.html` and the report; no table
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist import choice, runtime
from raydist.config import Config
from raydist.dedup import page, shared
from raydist.dedup.components import components, keepers
from raydist.dedup.decisions import load as load_decisions
from raydist.dedup.known import edges_of
from raydist.dedup.spread import Joined, Side, join
from raydist.errors import ArchiveError
from raydist.records import Report
from raydist.store import lease, read, schema, settings, stale
from raydist.store.runs import new_run, publish, run_folder, save
from raydist.store.shown import shown as place_of

THRESHOLDS = (*(round(0.8 + 0.01 * step, 2) for step in range(20)), 0.995, 0.998, 0.999)
"""Dense near 1, where the pairs of a model that finds all things alike are."""

EXAMPLES = 2
"""Pairs just above each threshold, and as many just below it."""

_SAMPLE = 4_096
_PAIRS_A_CLIP = 20
"""A threshold that gives more pairs a clip than that, as a sample tells, is not tried: everything is alike there."""


def run(config: Config, sheet: str | None = None) -> Report:
    """Join at the lowest sensible threshold and count what each higher one would give.

    Raises:
        ArchiveError: there are fewer than two vectors.
    """
    began = time.monotonic()
    location = config.require_archive()
    settings.open_existing(location)
    model = choice.to_search(location, config.embed.model, config.embed.adapter)
    table = schema.embeddings_table(model.model_key)
    name = new_run("dedup")
    folder = run_folder(location, name)
    with lease.Lease(location, "dedup --sweep"):
        stale.repair_unless_scanning(location)
        lowest = _lowest(location, table)
        with shared.work(location, name) as scratch, runtime.session(config.ray) as resources:
            joined = join(config, resources, Side(location=location, table=table), scratch, threshold=lowest)
            edges = edges_of(joined)
    rows = _rows(location, edges, joined, lowest)
    path = page.write_parts(
        sheet or folder / "dedup.html",
        config,
        [
            page.Part(
                heading=f"Around {row['threshold']:g}",
                pairs=row["examples"],
                note=f"From there on {row['pairs']:,} pairs, {row['groups']:,} groups, {row['redundant']:,} redundant.",
            )
            for row in rows
        ],
        load_decisions(location),
        "",
        title="Thresholds",
        lead="Take the lowest threshold above which you would call all pairs duplicates: --threshold, or "
        "dedup.threshold in the settings.",
    )
    publish(location, name)
    shown = [{**row, "examples": [_short(pair) for pair in row["examples"]]} for row in rows]
    seen = str(path) if sheet else place_of(location, name, path.name)
    report = Report(
        stage="dedup",
        run=name,
        seconds=time.monotonic() - began,
        counts={"clips": joined.clips, "pairs": rows[0]["pairs"] if rows else 0},
        details={
            "sweep": shown,
            "lowest": lowest,
            "sheet": seen,
        },
    )
    save(report, location)
    return report


def _lowest(location: str, table: str) -> float:
    """The lowest threshold that is tried: one at which a sample of clips is not all pairs.

    Raises:
        ArchiveError: there are fewer than two vectors.
    """
    count = read.count_rows(location, table)
    if count < 2:
        raise ArchiveError(f"the archive {location!r} has {count} vectors of the model: expected two at least")
    rows = np.random.default_rng(0).choice(count, size=min(count, _SAMPLE), replace=False)
    dataset = read.need_table(location, table)
    vectors = np.stack(dataset.take(np.sort(rows), columns=["vector"])["vector"].to_pylist()).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    for threshold in THRESHOLDS:
        if (cosines >= threshold).mean() * (count - 1) / 2 <= _PAIRS_A_CLIP:
            return threshold
    return THRESHOLDS[-1]


def _rows(location: str, edges: pa.Table, joined: Joined, lowest: float) -> list[dict[str, Any]]:
    """What each threshold gives, the lowest first."""
    similarities = edges["similarity"].to_numpy()
    keys, ends = np.unique(np.concatenate([edges["a"].to_numpy(), edges["b"].to_numpy()]), return_inverse=True)
    pairs = ends.reshape(2, -1).T
    crowded = joined.pairs - edges.num_rows
    by_similarity = np.argsort(similarities, kind="stable")
    chosen: list[tuple[float, NDArray[np.int64]]] = []
    rows: list[dict[str, Any]] = []
    for threshold in (each for each in THRESHOLDS if each >= lowest):
        over = similarities >= threshold
        count = int(over.sum())
        if not count:
            break
        kept, _ = keepers(np.arange(len(keys)), pairs[over], np.full(len(keys), -1))
        labels = components(len(keys), pairs[over])
        sizes = np.bincount(labels, minlength=1)
        rows.append(
            {
                "threshold": threshold,
                "pairs": count + (crowded if threshold == lowest else 0),
                "groups": int((sizes > 1).sum()),
                "redundant": int((~kept).sum()),
            }
        )
        first = len(similarities) - count
        chosen.append((threshold, by_similarity[max(0, first - EXAMPLES) : first + EXAMPLES]))
    examples = _named(location, edges, np.concatenate([some for _, some in chosen] or [np.empty(0, np.int64)]))
    for row, (_, some) in zip(rows, chosen, strict=True):
        row["examples"] = [examples[edge] for edge in some.tolist()]
    return rows


def _named(location: str, edges: pa.Table, some: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    """Edges as rows of `schema.PAIRS` that were not read."""
    rows = {edge: edges.slice(edge, 1).to_pylist()[0] for edge in np.unique(some).tolist()}
    keys = sorted({row[side] for row in rows.values() for side in "ab"})
    names = read.rows_by_key(location, "clips", keys, ["clip_key", "clip_id", "video_id"]).to_pylist()
    clips: dict[int, Mapping[str, Any]] = {row["clip_key"]: row for row in names}
    empty = dict.fromkeys(schema.PAIRS.names)
    return {
        edge: {
            **empty,
            **row,
            **{f"{side}_id": clips[row[side]]["clip_id"] for side in "ab"},
            **{f"{side}_video": clips[row[side]]["video_id"] for side in "ab"},
            "archive_b": "",
            "kind": "unread",
        }
        for edge, row in rows.items()
    }


def _short(pair: Mapping[str, Any]) -> dict[str, Any]:
    return {"a": pair["a_id"], "b": pair["b_id"], "similarity": pair["similarity"]}
