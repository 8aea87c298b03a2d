"""A thread that waits for many answers at once, each until its deadline.

The clients' own limits of time are between bytes: an answer that dribbles never ends. A deadline for all of it takes
their asynchronous side, where a request can be given up at any moment, and closes its connection with it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own; used by any number of threads."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=name, daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """What the coroutine gives.

        Raises:
            TimeoutError: it took longer; it was ended where it was.
        """
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, timeout_s), self._loop).result()
