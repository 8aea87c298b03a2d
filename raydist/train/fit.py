"""Ray Train, and somebody who looks on: progress from the journal, Ctrl-C as a wish to save, errors in a sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from raydist.errors import RaydistError, ResourceError, StoreError, TrainError
from raydist.progress import Bar, bar, talk
from raydist.store import buckets, objects
from raydist.store.location import is_uri, join
from raydist.train import journal
from raydist.train.loop import FAILED, INTERRUPTED
from raydist.train.task import CHECKPOINTS, NOW, OUTCOME, STOP, TENSORBOARD, Task

RETRIES = 3
"""How often Ray Train starts the workers again after one died, from the last checkpoint."""

_NEAR_S, _FAR_S = 0.5, 3.0
"""Between two looks at how far the run is, in a folder and on an object store."""


def fit(task: Task, workers: int) -> None:
    """Train; returns when the run is over, saved, or failed for a reason that would come again."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from raydist.train.worker import train_worker

    api: Any = ray.train  # its types are those of its first version
    TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        scaling_config=api.ScalingConfig(num_workers=workers, use_gpu=task.device == "cuda"),
        run_config=api.RunConfig(
            name=CHECKPOINTS,
            **_storage(task),
            failure_config=api.FailureConfig(max_failures=RETRIES),
            checkpoint_config=api.CheckpointConfig(num_to_keep=2),
            logging_config=api.LoggingConfig(log_level="ERROR"),
        ),
    ).fit()


def _storage(task: Task) -> dict[str, Any]:
    """Where Ray Train keeps checkpoints: files of one first, then the list that names it, so half a one is none."""
    if not is_uri(task.location):
        return {"storage_path": task.folder}
    return {"storage_path": task.folder.partition("://")[2], "storage_filesystem": buckets.file_system(task.folder)}


def watched(task: Task, steps: int, train: Callable[[], None]) -> dict[str, Any]:
    """Run `train`, show how far it is, and pass a wish to stop on; how it ended.

    It runs in a thread: in the main one Ray Train would take Ctrl-C for itself, and end without saving.

    Raises:
        KeyboardInterrupt: it was stopped, and saved before.
        RaydistError: it failed.
    """
    for name in (STOP, OUTCOME, NOW):
        objects.delete(task.folder, name)
    problems: list[BaseException] = []
    ended = threading.Event()  # not the thread's own `join`: after Ctrl-C in it, Python 3.11 calls the thread dead

    def run() -> None:
        try:
            train()
        except Exception as error:  # noqa: BLE001  # it goes on in the main thread, as an error that a person can read
            problems.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, name="train", daemon=True).start()
    _wait(task, steps, ended)
    found = objects.read(task.folder, OUTCOME)
    if problems or found is None:
        raise _explained(problems[0] if problems else "the workers left no outcome", task)
    outcome: dict[str, Any] = json.loads(found)
    if outcome["stopped"] == FAILED:
        raise _of(outcome["error"], task)
    if outcome["stopped"] == INTERRUPTED:  # a run that was at its end when it was asked to stop is done
        talk.print(f"stopped and saved; TensorBoard's files are in {join(task.folder, TENSORBOARD)}")
        raise KeyboardInterrupt
    return outcome


def _wait(task: Task, steps: int, ended: threading.Event) -> None:
    """Until it is over; the second Ctrl-C goes on to the caller."""
    interrupted, shown = False, -1
    pause_s = _FAR_S if is_uri(task.location) else _NEAR_S
    with bar("training", steps) as progress:
        while not ended.is_set():
            try:
                ended.wait(pause_s)
                shown = _show(progress, task, shown)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                objects.replace(task.folder, STOP, b"")
                talk.print("stopping after this step, to save it; Ctrl-C again stops at once")


def _show(progress: Bar, task: Task, shown: int) -> int:
    """Move the bar to the newest step of the journal, which it gives back."""
    found = _latest(task)
    if found is None or found["step"] == shown:
        return shown
    step: int = found["step"]
    if shown < 0 or step < shown:  # begun, or gone back to a checkpoint
        progress.resume(step)
    else:
        progress.advance(step - shown)
    progress.note(f"loss {found['loss']:.3f}, {found['samples_per_s']:.0f} clips/s")
    return step


def _latest(task: Task) -> dict[str, Any] | None:
    """The newest step that is known of."""
    if not is_uri(task.location):
        return journal.last(Path(task.folder))
    with suppress(StoreError, OSError):  # nothing hangs on it
        found: dict[str, Any] = json.loads(objects.read(task.folder, NOW) or b"null")
        return found
    return None


def _explained(cause: BaseException | str, task: Task) -> RaydistError:
    """What Ray Train raised, as one sentence."""
    inner = getattr(cause, "worker_failures", None)
    if inner:
        cause = next(iter(inner.values()))
    while (deeper := getattr(cause, "cause", None)) is not None:
        cause = deeper
    lines = [line for line in str(cause).strip().splitlines() if line.strip()] or [type(cause).__name__]
    return _of(lines[-1].strip(), task)


def _of(problem: str, task: Task) -> RaydistError:
    kept = f"what it had is kept in {task.folder!r}, and the same command goes on from its last checkpoint"
    if "out of memory" in problem.lower() or "OutOfMemory" in problem:
        return ResourceError(
            f"training ran out of memory ({problem}): take the batch in parts (`--set train.micro_batch=8`, or less) "
            f"or `--set train.checkpointing=true`; the gradient stays the same, {kept}"
        )
    return TrainError(f"training stopped: {problem}; {kept}. --debug shows more")
