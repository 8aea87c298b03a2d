"""Runs of an archive: those with a report, and those that ended without one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from raydist import meter
from raydist.errors import UsageError
from raydist.store import objects
from raydist.store.lease import NOTE, holders
from raydist.store.runs import FOLDER, listed

_STAMP = re.compile(r"-(\d{8}T\d{6}\.\d{6})$")
_LONGEST = timedelta(days=7)
"""Runs whose names say that they began longer before the period are not even opened."""
_REPORT = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of one run."""

    run: str
    stage: str
    began: datetime
    ended: datetime | None
    how: str
    """`done`, `running`, `stopped`, `failed`, or `died`: its process ended without a word."""
    host: str = ""
    error: str = ""
    doing: str = ""
    """What it counted last, where there is no report, with `done` and `total` of it."""
    done: int = 0
    total: int = 0
    held: meter.Held | None = None
    """What it held of machines, until its last heartbeat; None: a run of before that was counted."""
    noted: dict[str, int] = field(default_factory=dict)
    """What it had committed when it last said so, where there is no report."""
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """What it did."""
        return self.report.get("counts") or self.noted

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return float(self.report.get("seconds") or ((self.ended or datetime.now(UTC)) - self.began).total_seconds())

    def as_json(self) -> dict[str, Any]:
        """For tools: the report's own parts are those of `runs/<run>/report.json`."""
        known = {
            "run": self.run,
            "stage": self.stage,
            "how": self.how,
            "host": self.host,
            "began": self.began.isoformat(timespec="seconds"),
            "ended": self.ended.isoformat(timespec="seconds") if self.ended else "",
            "seconds": round(self.seconds, 1),
            "error": self.error,
        }
        if not self.report:
            known |= {"doing": self.doing, "done": self.done, "total": self.total}
        known |= {"counts": self.counts} if self.counts else {}
        kept = ("failures", "clips_per_s", "shares", "bound_by")
        known |= {name: self.report[name] for name in kept if self.report.get(name)}
        return {name: value for name, value in known.items() if value not in ("", None)}


def since(location: str, moment: datetime) -> list[Run]:
    """Runs that were at work after a moment, the oldest first."""
    names = sorted({name.split("/")[0] for name in (*listed(location, f"*/{_REPORT}"), *listed(location, f"*/{NOTE}"))})
    at_work = {holder.run for holder in holders(location, sweep=False)}
    found = []
    for name in names:
        stamped = _stamp(name)
        if stamped is None or stamped >= moment - _LONGEST:
            run = _read(location, name, at_work)
            if run is not None and (run.ended is None or run.ended >= moment):
                found.append(run)
    return sorted(found, key=lambda run: run.began)


def one(location: str, name: str) -> Run:
    """A run by its name.

    Raises:
        UsageError: it is not there.
    """
    run = _read(location, name, {holder.run for holder in holders(location, sweep=False)})
    if run is None:
        last = sorted(path.split("/")[0] for path in listed(location, f"*/{_REPORT}"))[-3:]
        raise UsageError(f"--run {name!r}: no such run; the last ones: {', '.join(last) or 'none'}")
    return run


def by_stage(found: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Sums of the runs of each stage, in the order in which they began.

    Drivers that embed side by side look at the same clips and fail the same, while each row is one driver's alone: of
    the failed ones those of the driver that had most are taken, and clips are its sum with the rows.
    """
    stages: dict[str, dict[str, Any]] = {}
    for run in found:
        sums = stages.setdefault(run.stage, {"runs": 0, "seconds": 0.0, "how": {}, "counts": {}, "clips_per_s": 0.0})
        sums["runs"] += 1
        sums["seconds"] = round(sums["seconds"] + run.seconds, 1)
        sums["how"][run.how] = sums["how"].get(run.how, 0) + 1
        sums["clips_per_s"] = run.report.get("clips_per_s") or sums["clips_per_s"]
    for together in _together(found):
        counts = stages[together[0].stage]["counts"]
        for name, count in _summed(together).items():
            counts[name] = counts.get(name, 0) + count
    return stages


def _together(found: Sequence[Run]) -> list[list[Run]]:
    """Runs, those of one model that embedded at the same time in one list; which model is known of those that ended."""
    groups: list[list[Run]] = []
    last: dict[str, list[Run]] = {}
    for run in found:
        key = str((run.report.get("details") or {}).get("model_key", "")) if run.stage == "embed" else ""
        beside = last.get(key) if key else None
        if beside and any(other.ended is None or run.began < other.ended for other in beside):
            beside.append(run)
        else:
            groups.append([run])
            last[key] = groups[-1]
    return groups


def _summed(together: Sequence[Run]) -> dict[str, int]:
    counts = [run.counts for run in together]
    if len(together) == 1:
        return counts[0]
    rows, failed = sum(one.get("rows", 0) for one in counts), max(one.get("failed", 0) for one in counts)
    return {"clips": max(rows + failed, *(one.get("clips", 0) for one in counts)), "rows": rows, "failed": failed}


def _read(location: str, name: str, at_work: set[str]) -> Run | None:
    report = _document(location, f"{FOLDER}/{name}/{_REPORT}")
    note = _document(location, f"{FOLDER}/{name}/{NOTE}")
    if not report and not note:
        return None
    began = _stamp(name) or _moment(note.get("since")) or _moment(report.get("began"))  # the first is the finest
    ended = _moment(report.get("ended")) or _moment(note.get("heartbeat"))
    how = "done" if report else str(note.get("ended") or ("running" if name in at_work else "died"))
    error = str(note.get("error", "")) if how == "failed" else ""
    if (report.get("details") or {}).get("failed_step"):  # a pipeline, which reports also where a step ends it
        how = "failed"
        error = next((text for text in report.get("notes", ()) if text.startswith("stopped at ")), "")
    if began is None:
        return None
    if report and ended is None:
        ended = began + timedelta(seconds=float(report.get("seconds", 0)))
    return Run(
        run=name,
        stage=str(report.get("stage") or note.get("verb", "")).split(" ")[0],
        began=began,
        ended=None if how == "running" else ended,
        how=how,
        host=str(note.get("host", "")),
        error=error,
        doing=str(note.get("doing", "")),
        done=int(note.get("done", 0)),
        total=int(note.get("total", 0)),
        held=_held(note),
        noted={str(key): int(count) for key, count in (note.get("counts") or {}).items()},
        report=report,
    )


def _held(note: dict[str, Any]) -> meter.Held | None:
    if "held_core_s" not in note:
        return None
    return meter.Held(float(note["held_core_s"]), float(note.get("held_gpu_s", 0)))


def _document(location: str, name: str) -> dict[str, Any]:
    data = objects.read(location, name)
    try:
        document = json.loads(data or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _stamp(name: str) -> datetime | None:
    found = _STAMP.search(name)
    return datetime.strptime(found[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC) if found else None


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text or "")).astimezone(UTC)
    except ValueError:
        return None
