"""Captions by a model: the clips that have none are made ready on Ray and asked about, many at a time.

Reads     `clips`, `captions`, `failures`; answers that a killed run left on the disk
Writes    `captions`, `failures`, as batches of answers come; each answer itself at once (see `caption.answers`)
Again     safe to run again after any crash: nothing that was answered is asked again
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raydist import runtime
from raydist.caption import limits, providers, summary
from raydist.caption.asker import Asker, Task
from raydist.caption.asking import Ask, Media
from raydist.caption.batches import BatchAsker
from raydist.caption.estimate import SAMPLE, Estimate, estimate, measured_tokens, prepare_some
from raydist.caption.job import Job, resolve
from raydist.caption.ledger import Ledger, failures_key
from raydist.caption.local import LocalAsker, require_local
from raydist.caption.patience import Patience
from raydist.caption.prepare import Preparer
from raydist.caption.prices import media_tokens, text_tokens
from raydist.clips.naming import is_settled
from raydist.clips.units import clips_a_unit, units
from raydist.config import Config
from raydist.errors import ProviderError, StoreError
from raydist.progress import Bar, bar, talk
from raydist.records import Report
from raydist.store import compact, lease, pending, read, roots, stale
from raydist.store.manifest import Manifest
from raydist.store.runs import new_run, save

if TYPE_CHECKING:
    import ray.data

VERB = "caption --provider"
"""In the lease: two of these at once would pay for the same clips."""

ASKER_CPUS = 0.1
"""Logical cores of a process that mostly waits for answers."""
_THREADS = 16
"""Requests of one asking process at a time."""
_SLOW = 60
"""Requests a minute and place under way; with fewer, places stand empty and a slow answer holds nobody up."""
_BATCHES = 4
"""Clips that it is given at once, for each of them: one slow answer should not hold up many."""
_LEAVE_S = 15.0
"""What a stopped run waits for answers that are under way."""
_POLL_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one run is asked to do."""

    limit: int = 0
    """Clips at most; 0: all that wait."""
    dry_run: bool = False
    retry_failed: bool = False


def run(config: Config, wanted: Wanted) -> Report:
    """Caption the clips that have no caption of this model to this prompt.

    Raises:
        UsageError: settings that do not go together, a missing extra, no key.
        ModelError: a local model, or the encoder whose texts are to fit, that is not here.
        ProviderError: the provider refuses all requests, or does not answer any more; what was answered is kept.
        StoreError: another run of this kind is at work on the archive.
    """
    began = time.monotonic()
    location = config.require_archive()
    job = resolve(config, to_ask=not wanted.dry_run)
    if wanted.dry_run:
        found = _pending(config, job, wanted)
        estimated = _estimated(config, job, found, _count(config, job, found, wanted))
        thinks = config.caption.provider != "local" and (
            providers.most_tokens(job.access, _any_ask(config, job)) > job.prompt.max_tokens
        )
        return summary.dry_run(config, job, found, estimated, time.monotonic() - began, thinks=thinks)
    name = new_run("caption")
    with lease.Lease(location, VERB, run=name) as held:
        _require_alone(location, held)
        Manifest.sweep(location, held.others)
        stale.repair_unless_scanning(location)
        ledger = Ledger(location, job.origin, job.prompt.hash)
        recovered = ledger.recover()
        recovered_clips = ledger.counts["clips"]
        before = (ledger.cost, ledger.counts.copy())
        ledger.commit()
        found = _pending(config, job, wanted)
        spent = _work(config, job, found, ledger, name, _count(config, job, found, wanted))
        if spent.requests:
            ledger.account(spent, *before)
        notes: list[str] = []
        with compact.tidying(notes):
            if read.need_table(location, "clips").version != found.versions["clips"]:
                stale.delete_stale(location)
            compact.compact_if_alone(location, "captions", held)
    if config.caption.batch_api and ledger.why_left and ledger.counts["clips"] == recovered_clips:
        spent.stop, spent.why = "fatal", ledger.why_left.most_common(1)[0][0]
    report = summary.report(name, time.monotonic() - began, job, found, ledger, spent, recovered)
    report = replace(report, notes=(*report.notes, *notes))
    save(report, location)
    if spent.stop == "disk":
        raise StoreError(
            f"{spent.why}. {ledger.counts['clips']:,} clips were captioned and are kept; make room, and run the same "
            "command again"
        )
    if spent.stop in ("fatal", "down"):
        failed = ledger.counts["failed"]
        again = f" (with --retry-failed for the {failed:,} clips that failed)" if failed else ""
        raise ProviderError(
            f"{job.access.provider} ({job.origin}) {_trouble(spent)}: {spent.why}. {ledger.counts['clips']:,} clips "
            f"were captioned and are kept; run the same command again{again} when that is mended."
        )
    return report


def _require_alone(location: str, held: lease.Lease) -> None:
    others = [holder for holder in held.others() if holder.verb == VERB]
    if others:
        raise StoreError(
            f"{others[0]} is at work on {location!r}, and two would pay for the same clips: wait for it, or stop it"
        )


def _pending(config: Config, job: Job, wanted: Wanted) -> pending.Pending:
    return pending.uncaptioned_clips(
        config.require_archive(),
        job.origin,
        job.prompt.hash,
        failures_key(job.origin, job.prompt.hash),
        add=config.caption.captioned == "add",
        retry_failed=wanted.retry_failed,
    )


def _count(config: Config, job: Job, found: pending.Pending, wanted: Wanted) -> int:
    """How many of the clips that wait are made ready: no more than the budget can pay for, were answers free."""
    count = min(found.count, wanted.limit) if wanted.limit else found.count
    section = config.caption
    if not section.max_cost or job.price is None or wanted.dry_run:
        return count
    words = text_tokens(job.prompt.words())
    if section.batch_api:
        # Nothing can be taken back from a job: the dearest answers must fit.
        ask = _any_ask(config, job)
        each = job.price.cost(words + media_tokens(job.price, ask.media), providers.most_tokens(job.access, ask))
        return min(count, int(section.max_cost / each)) if each else count
    least = job.price.cost(words, 0)
    return min(count, int(section.max_cost / least) + section.in_flight) if least else count


def _any_ask(config: Config, job: Job) -> Ask:
    """A request with the most media that one can have."""
    section = config.caption
    media = Media(frames=(b"",) * section.frames, width_px=section.frame_px, height_px=section.frame_px)
    return Ask(name="", media=media, words="", captions=len(section.details), max_tokens=job.prompt.max_tokens)


def _manifest(location: str, found: pending.Pending, count: int, ledger: Ledger | None = None) -> Iterator[pa.Table]:
    """Units of `count` of the clips that wait, spread evenly over all of them."""
    size = clips_a_unit(count)
    seen = 0
    for table in found:
        # Of every `found.count / count` clips one: a trial of 50 clips should not be of one video.
        places = [row for row in range(table.num_rows) if _is_taken(seen + row, count, found.count)]
        seen += table.num_rows
        if not places:
            continue
        clips = table.take(places)
        files: dict[str, dict[str, str]] = {}
        columns = ["video_id", "root", "path", "file_fingerprint"]
        ids = clips["video_id"].unique().to_pylist()
        for row in read.rows_by_key(location, "videos", ids, columns, key="video_id").to_pylist():
            files[row.pop("video_id")] = row
        ready = [
            clip
            for clip in clips.to_pylist()
            if (file := files.get(clip["video_id"])) and is_settled(clip, file["file_fingerprint"])
        ]
        if ledger is not None:
            ledger.counts["waiting"] += clips.num_rows - len(ready)
        yield units(ready, files, size)


def _is_taken(place: int, count: int, of: int) -> bool:
    return place * count // of != (place + 1) * count // of


def _estimated(config: Config, job: Job, found: pending.Pending, count: int) -> Estimate:
    location = config.require_archive()
    places = roots.places(location, config.roots)
    some = pa.concat_tables(_manifest(location, found, min(count, SAMPLE))) if count else units([], {})
    sample = prepare_some(some, places, job.sending, config.limits(), job.price)
    measured = measured_tokens(location, job.origin, job.prompt.hash)
    return estimate(count, sample, job.prompt, job.price, measured)


def _work(config: Config, job: Job, found: pending.Pending, ledger: Ledger, name: str, count: int) -> limits.Spent:
    """Ask about `count` clips; what the gate counted."""
    location = config.require_archive()
    manifest = Manifest.of_run(location, name)
    try:
        manifest.write(_manifest(location, found, count, ledger))
        if not manifest.rows:
            return limits.Spent()
        with runtime.session(config.ray) as resources, bar(f"captioning with {job.origin}", count) as progress:
            return _asked(config, job, manifest, ledger, resources, progress)
    finally:
        manifest.remove()


def _asked(
    config: Config,
    job: Job,
    manifest: Manifest,
    ledger: Ledger,
    resources: runtime.Resources,
    progress: Bar,
) -> limits.Spent:
    import ray

    section = config.caption
    gate = limits.start(
        limits.Allowance(
            requests_per_minute=section.requests_per_minute,
            tokens_per_minute=section.tokens_per_minute,
            in_flight=section.in_flight,
            max_cost=section.max_cost,
            lost_s=4 * section.timeout_s + 60,
        )
    )
    interrupted = False
    try:
        asked = _graph(config, job, manifest, resources, gate)
        # A provider's batch job takes hours, and nothing comes meanwhile.
        for reference, rows in runtime.references(asked, None if section.batch_api else resources):
            ledger.add(runtime.got(reference).to_pylist())
            progress.advance(rows)
            progress.note(summary.spending(job, ledger))
            if ledger.due(section.commit_s, section.commit_rows):
                ledger.commit()
            if ledger.counts["left"] and ray.get(gate.stopped.remote()):
                break
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        spent = _settle(gate, ledger, _LEAVE_S if interrupted else section.timeout_s, interrupted)
    return spent


def _settle(gate: Any, ledger: Ledger, longest_s: float, interrupted: bool) -> limits.Spent:
    """Let nothing more be asked, wait for what is under way, and commit all that was answered."""
    import ray

    spent = limits.Spent()
    with suppress(ray.exceptions.RayError):
        spent = limits.Spent(**ray.get(gate.spent.remote()))
        if spent.at_work:
            ray.get(gate.stop.remote("interrupted", "the run was stopped"))
            talk.print(f"waiting up to {longest_s:.0f} s for {spent.at_work:,} clips that are under way")
        deadline = time.monotonic() + longest_s
        while spent.at_work and time.monotonic() < deadline:
            time.sleep(0.2)
            spent = limits.Spent(**ray.get(gate.spent.remote()))
    ledger.recover()
    ledger.commit()
    if interrupted:
        talk.print(f"stopped; {ledger.counts['clips']:,} clips are captioned, the same command goes on from there")
    return spent


def _graph(config: Config, job: Job, manifest: Manifest, resources: runtime.Resources, gate: Any) -> ray.data.Dataset:
    """manifest -> clips made ready -> answers."""
    from ray.data import ActorPoolStrategy  # Ray is imported once its environment is set

    section = config.caption
    hosted = section.provider != "local"
    gpu = not hosted and resources.use_gpu(section.device, "caption.device")
    askers = 0 if gpu else 1
    if hosted:
        askers = section.batch_jobs if section.batch_api else -(-section.in_flight // _THREADS)
    plan = runtime.plan(
        resources,
        workers=section.decoders,
        units=manifest.rows,
        worker_cpus=config.decode.cpus,
        memory_mb=config.decode.memory_mb,
        encoders=askers,
        gpus=gpu,
        encoder_cpus=ASKER_CPUS if hosted else None,
    )
    runtime.announce(plan, resources, encoders="askers")
    location = config.require_archive()
    prepared = manifest.dataset().map_batches(
        # 1:N, CPU. An actor with one child process: a decoder that dies costs one clip, not a worker.
        Preparer,
        fn_constructor_args=(roots.places(location, config.roots), job.sending, config.limits()),
        batch_size=None,
        batch_format="pyarrow",
        compute=plan.worker_pool(),
        **plan.worker_args,
    )
    asker, arguments, batch = _asking(config, job, plan, gate)
    return prepared.map_batches(
        # 1:1. Batches of clips of many videos; the actor has as many requests under way as its share is.
        asker,
        fn_constructor_args=arguments,
        batch_size=batch,
        batch_format="pyarrow",
        compute=plan.encoder_pool() if gpu else ActorPoolStrategy(size=plan.encoders),
        num_cpus=plan.encoder_cpus,
        num_gpus=plan.encoder_gpus,
    )


def _asking(config: Config, job: Job, plan: runtime.Plan, gate: Any) -> tuple[type, tuple[Any, ...], int]:
    """The actor that asks, what it is made of, and how many clips it is given at once."""
    section = config.caption
    location = config.require_archive()
    if section.provider == "local":
        batch = section.local_batch or (8 if plan.encoder_gpus else 1)
        device = "cuda" if plan.encoder_gpus else "cpu"
        model = require_local(job.access.model, device)  # a worker may have another current directory
        return LocalAsker, (model, device, batch, job.prompt, job.limit, job.origin), 4 * batch
    patience = Patience(tries=section.tries, longest_s=section.retry_after_s)
    task = Task(
        access=job.access, origin=job.origin, prompt=job.prompt, limit=job.limit, price=job.price, patience=patience
    )
    if section.batch_api:
        return BatchAsker, (task, location, _POLL_S), section.batch_clips
    threads = -(-section.in_flight // plan.encoders)
    # Answers reach this process a batch at a time: where a limit holds requests back, small ones come soon enough.
    slow = 0 < section.requests_per_minute < _SLOW * section.in_flight
    return Asker, (task, location, gate, threads), threads * (1 if slow else _BATCHES)


def _trouble(spent: limits.Spent) -> str:
    return "refuses all requests" if spent.stop == "fatal" else f"failed {spent.in_a_row:,} clips in a row"
