"""What runs cost: hours of cores and GPUs that they held, and of those that worked, and money where prices are known.

Held are all machines of the cluster while a run was there, whether they worked or waited: that is what is paid. A
cluster's head without cores for work, and machines between two runs, are not among them; two runs at the same time on
one cluster both hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raydist.meter import Held
from raydist.report.runs import Run
from raydist.sections import Report as Prices

_CPU = ("cpu_s", "decode_cpu_s", "prepare_cpu_s")
"""Details of a report that count CPU seconds: the first that is there."""
_SUMS = ("pipeline",)
"""Stages whose parts are runs of their own."""


def of(found: Iterable[Run], prices: Prices) -> dict[str, Any]:
    """Core hours, GPU hours and money; `unmeasured` names stages with runs that did not note what they held."""
    held, busy = Held(), Held()
    money: dict[str, float] = {}
    unmeasured = set()
    for run in (run for run in found if run.stage not in _SUMS):
        details = run.report.get("details", {})
        cpu_s = next((float(details[name]) for name in _CPU if name in details), 0.0)
        worked = Held(cpu_s, float(details.get("gpu_s", 0)))
        busy += worked
        held += worked if run.held is None else run.held
        if run.held is None:
            unmeasured.add(run.stage)
        if details.get("cost"):
            currency = str(details.get("currency", ""))
            money[currency] = round(money.get(currency, 0.0) + float(details["cost"]), 6)
    machines = held.core_s / 3600 * prices.core_hour_price + held.gpu_s / 3600 * prices.gpu_hour_price
    if machines:
        money[prices.currency] = round(money.get(prices.currency, 0.0) + machines, 6)
    return {
        "core_hours": round(held.core_s / 3600, 6),
        "gpu_hours": round(held.gpu_s / 3600, 6),
        "busy_core_hours": round(busy.core_s / 3600, 6),
        "busy_gpu_hours": round(busy.gpu_s / 3600, 6),
        "money": money,
        "unmeasured": sorted(unmeasured),
    }
