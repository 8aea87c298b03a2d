"""workers: tasks on Ray, a few at a time, with their results in the order of the calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raydist.dedup import shared
from raydist.progress import bar


@dataclass(frozen=True, slots=True)
class Call:
    """A function and what it is called with; both travel to a worker."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def run_all(title: str, calls: Sequence[Call], limit: int, *, gpus: float = 0.0) -> list[Any]:
    """The results of all calls, each a task of one core.

    At most `limit` of them wait or run at a time: arguments stay here until their turn comes, and a run that is
    stopped leaves no line behind. What a task raises is raised here.
    """
    import ray  # once the environment is set, by whoever opened the session

    results: list[Any] = [None] * len(calls)
    running: dict[Any, int] = {}
    left = iter(range(len(calls)))
    with bar(title, len(calls)) as progress:
        try:
            while True:
                while len(running) < limit and (number := next(left, None)) is not None:
                    remote = ray.remote(num_cpus=1, num_gpus=gpus)(shared.carried(calls[number].function))
                    running[remote.remote(*calls[number].arguments)] = number
                if not running:
                    return results
                done, _ = ray.wait(list(running), num_returns=1)
                for reference in done:
                    results[running.pop(reference)] = ray.get(reference)
                    progress.advance()
        finally:
            for reference in running:
                ray.cancel(reference)
