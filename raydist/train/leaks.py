"""Copies of clips that lie on both sides of a split: found by their frames' hashes, moved or reported.

Reads     `signatures` (whoever decoded the clips wrote them), `clips`, `videos`
Writes    `videos.split_override`, the clips' split and its copies beside the vectors, by `store.splits`
Again     what was moved is no leak any more; a run that died between two commits is finished
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.clips import near
from raydist.clips.signature import HASH_VERSION
from raydist.store import lease, read, splits, sql
from raydist.store.runs import listed

_CLIP_COLUMNS = ["clip_key", "fingerprint", "clip_id", "video_id", "source_id", "split"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """Pairs of clips in different splits that show the same."""

    clips: pa.Table
    """The clips that were compared: clip_key, fingerprint, clip_id, video_id, source_id, split."""
    pairs: NDArray[np.int64]
    """[P, 2] rows of `clips`."""
    without: int = 0
    """Clips that have no signature, and were not compared."""
    common: int = 0
    """Pictures that so many clips have that they say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What was done about leaks."""

    notes: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    """Video id -> the split that it was told."""
    clip_keys: tuple[int, ...] = ()
    """Held-out clips that are copies and could not be moved: to be left out."""


def find(location: str, keys: Collection[int] | None = None) -> Leaks:
    """Look for copies across the splits of an archive.

    Args:
        keys: the clips to compare, such as those with captions; None: all.
    """
    parts = read.scan_batches(location, "clips", _CLIP_COLUMNS, where=sql.is_in("split", splits.SPLITS))
    batches = list(parts)
    if not batches:
        empty = pa.schema({name: pa.int64() if name == "clip_key" else pa.string() for name in _CLIP_COLUMNS})
        return Leaks(clips=empty.empty_table(), pairs=np.empty((0, 2), np.int64))
    clips = pa.Table.from_batches(batches).sort_by("clip_key")
    if keys is not None:
        clips = clips.filter(pc.is_in(clips["clip_key"], pa.array(sorted(keys), pa.int64())))
    rows, hashes_NT = _hashes(location, clips)
    compared = clips.take(pa.array(rows))
    sides = pc.index_in(compared["split"], pa.array(splits.SPLITS)).to_numpy()
    pairs, common = near.copies(hashes_NT, sides)
    return Leaks(clips=compared, pairs=pairs, without=clips.num_rows - len(rows), common=common)


def settle(location: str, leaks: Leaks, how: str = "move") -> Settled:
    """Move whole videos so that copies lie in one split, or only say where they are.

    A group of copies goes to the split that one of its videos was told, else to `train` if any of it is there, else to
    `val`. It stays where its videos were told different splits, where one video was dealt in parts, and where nothing
    would be left in a split; its held-out clips are then to be left out.

    Args:
        how: `move` or `report`.

    Raises:
        ValueError: for another `how`.
        StoreError: a scan is at work on the archive.
    """
    if how not in ("move", "report"):
        raise ValueError(f"how is {how!r}, expected 'move' or 'report'")
    notes = _seen(leaks)
    if not len(leaks.pairs):
        return Settled(notes=tuple(notes))
    if how == "report":
        return Settled(notes=(*notes, "nothing was moved: train.leaks is 'report'; scores on copies say too much"))
    with lease.Lease(location, "train", exclusive=True):
        plan = _plan(location, leaks)
        changed = splits.override(location, plan.moved) if plan.moved else 0
    left, more = _left_out(leaks, plan.stuck)
    return Settled(
        notes=(*notes, *_moved(location, plan, changed), *more), moved=dict(plan.moved), clip_keys=tuple(left)
    )


def _hashes(location: str, clips: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Rows of `clips` (sorted by key) with a signature of their present content, and their hashes, 0 where none is."""
    keys = clips["clip_key"].to_numpy()
    fingerprints = clips["fingerprint"].combine_chunks()
    rows = [np.empty(0, np.int64)]
    lists: list[list[int]] = []
    columns = ["clip_key", "fingerprint", "frame_hashes"]
    for batch in read.scan_batches(location, "signatures", columns, where=sql.equals("hash_version", HASH_VERSION)):
        at = np.minimum(np.searchsorted(keys, batch["clip_key"].to_numpy()), max(0, len(keys) - 1))
        if not len(keys):
            break
        same = pc.and_(
            pc.equal(pa.array(keys[at]), batch["clip_key"]),
            pc.equal(fingerprints.take(pa.array(at)), batch["fingerprint"]),
        ).fill_null(False)
        rows.append(at[same.to_numpy(zero_copy_only=False)])
        lists.extend(hashes or [] for hashes in batch["frame_hashes"].filter(same).to_pylist())
    hashes_NT = np.zeros((len(lists), max(map(len, lists), default=1)), np.uint64)
    for row, hashes in zip(hashes_NT, lists, strict=True):
        row[: len(hashes)] = hashes
    return np.concatenate(rows), hashes_NT


@dataclass(frozen=True, slots=True)
class _Plan:
    moved: dict[str, str]
    examples: list[str]
    stuck: list[tuple[int, int, str]]
    """Pairs of rows that stay apart, and why."""


class _Groups:
    """Source videos that are joined by copies."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._parent: dict[str, str] = {}
        for one, other in pairs:
            self._parent[self.of(one)] = self.of(other)

    def of(self, source: str) -> str:
        parent = self._parent
        parent.setdefault(source, source)
        while parent[source] != source:
            parent[source] = parent[parent[source]]
            source = parent[source]
        return source

    def members(self) -> list[list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for source in self._parent:
            found[self.of(source)].append(source)
        return sorted((sorted(group) for group in found.values()), key=lambda group: (len(group), group))


def _plan(location: str, leaks: Leaks) -> _Plan:
    sources = leaks.clips["source_id"].to_pylist()
    pairs = [(int(one), int(other)) for one, other in leaks.pairs]
    between = [(one, other) for one, other in pairs if sources[one] != sources[other]]
    stuck = [(one, other, "parts of one video") for one, other in pairs if sources[one] == sources[other]]
    groups = _Groups((sources[one], sources[other]) for one, other in between)
    videos = _videos_of(location, {sources[row] for pair in between for row in pair})
    told = splits.overrides(location)
    left = Counter(leaks.clips["split"].to_pylist())
    clips_of = Counter(zip(sources, leaks.clips["split"].to_pylist(), strict=True))
    moved: dict[str, str] = {}
    why_not: dict[str, str] = {}
    examples: list[str] = []
    for group in groups.members():
        target, why = _target(group, videos, told)
        taken = Counter({
            split: sum(clips_of[source, split] for source in group) for split in splits.SPLITS if split != target
        })  # fmt: skip
        if not why and any(count and left[split] <= count for split, count in taken.items()):
            why = f"nothing would be left in {next(split for split, count in taken.items() if left[split] <= count)}"
        if why:
            why_not[groups.of(group[0])] = why
            continue
        left.subtract(taken)
        left[target] += taken.total()
        for source in group:
            for video, there in videos[source].items():
                if there != {target}:
                    moved[video] = target
                    examples.append(f"{video} from {'/'.join(sorted(there))} to {target}")
    for one, other in between:
        why = why_not.get(groups.of(sources[one]), "")
        if why:
            stuck.append((one, other, why))
    return _Plan(moved, examples, stuck)


def _videos_of(location: str, sources: Collection[str]) -> dict[str, dict[str, set[str]]]:
    """Source id -> video id -> splits of its clips."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    names = ["source_id", "video_id", "split"]
    ordered = sorted(sources)
    for start in range(0, len(ordered), 5_000):
        part = read.rows_by_key(location, "clips", ordered[start : start + 5_000], names, key="source_id")
        for source, video, split in zip(*(part[name].to_pylist() for name in names), strict=True):
            found[source][video].add(split)
    return found


def _target(
    group: Sequence[str], videos: Mapping[str, Mapping[str, set[str]]], told: Mapping[str, str]
) -> tuple[str, str]:
    """The split that a group of copies belongs in, and why it cannot go there."""
    names = [video for source in group for video in videos[source]]
    wishes = {told[video] for video in names if video in told}
    there = {split for source in group for found in videos[source].values() for split in found}
    target = wishes.pop() if len(wishes) == 1 else "train" if "train" in there else "val"
    if len(wishes) > 1:
        return target, "videos that were told different splits"
    undealt = [source for source in group if not any(video in told for video in videos[source])]
    if any(len({split for found in videos[source].values() for split in found}) > 1 for source in undealt):
        return target, "a video that was dealt in parts"
    return target, ""


def _left_out(leaks: Leaks, stuck: Sequence[tuple[int, int, str]]) -> tuple[list[int], list[str]]:
    """Held-out clips of pairs that stay apart: those that are not in train, and of val and test those in val."""
    if not stuck:
        return [], []
    order = {"train": 0, "test": 1, "val": 2}
    names = leaks.clips["split"].to_pylist()
    rows = {max((one, other), key=lambda row: order[names[row]]) for one, other, _ in stuck}
    sizes = Counter(names)
    taken = Counter(names[row] for row in rows)
    emptied = sorted(split for split in taken if taken[split] == sizes[split])
    kept = [row for row in rows if names[row] not in emptied]
    reasons = ", ".join(f"{why} ({count:,} pairs)" for why, count in Counter(why for *_, why in stuck).most_common())
    notes = [f"copies that stay on both sides: {reasons}"]
    if kept:
        notes.append(f"{len(kept):,} held-out clips that are copies of others are left out, such as {_id(leaks, kept)}")
    if emptied:
        notes.append(
            f"every clip of {' and '.join(emptied)} is a copy of one in another split: they are kept, and scores on "
            "them say nothing about unseen videos"
        )
    return sorted(leaks.clips["clip_key"].take(pa.array(kept, pa.int64())).to_pylist()), notes


def _id(leaks: Leaks, rows: Iterable[int]) -> str:
    return min(map(str, leaks.clips["clip_id"].take(pa.array(sorted(rows), pa.int64())).to_pylist()))


def _seen(leaks: Leaks) -> list[str]:
    """What was compared and found."""
    notes = []
    clips = leaks.clips.num_rows
    if len(leaks.pairs):
        one, other = (leaks.clips.slice(int(row), 1).to_pylist()[0] for row in leaks.pairs[0])
        notes.append(
            f"leaks: {len(leaks.pairs):,} pairs of the {clips:,} clips are copies in different splits, such as "
            f"{_shown(one)} and {_shown(other)}"
        )
    else:
        notes.append(f"leaks: none, no two of the {clips:,} clips are copies in different splits")
    if leaks.without:
        notes.append(f"leaks: {leaks.without:,} clips have no signature and were not compared")
    if leaks.common:
        notes.append(f"leaks: {leaks.common:,} pictures that more than {near.COMMON:,} clips have were left out")
    return notes


def _shown(clip: Mapping[str, Any]) -> str:
    return f"{clip['clip_id']} ({clip['split']})"


def _moved(location: str, plan: _Plan, changed: int) -> list[str]:
    if not plan.moved:
        return []
    runs = sorted(path.partition("/")[0] for path in listed(location, "*/adapter/adapter_config.json"))
    compare = f"; evaluations of {', '.join(runs)} can no longer be compared" if runs else ""
    counts = Counter(plan.moved.values())
    where = ", ".join(f"{counts[split]:,} to {split}" for split in splits.SPLITS if counts[split])
    more = " …" if len(plan.examples) > 3 else ""
    return [
        f"{len(plan.moved):,} videos with {changed:,} clips were moved so that copies lie in one split ({where}): "
        f"{', '.join(plan.examples[:3])}{more}{compare}. `raydist scan --splits FILE` tells them other splits"
    ]
