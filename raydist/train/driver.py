"""The driver of a training run: what is checked and prepared before, who trains, what is said after.

Reads     `clips`, `captions`, `signatures`; the run's folder, where it was begun before
Writes    `runs/<name>/`: recipe, pairs, journal, checkpoints, TensorBoard's files, the adapter, the report
Again     the same command goes on from the last checkpoint; a run that is finished is not touched
"""

from __future__ import annotations

import re
import time

from raydist import choice, runtime
from raydist.config import Config
from raydist.errors import ResourceError, UsageError
from raydist.models import adapters
from raydist.models.encoder import ModelInfo
from raydist.progress import talk
from raydist.records import Report
from raydist.sections import Train
from raydist.store import lease, objects, roots, settings, stale
from raydist.store.location import is_uri
from raydist.store.runs import save
from raydist.train import Request, files, recipe
from raydist.train.fit import fit, watched
from raydist.train.prepare import Prepared, prepare
from raydist.train.summary import summary
from raydist.train.task import ADAPTER, Task

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def run(config: Config, request: Request) -> Report:
    """Train an adapter, or go on with a run that was stopped."""
    began = time.monotonic()
    location = config.require_archive()
    settings.open_existing(location)
    folder = _folder(location, request.run)
    info = choice.to_train(location, config.embed.model)
    if config.embed.adapter:
        talk.print(f"train: embed.adapter = {config.embed.adapter!r} plays no part; training begins from the base")
    holding = lease.Lease(location, f"train {request.run}", run=request.run)
    with holding as held, runtime.session(config.ray) as resources:
        _refuse_twin(held, request.run)
        workers, device = _workers(config.train, resources)
        _announce(config.train, resources, workers, device)
        if recipe.has_begun(folder):
            recipe.refuse_other(folder, recipe.stated(config.train, info))
            talk.print(f"train: going on with the run {request.run!r}")
        stale.repair_unless_scanning(location)
        prepared = prepare(config, info, folder, retry_failed=request.retry_failed)
        task = begin(config, info, folder, prepared, resources, workers, device)
        outcome = watched(task, prepared.steps(task.section), lambda: fit(task, workers))
    report = summary(request.run, time.monotonic() - began, outcome, prepared, info, config.train.patience)
    save(report, location)
    return report


def begin(
    config: Config,
    info: ModelInfo,
    folder: str,
    prepared: Prepared,
    resources: runtime.Resources,
    workers: int,
    device: str,
) -> Task:
    """What each worker gets; the run's pairs and its recipe are in its folder then.

    Raises:
        ConfigError: the run was begun with another recipe.
        ResourceError: a batch has not a clip for each worker.
    """
    fewest = min(prepared.smallest_batch(config.train.batch), prepared.watched.num_rows)
    if workers > fewest:
        raise ResourceError(
            f"{workers} workers, but only {fewest} clips in the smallest batch: set train.workers={fewest} or less"
        )
    whole = {**recipe.stated(config.train, info), **prepared.recipe()}
    if recipe.has_begun(folder):
        recipe.refuse_other(folder, whole)
    else:
        prepared.write(folder)
        recipe.write(folder, whole)
    location = config.require_archive()
    return Task(
        location=location,
        run=folder.rpartition("/")[2],
        folder=folder,
        model=info.location,
        section=config.train,
        geometry=prepared.geometry,
        places=roots.places(location, config.roots),
        limits=config.limits(),
        threads=resources.threads(workers),
        device=device,
        keeps_frames=resources.nodes > 1 or resources.grows or is_uri(location),
        facts=prepared.facts(),
    )


def _folder(location: str, name: str) -> str:
    """The run's folder.

    Raises:
        UsageError: a name that is none, or of a run that is finished.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--run {name!r}: expected a letter or digit, then up to 63 of them, '.', '_' and '-'")
    folder = files.folder_of(location, name)
    if objects.read(folder, f"{ADAPTER}/{adapters.MARK}") is not None:
        raise UsageError(
            f"the run {name!r} is finished: use its adapter (`raydist embed --adapter {name}`), "
            "or give another name with --run"
        )
    return folder


def _refuse_twin(held: lease.Lease, name: str) -> None:
    """Two drivers of one run would overwrite each other's checkpoints. One that was killed on another machine still
    seems to be there for a minute, which is waited for: a job that is submitted again need not fail.

    Raises:
        UsageError: another driver of the run is alive.
    """
    if twins := held.living(lambda other: other.verb == f"train {name}"):
        raise UsageError(f"{twins[0]} trains the run {name!r} already: wait for it, or give another name with --run")


def _announce(section: Train, resources: runtime.Resources, workers: int, device: str) -> None:
    on_gpus = device == "cuda"
    threads = resources.threads(workers)
    plan = runtime.Plan(encoders=workers, encoder_gpus=float(on_gpus), encoder_cpus=float(not on_gpus), threads=threads)
    runtime.announce(plan, resources, encoders="workers", batch=section.batch)


def _workers(section: Train, resources: runtime.Resources) -> tuple[int, str]:
    """How many workers, and on what.

    Raises:
        ResourceError: more than the cluster has GPUs or cores for, now or grown.
    """
    gpu = resources.use_gpu(section.device, "train.device")
    count = section.workers or (int(resources.most_gpus) if gpu else 1)
    offered = resources.most_gpus if gpu else resources.most_cpus - runtime.LIGHT_CPUS
    if count > max(1, offered):
        kind = "GPUs" if gpu else "CPUs"
        raise ResourceError(f"train.workers={count}, but the cluster has {offered:g} {kind} for them: lower it")
    if gpu and count > resources.gpus:
        talk.print(
            f"train: asks for {count} GPUs; the cluster has {resources.gpus:g} now, and waits until it has grown"
        )
    return count, "cuda" if gpu else "cpu"
