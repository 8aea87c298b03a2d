"""The driver's book of one captioning run: answers in, commits out, and what it all came to.

Writes    `captions` (new ones in place of those to an earlier prompt of the same origin), `failures`
Promises  an answer that was kept on the disk is committed once, whichever run comes to do it; its file goes afterwards
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from raydist import gauges
from raydist.caption import answers
from raydist.caption.answers import Row
from raydist.caption.limits import Spent
from raydist.caption.write import row_of
from raydist.store import commit, read, schema, sql, tables

STAGE = "caption"
_KEYS_A_LOOK = 5_000


def failures_key(origin: str, prompt_hash: str) -> str:
    """What `failures.model_key` holds for a captioning run: a changed prompt is new work."""
    return f"{origin}#{prompt_hash}"


class Ledger:
    """Each clip that goes in comes out as captions, as a failure, or as left for another run."""

    def __init__(self, location: str, origin: str, prompt_hash: str) -> None:
        """
        Args:
            origin, prompt_hash: of this run; answers to earlier prompts may come up again, and replace nothing.
        """
        self._own = (origin, prompt_hash)
        self.counts: Counter[str] = Counter()
        """clips, captions, cut, failed, left, requests, tokens_in, tokens_out; others: answers of another model or to
        another prompt, which an earlier run left."""
        self.failures: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        """Reason -> what was said of a clip that failed for it."""
        self.why_left: Counter[str] = Counter()
        """What was said of clips that were left."""
        self.cost = 0.0
        self.prepare_cpu_s = 0.0
        self.prepare_s = 0.0
        self.ask_s = 0.0
        self._location = location
        self._held: dict[int, Row] = {}
        self._since = time.monotonic()
        self._rate = gauges.Rate(STAGE)
        self._captions = commit.Committer(location, "captions", schema.CAPTIONS)
        self._failed = commit.Committer(location, "failures", schema.FAILURES)
        tables.ensure_columns(location, "captions", {"cut": pa.bool_()})

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows of `ANSWERED`, a clip at most once."""
        for row in rows:
            self.prepare_cpu_s += row["prepare_cpu_s"]
            self.prepare_s += row["prepare_s"]
            if row["left"]:
                self.counts["left"] += 1
                self.why_left[row["detail"]] += bool(row["detail"])
            elif row["clip_key"] not in self._held:
                self._take(row)

    def recover(self) -> int:
        """Take the answers that runs which were killed, and workers of this one, left on the disk.

        Those about clips that are gone, such as forgotten ones, go too.

        Returns:
            How many are of this run's model and prompt; the others are kept, and counted as `others` alone.
        """
        found = {row["clip_key"]: row for row in answers.all_kept(self._location) if row["clip_key"] not in self._held}
        there: set[int] = set()
        keys = sorted(found)
        for start in range(0, len(keys), _KEYS_A_LOOK):
            some = keys[start : start + _KEYS_A_LOOK]
            there.update(read.rows_by_key(self._location, "clips", some, ["clip_key"])["clip_key"].to_pylist())
        answers.drop(self._location, found.keys() - there)
        before = self.counts["others"]
        for key in there:
            self._take(found[key])
        return len(there) - (self.counts["others"] - before)

    def account(self, spent: Spent, cost: float, counts: Mapping[str, int]) -> None:
        """Take what the run paid from its gate, which knows of clips that were left after answers of no use, too.

        Args:
            cost, counts: of before the first request.
        """
        self.cost = cost + spent.cost
        self.counts["requests"] = counts["requests"] + spent.requests
        self.counts["tokens_in"] = counts["tokens_in"] + spent.tokens_in
        self.counts["tokens_out"] = counts["tokens_out"] + spent.tokens_out

    def due(self, seconds: float, rows: int) -> bool:
        """Whether it is time to commit."""
        return len(self._held) >= rows or (bool(self._held) and time.monotonic() - self._since >= seconds)

    def commit(self) -> None:
        """Make what is held visible, then delete the answers' files."""
        if self._held:
            rows = list(self._held.values())
            for (origin, prompt_hash), group in _grouped(rows).items():
                self._commit_captions(origin, prompt_hash, [row for row in group if not row["reason"]])
            self._commit_failures([row for row in rows if row["reason"]])
            self._held = {}
            own = [row for row in rows if (row["origin"], row["prompt_hash"]) == self._own]
            failed = Counter(row["reason"] for row in own if row["reason"])
            gauges.done(STAGE, len(own) - failed.total(), failed)
            answers.drop(self._location, [row["clip_key"] for row in rows])
        self._since = time.monotonic()

    def _take(self, row: Row) -> None:
        self._held[row["clip_key"]] = row
        if (row["origin"], row["prompt_hash"]) != self._own:
            self.counts["others"] += 1
            return
        self._rate.add(1)
        self.cost += row["cost"]
        self.ask_s += row["ask_s"]
        self.counts.update({name: row[name] for name in ("requests", "tokens_in", "tokens_out")})
        self.counts["answered"] += row["requests"] > 0
        if row["reason"]:
            self.counts["failed"] += 1
            self.failures[row["reason"]] += 1
            self.examples.setdefault(row["reason"], f"{row['clip_id']}: {row['detail']}")
        else:
            self.counts.update({"clips": 1, "captions": len(row["captions"]), "cut": sum(row["cut"])})

    def _commit_captions(self, origin: str, prompt_hash: str, rows: list[Row]) -> None:
        if not rows:
            return
        now = datetime.now(UTC)
        new = [
            {**row_of(row, number, text, now, origin, prompt_hash), "cut": cut}
            for row in rows
            for number, (text, cut) in enumerate(zip(row["captions"], row["cut"], strict=True))
        ]
        table = pa.Table.from_pylist(new, schema=schema.CAPTIONS)
        fragments = commit.write_fragments(self._location, "captions", table, schema.CAPTIONS)
        self._captions.commit(
            fragments, delete_where=self._replaced(rows) if (origin, prompt_hash) == self._own else None
        )
        self.counts["replaced"] = self._captions.deleted

    def _replaced(self, rows: list[Row]) -> str | None:
        """Captions of this origin that these rows take the place of: to other prompts, or of earlier contents."""
        origin, prompt_hash = self._own
        keys = [row["clip_key"] for row in rows]
        clips = read.rows_by_key(self._location, "clips", keys, ["clip_key", "fingerprint"]).to_pylist()
        now_there = {clip["clip_key"]: clip["fingerprint"] for clip in clips}
        present = {
            row["clip_key"]: row["fingerprint"] for row in rows if row["fingerprint"] == now_there.get(row["clip_key"])
        }
        outdated = sql.all_of(sql.is_in("clip_key", present), sql.not_in("fingerprint", present.values()))
        another = f"NOT ({sql.equals('prompt_hash', prompt_hash)})"
        return sql.all_of(
            sql.equals("origin", origin), f"({sql.all_of(another, sql.is_in('clip_key', keys))}) OR ({outdated})"
        )

    def _commit_failures(self, rows: list[Row]) -> None:
        if not rows:
            return
        now = datetime.now(UTC)
        new: list[dict[str, Any]] = [
            {
                **{name: row[name] for name in ("video_id", "clip_key", "fingerprint", "reason", "detail")},
                "stage": STAGE,
                "model_key": failures_key(row["origin"], row["prompt_hash"]),
                "at": now,
            }
            for row in rows
        ]
        table = pa.Table.from_pylist(new, schema=schema.FAILURES)
        self._failed.commit(commit.write_fragments(self._location, "failures", table, schema.FAILURES))


def _grouped(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["origin"], row["prompt_hash"]].append(row)
    return groups
