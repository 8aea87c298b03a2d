"""dedup/candidates: pairs of clips that are worth reading again though their vectors did not say so.

`by_signatures`  clips that share some pictures, by the hashes of their frames: looser than what training takes for a
                 leak
`beside`         clips beside two that were found to be copies, which meet on the same line: other borders shift every
                 clip
`Links`          two copies of one clip, which are copies of each other where they meet on the lines to it

Flat pictures count nothing, nor do pictures that many clips have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.clips import near
from raydist.clips.signature import HASH_VERSION
from raydist.dedup.align import Line, shortest_near
from raydist.store import read, sql

SHARED = 2
"""Pictures that two clips must share."""

MOST = 16
"""Partners of a clip, those that share most: a camera that never moves would pair every clip with every other."""

PairKey: TypeAlias = tuple[int, int]
"""Clip keys of a and b."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A clip in its video, for looking around it."""

    clip_key: int
    start_s: float
    end_s: float


def by_signatures(location: str, against: str = "") -> list[PairKey]:
    """Pairs of clips of different videos that share pictures.

    Args:
        against: another archive: pairs of a clip here and one there.
    """
    keys, videos, hashes = _signed(location)
    if not against:
        found = near.sharing(hashes, videos, shared=SHARED, most=MOST)
        return [(int(keys[one]), int(keys[other])) for one, other in found]
    other_keys, _, other_hashes = _signed(against)
    sides = np.repeat([0, 1], [len(keys), len(other_keys)])
    width = max(hashes.shape[1], other_hashes.shape[1])
    both = np.concatenate([_padded(hashes, width), _padded(other_hashes, width)])
    found = near.sharing(both, sides, shared=SHARED, most=MOST)
    return [(int(keys[one]), int(other_keys[other - len(keys)])) for one, other in found]


def beside(
    pair: tuple[Spot, Spot], line: Line, ones: Sequence[Spot], others: Sequence[Spot], reach: int
) -> Iterator[tuple[Spot, Spot]]:
    """Pairs of clips of two videos, at most `reach` clips from a pair of copies, that overlap on the copies' line.

    Args:
        ones, others: all clips of each of the two videos, by their start.
    """
    at = next(number for number, spot in enumerate(ones) if spot.clip_key == pair[0].clip_key)
    for one in ones[max(0, at - reach) : at + reach + 1]:
        start, end = line.at(one.start_s), line.at(one.end_s)
        for other in others:
            if _enough(min(end, other.end_s) - max(start, other.start_s), one, other):
                yield one, other


def _enough(seconds: float, one: Spot, other: Spot) -> bool:
    """Whether an overlap of two clips is worth a look."""
    return seconds >= shortest_near(min(one.end_s - one.start_s, other.end_s - other.start_s))


class Links:
    """Copies that were found, by clip."""

    def __init__(self) -> None:
        self._found: dict[int, list[tuple[Spot, Line]]] = {}

    def add(self, a: Spot, b: Spot, line: Line) -> Iterator[tuple[Spot, Spot, Line]]:
        """Remember a copy, and say which other clips are to be compared with one of the two for that, on which line.

        A clip of very many copies leads to the first of them only.
        """
        for one, other, there in ((a, b, line), (b, a, line.turned())):
            links = self._found.setdefault(one.clip_key, [])
            if len(links) >= MOST or any(known.clip_key == other.clip_key for known, _ in links):
                continue
            for third, further in links:
                across = there.turned().then(further)
                start, end = across.at(other.start_s), across.at(other.end_s)
                if _enough(min(end, third.end_s) - max(start, third.start_s), other, third):
                    yield other, third, across
            links.append((other, there))


def _signed(location: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Keys [N], numbers of their videos [N] and hashes [N, T] of the clips that have a signature of their content.

    In this process: some 200 bytes a clip.
    """
    clips = _rows(location, "clips", ["clip_key", "fingerprint", "video_id"])
    where = sql.equals("hash_version", HASH_VERSION)
    signed = _rows(location, "signatures", ["clip_key", "fingerprint", "frame_hashes"], where)
    if clips is None or signed is None:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 1), np.uint64)
    keys = clips["clip_key"].to_numpy()
    order = np.argsort(keys)
    place = np.minimum(np.searchsorted(keys, signed["clip_key"].to_numpy(), sorter=order), len(keys) - 1)
    clips = clips.take(pa.array(order[place]))
    is_current = pc.and_(
        pc.equal(clips["clip_key"], signed["clip_key"]), pc.equal(clips["fingerprint"], signed["fingerprint"])
    )
    clips, signed = clips.filter(is_current), signed.filter(is_current)
    videos = clips["video_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    counts = pc.list_value_length(signed["frame_hashes"]).to_numpy()
    hashes = np.zeros((len(counts), int(counts.max(initial=1))), np.uint64)
    hashes[np.arange(hashes.shape[1]) < counts[:, None]] = pc.list_flatten(signed["frame_hashes"]).to_numpy()
    return signed["clip_key"].to_numpy(), videos, hashes


def _rows(location: str, table: str, columns: Sequence[str], where: str | None = None) -> pa.Table | None:
    """Whole columns; None where there is no row."""
    batches = list(read.scan_batches(location, table, columns, where=where))
    rows = pa.Table.from_batches(batches) if batches else None
    return rows if rows is not None and rows.num_rows else None


def _padded(hashes: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    return np.pad(hashes, ((0, 0), (0, width - hashes.shape[1])))


def cosines(location: str, table: str, keys: Sequence[int]) -> Mapping[int, NDArray[np.float32]]:
    """Unit vectors of clips, those that have none left out."""
    if read.open_table(location, table) is None or not keys:
        return {}
    rows = read.rows_by_key(location, table, sorted(set(keys)), ["clip_key", "vector"])
    if not rows.num_rows:  # NumPy could not tell how wide none are
        return {}
    vectors = pc.list_flatten(rows["vector"]).to_numpy().reshape(rows.num_rows, -1).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return dict(zip(rows["clip_key"].to_pylist(), vectors, strict=True))
