"""Progress of long work on stderr: a bar with rate and time left on a terminal, a line now and then in a job's log.

Elsewhere silence.

`current` tells what this process is doing, for others: a run's lease passes it on (see `store.lease`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

talk = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
"""Where a run talks to a person; data goes to stdout."""

LINE_S = 10.0
"""Seconds between two lines of a job's log."""
_AGAIN_S = 60.0
"""Seconds until a line comes again that says the same."""
_IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the driver of a job."""

_open: list[Bar] = []
_waits = ""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """How far work is."""

    doing: str
    """In words, such as `embedding with viclip-b16`; empty: nothing that is counted."""
    done: int
    total: int
    """0: unknown."""
    rate: float
    """A second, since it began."""
    waits: str = ""
    """What it waits for, where nothing comes."""

    def line(self) -> str:
        """Such as `embedding with tiny: 1,200 of 60,000 (2%), 35.0/s, 28 min left`."""
        waits = f"; {self.waits}" if self.waits else ""
        if not self.total:
            return f"{self.doing}: {self.done:,}, {self.rate:,.1f}/s{waits}"
        text = (
            f"{self.doing}: {self.done:,} of {self.total:,} ({self.done / self.total:.0%}), {self.rate:,.1f}/s{waits}"
        )
        left_s = (self.total - self.done) / self.rate if self.rate else 0.0
        return text + (f", {left_s / 60:,.0f} min left" if left_s >= 60 else "")


class Bar:
    """A running count; `advance` costs nothing where nobody looks."""

    def __init__(self, progress: Progress, title: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, note="")
        self._title, self._total = title, total or 0
        self._done = self._before = 0
        self._began = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count work that is done."""
        self._done += count
        self._progress.advance(self._task, count)

    def resume(self, done: int) -> None:
        """So much is done already, and says nothing of the rate."""
        self._done = self._before = done
        self._began = time.monotonic()
        self._progress.reset(self._task, completed=done)

    def doing(self) -> Doing:
        """How far it is."""
        passed = time.monotonic() - self._began
        rate = (self._done - self._before) / passed if passed > 0 else 0.0
        return Doing(doing=self._title, done=self._done, total=self._total, rate=round(rate, 3), waits=_waits)

    def note(self, text: str) -> None:
        """Say something beside the bar."""
        self._progress.update(self._task, note=text)


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Bar]:
    """Show a progress bar while the block runs, if stderr is a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=talk, disable=not talk.is_terminal, transient=True) as progress:
        shown = Bar(progress, title, total)
        _open.append(shown)
        ended = threading.Event()
        if progress.disable and _IN_A_JOB in os.environ:
            threading.Thread(target=_say, args=(shown, ended), name="progress", daemon=True).start()
        try:
            yield shown
        finally:
            ended.set()
            _open.remove(shown)


def _say(shown: Bar, ended: threading.Event) -> None:
    """A line now and then, also where nothing comes."""
    last, at = (-1, ""), 0.0
    while not ended.wait(LINE_S):
        doing = shown.doing()
        now = (doing.done, doing.waits)
        if now != last or time.monotonic() - at >= _AGAIN_S:
            last, at = now, time.monotonic()
            talk.print(doing.line())


def wait_for(what: str) -> None:
    """Say what the work of this process waits for, such as `waiting for a place for 1 embedder`; empty: nothing."""
    global _waits
    if what and not _waits:
        talk.print(what)
    _waits = what


def current() -> Doing | None:
    """What the innermost bar of this process counts; None where there is none."""
    shown = _open[-1:]  # another thread may close it at any moment
    return shown[0].doing() if shown else None
