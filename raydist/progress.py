"""Progress of long work on stderr: a bar with rate and time left on a terminal, silence elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

talk = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
"""Where a run talks to a person; data goes to stdout."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


class Bar:
    """A running count; `advance` costs nothing where nobody looks."""

    def __init__(self, progress: Progress, title: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, note="")

    def advance(self, count: int = 1) -> None:
        """Count work that is done."""
        self._progress.advance(self._task, count)

    def resume(self, done: int) -> None:
        """So much is done already, and says nothing of the rate."""
        self._progress.reset(self._task, completed=done)

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
        yield Bar(progress, title, total)
