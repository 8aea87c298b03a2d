"""dedup/read: candidate pairs are read again, two pictures a second, and said to be copies or only alike.

Reads     `clips`, `videos`, `signatures`, `embeddings_<model>` of both archives; the clips' files, once each
Writes    `traces`, `failures` (see `dedup.traces`); the pairs themselves are the caller's to store
Again     repeatable: the same pairs give the same kinds; traces that are there are not decoded again
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from raydist import runtime
from raydist.config import Config
from raydist.dedup import traces
from raydist.dedup.align import SPEEDS, Line, Verdict, compare
from raydist.dedup.candidates import Links, PairKey, Spot, beside, by_signatures, cosines
from raydist.dedup.traces import Clip
from raydist.dedup.views import Views, prepare
from raydist.progress import bar
from raydist.store import read, roots, schema

_CHUNK = 200
"""Pairs that one task compares: some seconds of work."""
_SURE = 0.7
"""Confidence from which a copy leads to copies of its copies: one mistake would make many."""
_VIEWS = 96
"""Clips that a task holds, a megabyte each."""


def verify(
    config: Config,
    model_key: str,
    pairs: pa.Table,
    *,
    against: str = "",
    known: pa.Table | None = None,
    retry_failed: bool = False,
) -> pa.Table:
    """Read pairs again, and those that signatures and neighbours add.

    Args:
        model_key: whose vectors give the similarity of pairs that were found otherwise.
        pairs: `a`, `b` (clip keys; b of the archive `against`, if one is named) and `similarity`;
            `found_by` where not all were found by their vectors.
        retry_failed: try clips again that did not decode in an earlier run.
        known: rows of `schema.PAIRS` of earlier runs on the same archives: such pairs are not read again, and clips
            beside copies among them are candidates.

    Returns:
        Rows of `schema.PAIRS`: every given pair that is not known and whose clips are there, and the pairs that were
        found. `different` stands only on found ones: store it too, so that `known` holds it.
    """
    reading = _Reading(config, model_key, against, known, retry_failed=retry_failed)
    todo = reading.given(pairs)
    todo += reading.candidates(by_signatures(config.require_archive(), against), "signatures")
    todo += reading.beside(reading.seeds(), reach=1)
    if todo:
        with runtime.session(config.ray) as resources:
            reach = 1
            while todo:
                copies = reading.compare(todo, resources)
                todo = reading.beside(copies, reach)
                reach *= 2
    return reading.table()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One pair to be compared."""

    a: Clip
    b: Clip
    found_by: str
    similarity: float | None = None
    near: Line | None = None


@dataclass(slots=True)
class _Archive:
    """An archive's clips, as far as they were asked for."""

    location: str
    places: dict[str, str]
    clips: dict[int, Clip] = field(default_factory=dict)
    spots: dict[str, list[Spot]] = field(default_factory=dict)

    def need(self, keys: Iterable[int]) -> None:
        """Look clips up."""
        new = set(keys) - self.clips.keys()
        self.clips.update(traces.clips_of(self.location, new, self.places))

    def need_videos(self, names: Iterable[str]) -> None:
        """Look up which clips videos have."""
        new = sorted(set(names) - self.spots.keys())
        if not new:
            return
        columns = ["clip_key", "video_id", "start_s", "end_s"]
        rows = read.rows_by_key(self.location, "clips", new, columns, key="video_id").to_pylist()
        self.spots.update({name: [] for name in new})
        for row in sorted(rows, key=lambda row: float(row["start_s"])):
            spot = Spot(clip_key=row["clip_key"], start_s=row["start_s"], end_s=row["end_s"])
            self.spots[row["video_id"]].append(spot)


class _Reading:
    """What is known so far of all pairs."""

    def __init__(
        self, config: Config, model_key: str, against: str, known: pa.Table | None, *, retry_failed: bool
    ) -> None:
        location = config.require_archive()
        self._config, self._model_key, self._against = config, model_key, against
        self._retry_failed = retry_failed
        self._failed: set[traces.Key] = set()
        self._a = _Archive(location, roots.places(location, config.roots))
        self._b = _Archive(against, roots.places(against, {})) if against else self._a
        rows = [] if known is None else known.to_pylist()
        self._a.need(row["a"] for row in rows)
        self._b.need(row["b"] for row in rows)
        self._known = [row for row in rows if self._is_present(row)]
        self._known_keys = {(row["a"], row["b"]) for row in self._known}
        self._results: dict[PairKey, tuple[_Job, Verdict | None]] = {}
        self._links = Links()
        self._sure: set[PairKey] = {
            (row["a"], row["b"]) for row in self._known if row["kind"] == "copy" and row["confidence"] >= _SURE
        }

    def _is_present(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is about the clips as they are."""
        a, b = self._a.clips.get(row["a"]), self._b.clips.get(row["b"])
        return bool(a and b and a.fingerprint == row["a_fingerprint"] and b.fingerprint == row["b_fingerprint"])

    def given(self, pairs: pa.Table) -> list[_Job]:
        """The pairs that were found by their vectors."""
        keys = list(zip(pairs["a"].to_pylist(), pairs["b"].to_pylist(), strict=True))
        similar = dict(zip(keys, pairs["similarity"].to_pylist(), strict=True))
        by = pairs["found_by"].to_pylist() if "found_by" in pairs.column_names else ["vectors"] * len(keys)
        found_by = dict(zip(keys, by, strict=True))
        jobs = self.candidates(keys, "vectors")
        return [
            _Job(
                a=job.a,
                b=job.b,
                found_by=found_by.get(pair) or found_by.get(pair[::-1]) or "vectors",
                similarity=similar.get(pair, similar.get(pair[::-1])),
            )
            for job in jobs
            for pair in [(job.a.clip_key, job.b.clip_key)]
        ]

    def candidates(self, keys: Sequence[PairKey], found_by: str, near: Line | None = None) -> list[_Job]:
        """Pairs that are neither known nor asked for already."""
        self._a.need(a for a, _ in keys)
        self._b.need(b for _, b in keys)
        jobs = {}
        for one, other in keys:
            a, b = self._a.clips.get(one), self._b.clips.get(other)
            if a is None or b is None:
                continue
            if not self._against and a.clip_id > b.clip_id:
                a, b = b, a
            pair = (a.clip_key, b.clip_key)
            if a.key != b.key and pair not in self._known_keys and pair not in self._results:
                jobs[pair] = _Job(a=a, b=b, found_by=found_by, near=near)
        return list(jobs.values())

    def seeds(self) -> list[tuple[Clip, Clip, Line]]:
        """The copies among the known pairs."""
        return [
            (self._a.clips[row["a"]], self._b.clips[row["b"]], _line(row))
            for row in self._known
            if row["kind"] == "copy" and row["a_to_s"] > row["a_from_s"]
        ]

    def beside(self, copies: Sequence[tuple[Clip, Clip, Line]], reach: int) -> list[_Job]:
        """Pairs beside copies, and pairs of copies of one clip.

        A pair that was compared without a line and is no copy is compared again with one.
        """
        self._a.need_videos(a.video_id for a, _, _ in copies)
        self._b.need_videos(b.video_id for _, b, _ in copies)
        wanted: dict[PairKey, Line] = {}
        for a, b, line in copies:
            pair = (_spot(a), _spot(b))
            around = beside(pair, line, self._a.spots[a.video_id], self._b.spots[b.video_id], reach)
            for one, other in around:
                wanted.setdefault((one.clip_key, other.clip_key), line)
            if not self._against and (a.clip_key, b.clip_key) in self._sure:
                for one, other, across in self._links.add(*pair, line):
                    wanted.setdefault((one.clip_key, other.clip_key), across)
        self._a.need(a for a, _ in wanted)
        self._b.need(b for _, b in wanted)
        return [job for pair, line in wanted.items() for job in self._near(pair, line)]

    def _near(self, pair: PairKey, line: Line) -> Iterator[_Job]:
        a, b = self._a.clips.get(pair[0]), self._b.clips.get(pair[1])
        if a is None or b is None or a.key == b.key or pair in self._known_keys:
            return
        if not self._against and a.clip_id > b.clip_id:
            a, b = b, a
            line = line.turned()
        earlier = self._results.get((a.clip_key, b.clip_key))
        if earlier is None:
            yield _Job(a=a, b=b, found_by="neighbours", near=line)
        elif earlier[1] is not None and earlier[1].kind != "copy" and earlier[0].near is None:
            yield _Job(a=a, b=b, found_by=earlier[0].found_by, similarity=earlier[0].similarity, near=line)

    def compare(self, jobs: Sequence[_Job], resources: runtime.Resources) -> list[tuple[Clip, Clip, Line]]:
        """Compare pairs, and say which of them are copies."""
        jobs = list({(job.a.clip_key, job.b.clip_key): job for job in reversed(jobs)}.values())
        jobs.sort(key=lambda job: (job.a.video_id, job.b.video_id, job.a.start_ms, job.b.start_ms))
        clips = {clip.key: clip for job in jobs for clip in (job.a, job.b)}
        # What failed in this run is not tried once more in its next round.
        wanted = [clip for key, clip in clips.items() if key not in self._failed]
        self._failed |= set(traces.ensure(self._config, wanted, resources, retry_failed=self._retry_failed))
        copies = []
        with bar("comparing pairs", len(jobs)) as progress:
            for part, verdicts in _compared(self._a.location, jobs):
                for job, verdict in zip(part, verdicts, strict=True):
                    self._results[job.a.clip_key, job.b.clip_key] = job, verdict
                    if verdict is not None and verdict.line is not None:
                        copies.append((job.a, job.b, verdict.line))
                        if verdict.confidence >= _SURE:
                            self._sure.add((job.a.clip_key, job.b.clip_key))
                progress.advance(len(part))
        return copies

    def table(self) -> pa.Table:
        """All results, by the clips' ids."""
        unmeasured = [job for job, _ in self._results.values() if job.similarity is None]
        ones = cosines(
            self._a.location, schema.embeddings_table(self._model_key), [job.a.clip_key for job in unmeasured]
        )
        others = cosines(
            self._b.location, schema.embeddings_table(self._model_key), [job.b.clip_key for job in unmeasured]
        )
        now, rows = datetime.now(UTC), []
        for job, verdict in self._results.values():
            similarity = job.similarity
            if similarity is None and job.a.clip_key in ones and job.b.clip_key in others:
                similarity = float(ones[job.a.clip_key] @ others[job.b.clip_key])
            rows.append({**self._row(job, verdict), "similarity": similarity, "at": now})
        rows.sort(key=lambda row: (row["a_id"], row["b_id"]))
        return pa.Table.from_pylist(rows, schema.PAIRS)

    def _row(self, job: _Job, verdict: Verdict | None) -> dict[str, Any]:
        a, b = job.a, job.b
        row: dict[str, Any] = {
            "a": a.clip_key,
            "b": b.clip_key,
            "a_id": a.clip_id,
            "b_id": b.clip_id,
            "a_fingerprint": a.fingerprint,
            "b_fingerprint": b.fingerprint,
            "a_video": a.video_id,
            "b_video": b.video_id,
            "archive_b": self._against,
            "kind": "unread",
            "found_by": job.found_by,
            "threshold": self._config.dedup.threshold,
        }
        if verdict is None:
            return row
        # Alike in meaning is what the vectors said, whatever the pictures say.
        kind = "similar" if verdict.kind == "different" and job.found_by == "vectors" else verdict.kind
        row |= {"kind": kind, "confidence": verdict.confidence}
        if verdict.kind == "copy":
            row |= {name: getattr(verdict, name) for name in ("offset_s", "a_from_s", "a_to_s", "b_from_s", "b_to_s")}
        return row


def _spot(clip: Clip) -> Spot:
    return Spot(clip_key=clip.clip_key, start_s=clip.start_ms / 1000, end_s=clip.end_ms / 1000)


def _line(row: Mapping[str, Any]) -> Line:
    """The line of a stored copy."""
    speed = (row["b_to_s"] - row["b_from_s"]) / (row["a_to_s"] - row["a_from_s"])
    speed = min(SPEEDS, key=lambda known: abs(known - speed))
    return Line(speed=speed, shift_s=row["b_from_s"] - speed * row["a_from_s"])


def _compared(location: str, jobs: Sequence[_Job]) -> Iterator[tuple[Sequence[_Job], list[Verdict | None]]]:
    """Jobs and their verdicts, part by part, by tasks: each of one thread, for its matrices are small."""
    import ray  # once its environment is set

    task = ray.remote(num_cpus=1)(compare_all)
    parts = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    waiting = {task.remote(location, part): part for part in parts}
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1)
        for reference in done:
            yield waiting.pop(reference), ray.get(reference)


def compare_all(location: str, jobs: Sequence[_Job]) -> list[Verdict | None]:
    """Compare pairs whose traces are in the archive; None where one has none."""
    held: dict[traces.Key, Views] = {}
    verdicts: list[Verdict | None] = []
    for start in range(0, len(jobs), _VIEWS // 2):
        part = jobs[start : start + _VIEWS // 2]
        wanted = {clip.key: clip for job in part for clip in (job.a, job.b)}
        held = {key: views for key, views in held.items() if key in wanted}
        new = [clip for key, clip in wanted.items() if key not in held]
        held |= {key: prepare(trace) for key, trace in traces.load(location, new).items()}
        for job in part:
            a, b = held.get(job.a.key), held.get(job.b.key)
            verdicts.append(None if a is None or b is None else compare(a, b, near=job.near))
    return verdicts
