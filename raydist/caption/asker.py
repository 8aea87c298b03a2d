"""The Ray actor that asks a hosted model: prepared clips in, captions or reasons out; many requests at a time.

Reads     `tables.PREPARED`
Gives     `tables.ANSWERED`, in the order in which answers came
Promises  every clip in is one row out; an answer is on the disk before its place is taken by the next clip
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raydist.caption import answers, providers
from raydist.caption.asking import Access, Media
from raydist.caption.limits import Stop
from raydist.caption.one import Captioner, Door, Outcome
from raydist.caption.patience import Patience
from raydist.caption.prices import Price
from raydist.caption.prompt import Prompt
from raydist.caption.tables import ANSWERED
from raydist.errors import StoreError
from raydist.models.lengths import TextLimit

_ROWS_A_TABLE = 8
_PASSED_ON = ("clip_key", "clip_id", "video_id", "fingerprint", "prepare_s", "prepare_cpu_s")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked of all clips of a run."""

    access: Access
    origin: str
    prompt: Prompt
    limit: TextLimit
    price: Price | None
    patience: Patience


class GateDoor:
    """The run's gate, which is an actor elsewhere."""

    def __init__(self, gate: Any) -> None:
        import ray  # in a worker, where it is there already

        self._gate = gate
        self._who = ray.get_runtime_context().get_actor_id() or ""  # the same one after the worker died
        self._got("start", self._who)

    def enter(self, tokens: int, cost: float) -> int | None:
        return self._got("enter", tokens, cost, self._who)  # type: ignore[no-any-return]  # an actor answers

    def leave(self, number: int, tokens_in: int, tokens_out: int, cost: float) -> None:
        self._got("leave", number, tokens_in, tokens_out, cost)

    def pause(self, seconds: float) -> None:
        self._got("pause", seconds)

    def begin(self) -> None:
        self._got("begin", self._who)

    def end(self) -> None:
        self._got("end", self._who)

    def count(self, answered: bool, why: str = "") -> None:
        self._got("count", answered, why)

    def stop(self, stop: Stop, why: str) -> None:
        self._got("stop", stop, why)

    def stopped(self) -> bool:
        return bool(self._got("stopped"))

    def _got(self, name: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self._gate, name).remote(*arguments))


class Asker:
    """A Ray actor: prepared clips in, answered clips out."""

    def __init__(self, task: Task, location: str, gate: Any, threads: int) -> None:
        self._task = task
        self._location = location
        self._door = GateDoor(gate)
        self._captioner = Captioner(
            provider=providers.load(task.access),
            prompt=task.prompt,
            limit=task.limit,
            door=self._door,
            price=task.price,
            patience=task.patience,
        )
        self._pool = ThreadPoolExecutor(threads, "ask")

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Caption all clips that are ready; the others keep their reason."""
        # A row at a time becomes Python's: the pictures of a whole batch would be there twice.
        tasks = [self._pool.submit(self._answered, table.slice(row, 1)) for row in range(table.num_rows)]
        done: list[Row] = []
        for task in as_completed(tasks):
            done.append(task.result())
            if len(done) == _ROWS_A_TABLE:
                yield pa.Table.from_pylist(done, ANSWERED)
                done = []
        if done:
            yield pa.Table.from_pylist(done, ANSWERED)

    def _answered(self, one: pa.Table) -> Row:
        (clip,) = one.to_pylist()
        if clip["reason"]:
            return row_of(clip, self._task, Outcome(reason=clip["reason"], detail=clip["detail"]), 0.0)
        self._door.begin()
        try:
            return known(self._location, clip, self._task, self._door) or self._asked(clip)
        finally:
            self._door.end()

    def _asked(self, clip: Row) -> Row:
        began = time.monotonic()
        media = Media(
            frames=tuple(clip["frames"] or ()),
            clip=clip["clip"] or b"",
            width_px=clip["width_px"],
            height_px=clip["height_px"],
            duration_s=clip["duration_s"],
        )
        outcome = self._captioner.caption(clip["clip_id"], media)
        row = row_of(clip, self._task, outcome, time.monotonic() - began)
        if not outcome.left:
            try:
                answers.keep(self._location, row)
            except (OSError, StoreError) as error:
                # A full disk, or a bucket that is away: what is known goes on to the driver, nothing more is asked.
                self._door.stop("disk", f"an answer cannot be written to the archive: {error}")
        return row


def known(location: str, clip: Row, task: Task, door: Door) -> Row | None:
    """What need not be asked of a clip: it has an answer that waits, or the archive does not say and all stops."""
    try:
        return answers.kept(location, clip, task.origin, task.prompt.hash)
    except (OSError, StoreError) as error:
        why = f"answers cannot be read from the archive: {error}"
        door.stop("disk", why)
        return row_of(clip, task, Outcome(left=True, detail=why), 0.0)


def row_of(clip: Row, task: Task, outcome: Outcome, seconds: float) -> Row:
    """A row of `ANSWERED`."""
    return {
        **{name: clip[name] for name in _PASSED_ON},
        "reason": outcome.reason,
        "detail": outcome.detail,
        "captions": list(outcome.captions),
        "cut": list(outcome.cut),
        "origin": task.origin,
        "prompt_hash": task.prompt.hash,
        "left": outcome.left,
        "requests": outcome.requests,
        "tokens_in": outcome.tokens_in,
        "tokens_out": outcome.tokens_out,
        "cost": outcome.cost,
        "ask_s": seconds,
    }
