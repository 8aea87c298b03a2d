"""Ray Train, and somebody who looks on: progress from the journal, Ctrl-C as a wish to save, errors in a sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from raydist.errors import RaydistError, ResourceError, TrainError
from raydist.progress import Bar, bar, talk
from raydist.train import journal
from raydist.train.loop import FAILED, INTERRUPTED
from raydist.train.task import CHECKPOINTS, OUTCOME, STOP, TENSORBOARD, Task

RETRIES = 3
"""How often Ray Train starts the workers again after one died, from the last checkpoint."""


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
            storage_path=str(task.folder),
            failure_config=api.FailureConfig(max_failures=RETRIES),
            checkpoint_config=api.CheckpointConfig(num_to_keep=2),
            logging_config=api.LoggingConfig(log_level="ERROR"),
        ),
    ).fit()


def watched(task: Task, steps: int, train: Callable[[], None]) -> dict[str, Any]:
    """Run `train`, show how far it is, and pass a wish to stop on; how it ended.

    It runs in a thread: in the main one Ray Train would take Ctrl-C for itself, and end without saving.

    Raises:
        KeyboardInterrupt: it was stopped, and saved before.
        RaydistError: it failed.
    """
    (task.folder / STOP).unlink(missing_ok=True)
    (task.folder / OUTCOME).unlink(missing_ok=True)
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
    found = task.folder / OUTCOME
    if problems or not found.exists():
        raise _explained(problems[0] if problems else "the workers left no outcome", task)
    outcome: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    if outcome["stopped"] == FAILED:
        raise _of(outcome["error"], task)
    if outcome["stopped"] == INTERRUPTED:  # a run that was at its end when it was asked to stop is done
        talk.print(f"stopped and saved; TensorBoard's files are in {task.folder / TENSORBOARD}")
        raise KeyboardInterrupt
    return outcome


def _wait(task: Task, steps: int, ended: threading.Event) -> None:
    """Until it is over; the second Ctrl-C goes on to the caller."""
    interrupted, shown = False, -1
    with bar("training", steps) as progress:
        while not ended.is_set():
            try:
                ended.wait(0.5)
                shown = _show(progress, task, shown)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                (task.folder / STOP).touch()
                talk.print("stopping after this step, to save it; Ctrl-C again stops at once")


def _show(progress: Bar, task: Task, shown: int) -> int:
    """Move the bar to the newest step of the journal, which it gives back."""
    found = journal.last(task.folder)
    if found is None or found["step"] == shown:
        return shown
    step: int = found["step"]
    if shown < 0 or step < shown:  # begun, or gone back to a checkpoint
        progress.resume(step)
    else:
        progress.advance(step - shown)
    progress.note(f"loss {found['loss']:.3f}, {found['samples_per_s']:.0f} clips/s")
    return step


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
    kept = f"what it had is kept in {str(task.folder)!r}, and the same command goes on from its last checkpoint"
    if "out of memory" in problem.lower() or "OutOfMemory" in problem:
        return ResourceError(
            f"training ran out of memory ({problem}): take the batch in parts (`--set train.micro_batch=8`, or less) "
            f"or `--set train.checkpointing=true`; the gradient stays the same, {kept}"
        )
    return TrainError(f"training stopped: {problem}; {kept}. --debug shows more")
