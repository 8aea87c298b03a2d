"""Patience with a storage that fails: whether an error of it is worth another try, and how long to wait before."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from raydist.errors import AwayError, StoreError, disk_remedy
from raydist.progress import talk

T = TypeVar("T")

_TRIES = 6
"""Errors of the storage before giving up, half a minute in all; the requests below are retried by Lance itself."""

_AWAY_FOR_S = 600.0
"""How long to wait for a bucket's server that is away: a night's work is not lost for a restart of it."""


class Patience:
    """How often to try again what a storage refuses, and how long to wait before."""

    def __init__(self, tries: int = _TRIES) -> None:
        self._tries = tries
        self._away = 0
        self._began = 0.0

    def bears(self, error: Exception) -> bool:
        """Whether it is worth another try; it is time for that then."""
        if isinstance(error, AwayError):
            self._began = self._began or time.monotonic()
            if time.monotonic() - self._began > _AWAY_FOR_S:
                return False
            self._away += 1
            if self._away == 2:
                talk.print(f"{error}; waiting for it, {_AWAY_FOR_S / 60:.0f} minutes at most")
            time.sleep(random.uniform(0.5, 1.0) * 2 ** min(self._away - 1, 4))
            return True
        if isinstance(error, StoreError) and not isinstance(error.__cause__, OSError):
            return False  # a condition that is none, a table that is gone: another try would not help
        self._tries -= 1
        if not self._tries or disk_remedy(error):  # no waiting makes room
            return False
        time.sleep(random.uniform(0.5, 1.0) * 2 ** (_TRIES - 1 - self._tries))
        return True


def patiently(call: Callable[[], T], patience: Patience) -> T:
    """What `call` gives, which may be done twice: tried again for as long as what it raises is borne."""
    while True:
        try:
            return call()
        except StoreError as error:
            if not patience.bears(error):
                raise
