"""The books of an archive: what is done, failed and pending.

Reads     every table, at the version it has when it is opened
Promises  for each model, clips = rows + failed + pending, always: each clip is looked up once. Rows and failures count
          where they have a clip's key and its present fingerprint; done beats failed
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.store import read
from raydist.store.join import PART_CLIPS, Part, Side, parts
from raydist.store.schema import embeddings_table
from raydist.store.sql import is_in
from raydist.store.tables import open_table

_CAPTION = "caption"
_FAILURES, _CAPTIONS = "/failures", "/captions"
"""Sides of the join beside the models' rows, which go by their keys: those hold no slash."""
_NEVER = -(2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBooks:
    """How far one model got. rows + failed + pending are all clips."""

    rows: int
    failed: int
    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What an archive holds."""

    states: Mapping[str, int]
    """State of `schema.VIDEO_STATES` -> files; states without files are left out."""
    clips: int
    captions: int
    reasons: Mapping[str, int]
    """Reason -> what failed for it, the most frequent first: a file counts once, a clip once for each model."""
    captioned: Mapping[str, ModelBooks]
    """By origin (`sidecar`, or the model that captions): clips with a caption, failed ones, and the others."""
    embeddings: Mapping[str, ModelBooks]
    """By model_key."""

    @property
    def files(self) -> int:
        """Files that are videos or were meant to be: ok + alias + failed."""
        return sum(self.states.get(state, 0) for state in ("ok", "alias", "failed"))

    @property
    def failed_files(self) -> int:
        """Files that no clip can be cut from."""
        return self.states.get("failed", 0)


def books(
    location: str,
    stage: str = "embed",
    *,
    part_clips: int = PART_CLIPS,
) -> Books:
    """Count everything, reading each table once; a table that is not there has no rows."""
    reasons: Counter[str] = Counter()
    states = _files(location, reasons)
    ledger = _Ledger(location, stage)
    clips = ledger.count(part_clips)
    return Books(
        states=states,
        clips=clips,
        captions=read.count_rows(location, "captions"),
        reasons=dict((reasons + ledger.reasons).most_common()),
        captioned=ledger.captioned(),
        embeddings=ledger.models(),
    )


def _files(location: str, reasons: Counter[str]) -> dict[str, int]:
    """Files by state; the reasons of failed ones are added to `reasons`."""
    states: Counter[str] = Counter()
    batches = read.scan_batches(location, "videos", ["state", "reason"], batch_size=65_536)
    for batch in batches:
        failed = batch.filter(pc.equal(batch["state"], "failed"))
        for counter, column in ((states, batch["state"]), (reasons, failed["reason"])):
            for pair in pc.value_counts(column).to_pylist():
                counter[pair["values"] or "unknown"] += pair["counts"]
    return dict(sorted(states.items()))


class _Ledger:
    """Rows, failures and pending clips of all models, added up part by part."""

    def __init__(self, location: str, stage: str) -> None:
        self.reasons: Counter[str] = Counter()
        self._clips = open_table(location, "clips")
        self._models = read.model_keys(location)
        self._sums = {key: np.zeros(3, np.int64) for key in self._models}
        self._captioned: defaultdict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
        self._names = _Names()
        self._sides = {key: Side(dataset=open_table(location, embeddings_table(key))) for key in self._models}
        self._sides[_FAILURES] = Side(
            dataset=open_table(location, "failures"),
            where=is_in("stage", [stage, _CAPTION]),
            columns=("stage", "model_key", "reason", "at"),
            numbers=self._names.of_failures,
        )
        self._sides[_CAPTIONS] = Side(
            dataset=open_table(location, "captions"), columns=("origin",), numbers=self._names.of_captions
        )

    def captioned(self) -> dict[str, ModelBooks]:
        """Clips by who captions."""
        return _as_books(self._captioned)

    def models(self) -> dict[str, ModelBooks]:
        """What was counted."""
        return _as_books(self._sums)

    def count(self, part_clips: int) -> int:
        """Count all clips once for each model; how many clips there are."""
        if self._clips is None:
            return 0
        total = 0
        for part in parts(self._clips, self._sides, part_clips=part_clips):
            total += len(part)
            failures, not_captioned = self._failures(part)
            for key in self._models:
                self._add_model(key, part.have(key), failures.get(key))
            self._add_captions(part, not_captioned)
        for sums in self._captioned.values():
            sums[2] = total - sums[0] - sums[1]
        return total

    def _failures(self, part: Part) -> tuple[dict[str, _Newest], dict[str, NDArray[np.bool_]]]:
        """By model: the newest failure of each clip; by who captions: the clips that failed."""
        failures: defaultdict[str, _Newest] = defaultdict(lambda: _Newest(len(part)))
        not_captioned = _marks(part)
        for clips, numbers in part.matches(_FAILURES):
            for number in _there(numbers):
                stage, key, reason = self._names[number]
                these = numbers[:, 0] == number
                if stage == _CAPTION:
                    not_captioned[key.rpartition("#")[0]][clips[these]] = True
                elif key in self._sums:
                    failures[key].add(clips[these], numbers[these, 1], reason)
        return failures, not_captioned

    def _add_model(self, key: str, done: NDArray[np.bool_], newest: _Newest | None) -> None:
        failed = ~done & newest.there if newest else np.zeros(len(done), np.bool_)
        self._sums[key] += [done.sum(), failed.sum(), (~done & ~failed).sum()]
        if newest:
            self.reasons += newest.reasons(failed)

    def _add_captions(self, part: Part, failed: dict[str, NDArray[np.bool_]]) -> None:
        done = _marks(part)
        for clips, numbers in part.matches(_CAPTIONS):
            for number in _there(numbers):
                done[self._names[number][0]][clips[numbers[:, 0] == number]] = True
        for origin in {*done, *failed}:
            self._captioned[origin][:2] += [done[origin].sum(), (failed[origin] & ~done[origin]).sum()]


class _Newest:
    """Of each clip of a part the newest failure, of several of one moment that with the last reason."""

    def __init__(self, clips: int) -> None:
        self._at = np.full(clips, _NEVER, np.int64)
        self._reason = np.full(clips, -1, np.int32)
        self._known: list[str] = []

    def add(self, clips: NDArray[np.int64], at: NDArray[np.int64], reason: str) -> None:
        """Failures for one reason."""
        order = np.argsort(at, kind="stable")
        clips, at = clips[order], at[order]  # of a clip that is among them twice the last stays
        if reason not in self._known:
            self._known.append(reason)
        before = np.array([known < reason for known in self._known] + [True])  # also -1: none
        newer = (at > self._at[clips]) | ((at == self._at[clips]) & before[self._reason[clips]])
        self._at[clips[newer]] = at[newer]
        self._reason[clips[newer]] = self._known.index(reason)

    @property
    def there(self) -> NDArray[np.bool_]:
        """The clips that have one."""
        return self._reason >= 0

    def reasons(self, wanted: NDArray[np.bool_]) -> Counter[str]:
        """Of some of the clips that have one."""
        counts = np.bincount(self._reason[wanted], minlength=len(self._known)).tolist()
        return Counter({reason: count for reason, count in zip(self._known, counts, strict=True) if count})


class _Names:
    """Numbers for the texts in rows of a part, so that rows are numbers alone."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}

    def __getitem__(self, number: int) -> tuple[str, ...]:
        return list(self._numbers)[number]

    def of_failures(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Number of stage, model_key and reason; the time in microseconds."""
        at = batch["at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).fill_null(_NEVER)
        reasons = pc.replace_with_mask(batch["reason"], pc.equal(batch["reason"], ""), "unknown").fill_null("unknown")
        return np.column_stack([self._of(batch["stage"], batch["model_key"], reasons), at.to_numpy()])

    def of_captions(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Number of the origin."""
        return self._of(batch["origin"])[:, None]

    def _of(self, *columns: pa.Array) -> NDArray[np.int64]:
        coded = [column.fill_null("").dictionary_encode() for column in columns]
        combined = np.zeros(len(columns[0]), np.int64)
        for column in coded:
            combined = combined * len(column.dictionary) + column.indices.to_numpy()
        rows = pa.array(combined).dictionary_encode()
        left, texts = rows.dictionary.to_numpy(), []
        for column in reversed(coded):
            left, place = np.divmod(left, max(1, len(column.dictionary)))
            texts.append(column.dictionary.take(pa.array(place)).to_pylist())
        numbers = [self._numbers.setdefault(row, len(self._numbers)) for row in zip(*reversed(texts), strict=True)]
        found: NDArray[np.int64] = np.array(numbers, np.int64)[rows.indices.to_numpy()]
        return found


def _there(numbers: NDArray[np.int64]) -> list[int]:
    """Which of the few numbers of `_Names` are in the first column."""
    return np.flatnonzero(np.bincount(numbers[:, 0])).tolist()


def _marks(part: Part) -> defaultdict[str, NDArray[np.bool_]]:
    return defaultdict(lambda: np.zeros(len(part), np.bool_))


def _as_books(sums: Mapping[str, NDArray[np.int64]]) -> dict[str, ModelBooks]:
    return {
        key: ModelBooks(rows=int(done), failed=int(failed), pending=int(waiting))
        for key, (done, failed, waiting) in sorted(sums.items())
    }
