"""The clips that a model is measured on: captioned, held out, decoded; and the queries that their captions make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydist import metrics
from raydist.errors import ArchiveError
from raydist.store.pairs import captioned_clips, stale_captions

# Shape legend: N clips, M texts, P pairs, L tokens

TRAINED = "trained.parquet"
"""Beside an adapter's folder, or in it: `clip_key` of what it was trained on."""
LEAKED = "leaked.parquet"
"""There too: `clip_key` of held-out clips that are copies of what it was trained on."""
WATCHED = "watched.parquet"
"""There too: of the clips by which training chose its best state."""

FILES = (TRAINED, LEAKED, WATCHED)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Clips to measure on."""

    pairs: pa.Table
    left_out: int = 0
    """Clips of the split that the adapter was trained on."""
    leaked: int = 0
    """Clips of the split that are copies of such."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """Texts and clips that look for each other."""

    texts: list[str]
    """[M] different ones, as the model reads them."""
    pairs_P2: NDArray[np.int64]
    """Rows (clip, text) that belong together."""
    groups: metrics.Groups


def held_out(location: str, split: str, adapter: Path | None) -> Held:
    """The captioned clips of a split that the adapter was not trained on.

    Raises:
        ArchiveError: there are none.
    """
    pairs = captioned_clips(location, split)
    stale = stale_captions(location, split)
    if not pairs.num_rows:
        raise ArchiveError(_empty(location, split, stale))
    notes = (
        [f"{stale:,} captions are of clips that changed and do not count: `raydist caption --keep`"] if stale else []
    )
    if split == "train":
        notes.append("these clips are not held out: what a model was trained on says nothing of how it does elsewhere")
    if adapter is None or split == "train":
        return Held(pairs=pairs, notes=tuple(notes))
    trained, leaked, watched = (_keys(adapter, name) for name in (TRAINED, LEAKED, WATCHED))
    if trained is None:
        notes.append("the adapter does not say which clips it was trained on, so none could be left out")
    kept = _without(pairs, trained)
    rest = _without(kept, leaked)
    if not rest.num_rows:
        raise ArchiveError(
            f"the adapter in {str(adapter)!r} was trained on all {pairs.num_rows:,} captioned clips of the split "
            f"{split!r}, or on copies of them: expected clips that it has not seen. Add videos, or measure another one"
        )
    if split == "val" and watched is not None:
        notes.append("the split val chose the adapter's best state, which flatters it here; test did not")
    return Held(
        pairs=rest,
        left_out=pairs.num_rows - kept.num_rows,
        leaked=kept.num_rows - rest.num_rows,
        notes=tuple(notes),
    )


def _without(pairs: pa.Table, keys: pa.Array | None) -> pa.Table:
    return pairs if keys is None else pairs.filter(pc.invert(pc.is_in(pairs["clip_key"], value_set=keys)))


def _keys(adapter: Path, name: str) -> pa.Array | None:
    for file in (adapter.parent / name, adapter / name):
        if file.is_file():
            return pq.read_table(file, columns=["clip_key"])["clip_key"].combine_chunks()
    return None


def _empty(location: str, split: str, stale: int) -> str:
    if stale:
        return (
            f"all {stale:,} captions of the split {split!r} are of clips that changed since: expected captions of what "
            "the clips show now. `raydist caption --keep` confirms them, `raydist caption --from FILE` replaces them"
        )
    counts = {name: captioned_clips(location, name).num_rows for name in SPLITS}
    if not any(counts.values()):
        return "no clip of the archive has a caption: run `raydist caption --from captions.csv` first"
    there = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return (
        f"the split {split!r} has no captioned clip (captioned clips: {there}): add videos or captions, give your own "
        "split with `raydist scan --splits FILE`, or measure another one with --split"
    )


def require_differences(texts: Sequence[Sequence[str]], split: str) -> None:
    """
    Raises:
        ArchiveError: retrieval among these clips tells nothing.
    """
    different = {" ".join(text.split()).lower() for own in texts for text in own}
    if len(texts) < 2:
        raise ArchiveError(
            f"the split {split!r} has {len(texts)} captioned clip that can be measured: expected at least 2, "
            "better 100, to search among. Add videos or captions, or measure another one with --split"
        )
    if len(different) < 2:
        raise ArchiveError(
            f"all {len(texts):,} clips of the split {split!r} have one caption, {min(different)!r}: every clip is "
            "right for it, so retrieval tells nothing. Give clips captions that tell them apart"
        )


def distinct(captions: Sequence[Sequence[str]]) -> tuple[list[str], NDArray[np.int64]]:
    """Different texts in order of appearance, and rows (clip, text) that belong together."""
    number: dict[str, int] = {}
    pairs = [(clip, number.setdefault(text, len(number))) for clip, own in enumerate(captions) for text in own]
    return list(number), np.array(pairs, np.int64).reshape(-1, 2)


def queries(
    pairs: pa.Table, texts: Sequence[str], pairs_P2: NDArray[np.int64], ids_ML: NDArray[np.integer]
) -> tuple[Queries, NDArray[np.int64]]:
    """Texts that the model reads alike are one query. Also gives the row of `texts` that each query stands for."""
    _, first, same_M = np.unique(ids_ML, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    merged = np.unique(np.stack([pairs_P2[:, 0], place[same_M.reshape(-1)][pairs_P2[:, 1]]], axis=1), axis=0)
    rows = first[order]
    groups = metrics.groups(pairs["source_id"].to_pylist(), merged, len(rows))
    return Queries(texts=[texts[row] for row in rows], pairs_P2=merged, groups=groups), rows
