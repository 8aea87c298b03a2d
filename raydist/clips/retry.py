"""retry: one loop of tries for everything that is asked of a server.

Promises  a try that failed for a passing reason is made again after a pause that grows, with jitter, or that the server
          asked for; after the last one a SourceError says what happened. The time is bounded by the settings
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from raydist.errors import SourceError
from raydist.records import Remote

T = TypeVar("T")

_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_LONGEST_WISH_S = 30.0
"""A server may ask for a longer pause (Retry-After) than we are ready to make."""
_SLOWEST_BYTES_S = 64 << 10
"""Bodies may come this slowly before a try is given up."""


class PassingError(Exception):
    """A try failed for a reason that may pass. `wish_s`: the pause that the server asks for."""

    def __init__(self, what: str, wish_s: float = 0.0) -> None:
        super().__init__(what)
        self.wish_s = wish_s


class Tries:
    """Makes tries.

    `waits` is told before each pause and each try how many seconds it may take, so that a watcher does not take it for
    a hang.
    """

    def __init__(self, settings: Remote, waits: Callable[[float], None] = lambda seconds: None) -> None:
        self.settings = settings
        self._waits = waits

    def longest_s(self, length: int = 0) -> float:
        """What one try may take that moves so many bytes."""
        return self.settings.connect_s + self.settings.read_s + length / _SLOWEST_BYTES_S

    def __call__(self, shown: str, attempt: Callable[[], T], longest_s: float | None = None) -> T:
        """Call `attempt`, which takes at most so many seconds, until it gives something.

        Raises:
            SourceError: what the attempt raised; unreadable after the last `PassingError`.
        """
        number = 0
        while True:
            number += 1
            self._waits(self.longest_s() if longest_s is None else longest_s)
            try:
                return attempt()
            except PassingError as error:
                if number >= self.settings.tries:
                    raise SourceError("unreadable", f"{shown}: {error}; given up after {number} tries") from error
                pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
                pause = max(pause, min(error.wish_s, _LONGEST_WISH_S))
            self._waits(pause + 1)
            time.sleep(pause)
