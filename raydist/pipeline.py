"""pipeline: scan -> caption -> train -> eval -> embed -> dedup, as one job that goes on where it stopped.

Reads   the archive: what is done there is not done again
Writes  what the stages write; `runs/pipeline-<time>/report.json`; `pipeline.json` beside those of eval and dedup
Again   the same command goes on: a run with an adapter is trained, eval and dedup are done once on the same rows, and
        every other stage does only what is left
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from raydist import caption, choice, dedup, embed, eval, scan, train
from raydist import config as settings_of
from raydist.config import Config
from raydist.errors import RaydistError, UsageError
from raydist.models import adapters
from raydist.records import Report
from raydist.rendering import too_many_failed
from raydist.store import objects, read, runs, schema, settings

STEPS = ("scan", "caption", "train", "eval", "embed", "dedup")
_MARK = "pipeline.json"
"""In the folder of a run of eval or dedup: what it was done on."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one call asks for, beside the settings."""

    inputs: Sequence[str] = ()
    """Videos and folders; none: those that the archive has."""
    listed: str | None = None
    """List of captions."""
    run: str = "lora"
    """Name of the training run, and of its adapter."""
    steps: Sequence[str] = STEPS
    """Which of `STEPS`; their order is always that."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How far it came."""

    reports: list[Report] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Step -> why there was nothing to do."""
    failed: str = ""
    """The step that ended it, if one did."""
    error: RaydistError | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A step with nothing to do, and why."""

    why: str


Done = Report | Skipped


def run(config: Config, request: Request, show: Callable[[str, Report], None], say: Say) -> tuple[Report, Outcome]:
    """Run the steps, one after the other, until all are done or one fails.

    Args:
        show: gets each step's name and report as it is done.
        say: gets a line for the person who looks on.

    Returns:
        The report of the whole, which is saved too, and how far it came.

    Raises:
        UsageError: an unknown step, or no videos and no archive.
    """
    began = time.monotonic()
    location = config.require_archive()
    wanted = _wanted(request.steps)
    if not request.inputs and not ("://" in location or settings.exists(location)):
        raise UsageError(
            f"no archive at {location!r} yet, and no videos were named: expected `raydist pipeline VIDEO_OR_FOLDER...`"
        )
    outcome, seconds = Outcome(), {}
    unexpected: Exception | None = None
    for number, step in enumerate(wanted, 1):
        started = time.monotonic()
        head = f"[{number}/{len(wanted)}] {step}"
        try:
            done = _STAGES[step](config, request)
        except RaydistError as error:
            outcome.failed, outcome.error = step, error
            break
        except Exception as error:  # noqa: BLE001  # the report names the step first; it is raised again below
            outcome.failed, unexpected = step, error
            break
        seconds[step] = round(time.monotonic() - started, 3)
        if isinstance(done, Skipped):
            outcome.skipped[step] = done.why
            say(f"{head}: {done.why}")
            continue
        say(f"{head}: {seconds[step]:,.1f} s")
        outcome.reports.append(done)
        show(step, done)
        if too_many_failed(done, config.max_failed):
            outcome.failed = step
            break
    report = _report(outcome, outcome.error or unexpected, wanted, seconds, time.monotonic() - began)
    if settings.exists(location):
        runs.save(report, location)
    if unexpected:
        raise unexpected
    return report, outcome


def _wanted(steps: Sequence[str]) -> list[str]:
    unknown = [step for step in steps if step not in STEPS]
    if unknown or not steps:
        raise UsageError(f"--steps {', '.join(steps)!r}: expected some of {', '.join(STEPS)}")
    return [step for step in STEPS if step in steps]


def _report(
    outcome: Outcome, error: Exception | None, wanted: Sequence[str], seconds: dict[str, float], whole_s: float
) -> Report:
    done = [report.stage for report in outcome.reports]
    failures: dict[str, int] = {}
    for report in outcome.reports:
        for reason, count in report.failures.items():
            failures[reason] = failures.get(reason, 0) + count
    notes = [f"{step}: {why}" for step, why in outcome.skipped.items()]
    if outcome.failed:
        left = [step for step in wanted if step not in done and step not in outcome.skipped]
        said = getattr(error, "cause", None) or error  # what a worker raised comes with its traceback
        why = f" ({said})" if said else ": more than max_failed of what it tried failed"
        notes.append(f"stopped at {outcome.failed}{why}; left to do: {', '.join(left) or 'nothing'}")
        goes_on = "the same command goes on from there"
        if not error:
            goes_on += f", without what failed: `raydist {outcome.failed} --retry-failed` tries that again"
        notes.append(goes_on)
    elif "embed" in wanted:
        notes.append('next: `raydist search "words"`')
    return Report(
        stage="pipeline",
        run=runs.new_run("pipeline"),
        seconds=round(whole_s, 3),
        counts={
            "steps": len(wanted),
            "done": len(done) - (not error and bool(outcome.failed)),
            "nothing_to_do": len(outcome.skipped),
        },
        failures=failures,
        notes=tuple(notes),
        details={
            "steps": {report.stage: report.run for report in outcome.reports},
            "step_seconds": seconds,
            **({"failed_step": outcome.failed} if outcome.failed else {}),
        },
    )


def _scan(config: Config, request: Request) -> Done:
    if not request.inputs:
        return Skipped("no videos were named: the archive's clips as they are")
    return scan.run(config, scan.Request(inputs=tuple(request.inputs)))


def _caption(config: Config, request: Request) -> Done:
    if request.listed:
        return caption.run(config, caption.Request(file=request.listed))
    if not config.caption.provider:
        count = read.count_rows(config.require_archive(), "captions")
        if count:
            return Skipped(f"the archive has {count:,} captions")
        return Skipped(
            "no captions, and neither --from FILE nor --provider was given: nothing to train and measure with"
        )
    return caption.run(config, caption.Request())


def _train(config: Config, request: Request) -> Done:
    location = config.require_archive()
    if _adapter(location, request.run):
        return Skipped(f"the run {request.run!r} is trained: its adapter is used (--run NAME trains another)")
    if not read.count_rows(location, "captions"):
        return Skipped("no captions to train with")
    return train.run(config, train.Request(run=request.run))


def _eval(config: Config, request: Request) -> Done:
    config = _adapted(config, request)
    location = config.require_archive()
    if not read.count_rows(location, "captions"):
        return Skipped("no captions to measure with")
    base, adapter = config.embed.model, config.embed.adapter
    info = choice.to_embed(location, base, None, adapter) if adapter else choice.to_train(location, base)
    mark = _mark(location, [info.model_key, config.eval.model_dump()], ["clips", "captions"])
    return _unless_done(location, "eval", mark, lambda: eval.run(config))


def _unless_done(location: str, stage: str, mark: str, work: Callable[[], Report]) -> Done:
    """Do the work unless a run of the stage did it on the very same rows."""
    for name in runs.listed(location, f"{stage}-*/{_MARK}"):
        data = objects.read(location, f"{runs.FOLDER}/{name}")
        if data is not None and json.loads(data).get("mark") == mark:
            return Skipped(f"done already, and nothing has changed since: {name.partition('/')[0]}")
    report = work()
    objects.replace(location, f"{runs.FOLDER}/{report.run}/{_MARK}", json.dumps({"mark": mark}).encode())
    return report


def _mark(location: str, settled: Sequence[Any], tables: Sequence[str]) -> str:
    """What tells whether there is anything new to do: the settings, and the versions of the tables that are read."""
    found = {name: read.open_table(location, name) for name in tables}
    versions = {name: None if table is None else table.version for name, table in found.items()}
    return blake2b(json.dumps([*settled, versions], sort_keys=True).encode(), digest_size=16).hexdigest()


def _embed(config: Config, request: Request) -> Done:
    report = embed.run(_adapted(config, request))
    if report.counts.get("clips"):
        return report
    return Skipped(f"nothing to do: every clip has a vector or a failure of {report.details['model']}")


def _dedup(config: Config, request: Request) -> Done:
    config = _adapted(config, request)
    location = config.require_archive()
    sampling = config.embed.sampling if "sampling" in config.embed.model_fields_set else None
    key = choice.to_embed(location, config.embed.model, sampling, config.embed.adapter).model_key
    config = settings_of.changed(config, {"embed.model": key, "embed.adapter": ""})
    tables = [schema.embeddings_table(key), "decisions", "videos"]
    mark = _mark(location, [config.dedup.model_dump()], tables)
    return _unless_done(location, "dedup", mark, lambda: dedup.run(config, dedup.Request()))


_STAGES: dict[str, Callable[[Config, Request], Done]] = {
    "scan": _scan,
    "caption": _caption,
    "train": _train,
    "eval": _eval,
    "embed": _embed,
    "dedup": _dedup,
}


def _adapted(config: Config, request: Request) -> Config:
    """With the adapter of the run, if there is one and none was named."""
    if config.embed.adapter or not _adapter(config.require_archive(), request.run):
        return config
    return settings_of.changed(config, {"embed.adapter": request.run})


def _adapter(location: str, run: str) -> bool:
    return bool(runs.listed(location, f"{run}/{adapters.FOLDER}/{adapters.FILES[0]}"))
