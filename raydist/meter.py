"""What this process holds of machines, and for how long: what a run costs, whether it works or waits.

Reads     nothing
Promises  hours are those of whole machines: a GPU that idles beside slow decoders is held, and paid, all the same
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """Seconds of cores and of GPUs."""

    core_s: float = 0.0
    gpu_s: float = 0.0

    def __add__(self, other: Held) -> Held:
        return Held(self.core_s + other.core_s, self.gpu_s + other.gpu_s)

    def __sub__(self, other: Held) -> Held:
        return Held(self.core_s - other.core_s, self.gpu_s - other.gpu_s)


_lock = threading.Lock()
_sum = Held()
_cores = _gpus = 0.0
_since = time.monotonic()


def hold(cores: float, gpus: float) -> tuple[float, float]:
    """From now on so many are held, 0 and 0: none; how many were until now."""
    global _cores, _gpus
    with _lock:
        _settle()
        before = (_cores, _gpus)
        _cores, _gpus = cores, gpus
        return before


def held() -> Held:
    """Since this process began."""
    with _lock:
        _settle()
        return _sum


def _settle() -> None:
    global _sum, _since
    now = time.monotonic()
    _sum += Held(_cores * (now - _since), _gpus * (now - _since))
    _since = now
