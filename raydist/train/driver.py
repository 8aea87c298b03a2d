"""The driver of a training run: what is checked and prepared before, who trains, what is said after.

Reads     `clips`, `captions`, `signatures`; the run's folder, where it was begun before
Writes    `runs/<name>/`: recipe, pairs, journal, checkpoints, TensorBoard's files, the adapter, the report
Again     the same command goes on from the last checkpoint; a run that is finished is not touched
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raydist import choice, runtime
from raydist.config import Config
from raydist.errors import ConfigError, RaydistError, ResourceError, TrainError, UsageError
from raydist.models.encoder import ModelInfo
from raydist.progress import Bar, bar, talk
from raydist.records import Report
from raydist.report import run_folder, save
from raydist.store import lease, objects, roots, settings, stale
from raydist.train import Request, journal
from raydist.train.loop import INTERRUPTED
from raydist.train.prepare import Prepared, prepare
from raydist.train.summary import summary
from raydist.train.task import ADAPTER, CHECKPOINTS, OUTCOME, RECIPE, STOP, TENSORBOARD, Task

RETRIES = 3
"""How often Ray Train starts the workers again after one died, from the last checkpoint."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_FREE = frozenset(
    {"micro_batch", "checkpointing", "workers", "device", "cache", "cache_gb", "checkpoint_steps", "leaks"}
)
"""Settings that a run may be continued with other values of: they change what it costs, not what comes out."""


def run(config: Config, request: Request) -> Report:
    """Train an adapter, or go on with a run that was stopped."""
    began = time.monotonic()
    location = config.require_archive()
    settings.open_existing(location)
    folder = _folder(location, request.run)
    info = choice.to_train(location, config.embed.model)
    with lease.Lease(location, f"train {request.run}") as held, runtime.session(config.ray) as resources:
        _refuse_twin(held, request.run)
        stale.repair_unless_scanning(location)
        prepared = prepare(config, info, folder)
        task, workers = begin(config, info, folder, prepared, resources)
        outcome = _fit(task, workers, prepared)
    report = summary(request.run, time.monotonic() - began, outcome, prepared, info, config.train.patience)
    save(report, location)
    return report


def begin(
    config: Config, info: ModelInfo, folder: Path, prepared: Prepared, resources: runtime.Resources
) -> tuple[Task, int]:
    """What each worker gets, and how many there are; the run's recipe is in its folder then.

    Raises:
        ConfigError: the run was begun with another recipe.
        ResourceError: the cluster has not so many GPUs or CPUs, or a batch not so many clips.
    """
    workers, device = _workers(config, resources, prepared)
    _settle_recipe(folder, _recipe(config, info, prepared))
    location = config.require_archive()
    cores = max(1, int(resources.cpus - runtime.LIGHT_CPUS))
    task = Task(
        location=location,
        folder=folder,
        model=info.location,
        section=config.train,
        geometry=prepared.geometry,
        places=roots.places(location, config.roots),
        limits=config.limits(),
        threads=max(1, cores // workers),
        device=device,
        keeps_frames=resources.nodes > 1,
        facts=prepared.facts(),
    )
    return task, workers


def _folder(location: str, name: str) -> Path:
    """The run's folder.

    Raises:
        UsageError: a name that is none, or of a run that is finished.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--run {name!r}: expected a letter or digit, then up to 63 of them, '.', '_' and '-'")
    folder = run_folder(location, name)
    if (folder / ADAPTER).is_dir():
        raise UsageError(
            f"the run {name!r} is finished: use its adapter (`raydist embed --adapter {name}`), "
            "or give another name with --run"
        )
    return folder


def _refuse_twin(held: lease.Lease, name: str) -> None:
    """Two drivers of one run would overwrite each other's checkpoints."""
    twins = [other for other in held.others() if other.verb == f"train {name}"]
    if twins:
        raise UsageError(f"{twins[0]} trains the run {name!r} already: wait for it, or give another name with --run")


def _workers(config: Config, resources: runtime.Resources, prepared: Prepared) -> tuple[int, str]:
    """How many workers, and on what.

    Raises:
        ResourceError: more than the cluster has GPUs or the batch has clips.
    """
    section = config.train
    if section.device == "cuda" and resources.gpus < 1:
        raise ResourceError("train.device=cuda, but the cluster has no GPU: add one, or set train.device=cpu")
    gpu = section.device != "cpu" and resources.gpus >= 1
    count = section.workers or (int(resources.gpus) if gpu else 1)
    offered = resources.gpus if gpu else resources.cpus - runtime.LIGHT_CPUS
    if count > max(1, offered):
        kind = "GPUs" if gpu else "CPUs"
        raise ResourceError(f"train.workers={count}, but the cluster has {offered:g} {kind} for them: lower it")
    fewest = min(prepared.smallest_batch(section.batch), prepared.watched.num_rows)
    if count > fewest:
        raise ResourceError(
            f"{count} workers, but only {fewest} clips in the smallest batch: set train.workers={fewest} or less"
        )
    return count, "cuda" if gpu else "cpu"


def _recipe(config: Config, info: ModelInfo, prepared: Prepared) -> dict[str, Any]:
    """What decides the result."""
    section = {name: value for name, value in config.train.model_dump().items() if name not in _FREE}
    return {
        "model": info.name,
        "model_key": info.model_key,
        **section,
        "pictures": "jpeg" if config.train.cache == "jpeg" else "exact",
        "clips": prepared.trained.num_rows,
        "held_out_clips": prepared.watched.num_rows,
        "data": prepared.fingerprint,
    }


def _settle_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write the recipe of a new run, or check that a run goes on with its own.

    Raises:
        ConfigError: another recipe.
    """
    path = folder / RECIPE
    if not path.exists():
        objects.replace(str(folder), RECIPE, json.dumps(recipe, indent=2).encode())
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    other = sorted(key for key in {*before, *recipe} if before.get(key) != recipe.get(key))
    if other:
        changes = "; ".join(f"{key} was {before.get(key)!r} and is {recipe.get(key)!r}" for key in other)
        raise ConfigError(
            f"the run {folder.name!r} was begun otherwise: {changes}. Go on with its values, or give another --run NAME"
        )
    talk.print(f"train: going on with the run {folder.name!r}")


def _fit(task: Task, workers: int, prepared: Prepared) -> dict[str, Any]:
    """Train, show how far it is, and pass a wish to stop on.

    The trainer runs in a thread: in the main one it would take Ctrl-C for itself, and end without saving.
    """
    (task.folder / STOP).unlink(missing_ok=True)
    (task.folder / OUTCOME).unlink(missing_ok=True)
    problems: list[BaseException] = []
    ended = threading.Event()  # not the thread's own `join`: after Ctrl-C in it, Python 3.11 calls the thread dead

    def train() -> None:
        try:
            _train(task, workers, problems)
        finally:
            ended.set()

    threading.Thread(target=train, name="train", daemon=True).start()
    interrupted = False
    shown = [0]
    with bar("training", prepared.steps(task.section)) as progress:
        while not ended.is_set():
            try:
                ended.wait(0.5)
                _show(progress, task, shown)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                (task.folder / STOP).touch()
                talk.print("stopping after this step, to save it; Ctrl-C again stops at once")
    found = task.folder / OUTCOME
    if problems or not found.exists():
        raise _explained(problems, task)
    outcome: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    if outcome["stopped"] == INTERRUPTED:  # a run that was at its end when it was asked to stop is done
        talk.print(f"stopped and saved; TensorBoard's files are in {task.folder / TENSORBOARD}")
        raise KeyboardInterrupt
    return outcome


def _train(task: Task, workers: int, problems: list[BaseException]) -> None:
    """Ray Train; what it raises goes into `problems`."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from raydist.train.worker import train_worker

    api: Any = ray.train  # its types are those of its first version
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        scaling_config=api.ScalingConfig(num_workers=workers, use_gpu=task.device == "cuda"),
        run_config=api.RunConfig(
            name=CHECKPOINTS,
            storage_path=str(task.folder),
            failure_config=api.FailureConfig(max_failures=RETRIES),
            checkpoint_config=api.CheckpointConfig(num_to_keep=2),
            logging_config=api.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # noqa: BLE001  # it goes on in the main thread, as an error that a person can read
        problems.append(error)


def _show(progress: Bar, task: Task, shown: list[int]) -> None:
    """Move the bar to the newest step of the journal."""
    found = journal.last(task.folder)
    if found is not None and found["step"] != shown[0]:
        progress.advance(found["step"] - shown[0])
        progress.note(f"loss {found['loss']:.3f}, {found['samples_per_s']:.0f} clips/s")
        shown[0] = found["step"]


def _explained(problems: list[BaseException], task: Task) -> RaydistError:
    """What Ray Train raised, as one sentence."""
    cause: BaseException | str = problems[0] if problems else "the workers left no outcome"
    inner = getattr(cause, "worker_failures", None)
    if inner:
        cause = next(iter(inner.values()))
    while (deeper := getattr(cause, "cause", None)) is not None:
        cause = deeper
    lines = [line for line in str(cause).strip().splitlines() if line.strip()] or [type(cause).__name__]
    return TrainError(
        f"training stopped: {lines[-1].strip()}. What it had is kept in {str(task.folder)!r}: the same command goes on "
        "from its last checkpoint; --debug shows more"
    )
