"""Figures for dashboards: counters and gauges on the Prometheus endpoint that Ray has on each node.

Reads     nothing
Writes    the metrics of `METRICS`; Ray puts `ray_` before their names and says which process and node they come from
Promises  a process without Ray counts nothing and pays nothing; setting a figure costs microseconds
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge


class Metric(NamedTuple):
    """What a figure says."""

    kind: str
    """`counter`: it only grows; `gauge`: it is as it was last set."""
    tags: tuple[str, ...]
    text: str


METRICS = {
    "raydist_clips": Metric(
        "counter", ("stage", "outcome"), "clips done: `row` or `failed`; of scan, files that failed"
    ),
    "raydist_failures": Metric("counter", ("stage", "reason"), "clips that failed, by reason; of scan, files"),
    "raydist_clips_per_second": Metric("gauge", ("stage",), "clips that came back a second, over the last minute"),
    "raydist_pending_clips": Metric("gauge", ("stage",), "clips of the run that have not come back yet"),
    "raydist_queue_blocks": Metric("gauge", ("stage",), "blocks that wait for a step: its actors, or the commit"),
    "raydist_busy_share": Metric(
        "gauge",
        ("stage", "device"),
        "share of its time that an actor worked, frames copied and stacked included, 0 to 1",
    ),
}
"""Name -> what it says, as `cluster/grafana-dashboard.json` asks for it; a counter ends with `_total` there."""

_WINDOW_S = 60.0
_EACH_S = 1.0
_BUSY_EACH_S = 5.0
_made: dict[str, Counter | Gauge] = {}


def add(name: str, amount: float, **tags: str) -> None:
    """Count so many more."""
    metric = _metric(name)
    if metric is not None and amount > 0:
        metric.inc(amount, tags=tags)  # type: ignore[union-attr]  # `METRICS` says that it is a counter


def done(stage: str, rows: int, reasons: Mapping[str, int]) -> None:
    """Count what a stage did: so many clips that have a row now, and reason -> those that failed."""
    add("raydist_clips", rows, stage=stage, outcome="row")
    add("raydist_clips", sum(reasons.values()), stage=stage, outcome="failed")
    for reason, count in reasons.items():
        add("raydist_failures", count, stage=stage, reason=reason)


def show(name: str, value: float, **tags: str) -> None:
    """Set a gauge."""
    metric = _metric(name)
    if metric is not None:
        metric.set(value, tags=tags)  # type: ignore[union-attr]  # `METRICS` says that it is a gauge


def _metric(name: str) -> Counter | Gauge | None:
    """The metric of this process, made when it is first used; None where Ray does not run."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    if name not in _made:
        from ray.util import metrics

        metric = METRICS[name]
        kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
        _made[name] = kind(name, metric.text, metric.tags)
    return _made[name]


class Rate:
    """How many a second, over the last minute; `refresh` shows it also where nothing comes."""

    def __init__(self, stage: str = "embed") -> None:
        self._stage = stage
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._sum = 0
        _rates.add(self)

    def add(self, count: int) -> float:
        """Count so many more; the rate with them."""
        self._sum += count
        return self.now()

    def now(self) -> float:
        """The rate at this moment."""
        now = time.monotonic()
        if now - self._seen[-1][0] >= _EACH_S:
            self._seen.append((now, self._sum))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        since, before = self._seen[0]
        return (self._sum - before) / max(now - since, _EACH_S)

    def show(self) -> None:
        """On the dashboard."""
        show("raydist_clips_per_second", self.now(), stage=self._stage)


_rates: weakref.WeakSet[Rate] = weakref.WeakSet()


def refresh() -> None:
    """Show the rates of this process as they are now: during a stall they fall, though nothing is counted."""
    for rate in list(_rates):
        rate.show()


class Busy:
    """The busy share of the actor that it belongs to: of the last seconds, work that is under way included."""

    def __init__(self, stage: str, device: str = "cpu") -> None:
        self._tags = {"stage": stage, "device": device}
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._begun: float | None = None
        self._worked = 0.0
        threading.Thread(target=_show_busy, args=(weakref.ref(self),), name="busy", daemon=True).start()

    def begin(self) -> None:
        """Work begins."""
        with self._lock:
            self._begun = time.monotonic()

    def end(self) -> None:
        """Work ends."""
        with self._lock:
            self._settle()
            self._begun = None

    def share(self) -> float:
        """Since it was last asked for."""
        with self._lock:
            self._settle()
            now = time.monotonic()
            share = min(1.0, self._worked / max(now - self._since, 1e-3))
            self._since, self._worked = now, 0.0
            return share

    def show(self) -> None:
        """On the dashboard."""
        show("raydist_busy_share", self.share(), **self._tags)

    def _settle(self) -> None:
        if self._begun is not None:
            now = time.monotonic()
            self._worked += now - self._begun
            self._begun = now


def _show_busy(of: weakref.ref[Busy]) -> None:
    """Every few seconds, also where nothing is done, as long as the actor is there."""
    while True:
        time.sleep(_BUSY_EACH_S)
        busy = of()
        if busy is None:
            return
        busy.show()
        del busy
