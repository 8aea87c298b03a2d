"""What runs cost: hours of cores and GPUs that worked, by the runs' own measures, and money where prices are known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raydist.report.runs import Run
from raydist.sections import Report as Prices

_CPU = ("cpu_s", "decode_cpu_s", "prepare_cpu_s")
"""Details of a report that count CPU seconds: the first that is there."""


def of(found: Iterable[Run], prices: Prices) -> dict[str, Any]:
    """Core hours, GPU hours and money; `unmeasured` names stages whose runs count no CPU time."""
    cpu_s = gpu_s = 0.0
    money: dict[str, float] = {}
    unmeasured = set()
    for run in found:
        details = run.report.get("details", {})
        counted = [float(details[name]) for name in _CPU if name in details]
        if counted:
            cpu_s += counted[0]
        else:
            unmeasured.add(run.stage)
        gpu_s += float(details.get("gpu_s", 0))
        if details.get("cost"):
            currency = str(details.get("currency", ""))
            money[currency] = round(money.get(currency, 0.0) + float(details["cost"]), 6)
    machines = cpu_s / 3600 * prices.core_hour_price + gpu_s / 3600 * prices.gpu_hour_price
    if machines:
        money[prices.currency] = round(money.get(prices.currency, 0.0) + machines, 6)
    return {
        "core_hours": round(cpu_s / 3600, 6),
        "gpu_hours": round(gpu_s / 3600, 6),
        "money": money,
        "unmeasured": sorted(unmeasured),
    }
