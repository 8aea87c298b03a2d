"""The training function that Ray Train runs on every worker."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from raydist.errors import RaydistError, StoreError
from raydist.frames.reader import FrameReader
from raydist.models import adapters, lora
from raydist.models.keys import cache_home
from raydist.models.registry import load_encoder
from raydist.store import objects
from raydist.train import files, recipe
from raydist.train.data import Order
from raydist.train.feed import Feed
from raydist.train.loop import FAILED, INTERRUPTED, NOT_FINITE, Loop, Parts
from raydist.train.recorder import Recorder
from raydist.train.sender import Sender
from raydist.train.state import State
from raydist.train.task import ADAPTER, OUTCOME, TRAINED, WATCHED, Task
from raydist.train.watch import Watch


def train_worker(config: dict[str, Any]) -> None:
    """Train on this worker; `config["task"]` is the `Task`."""
    import ray.train
    import ray.train.torch

    task: Task = config["task"]
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device() if task.device == "cuda" else torch.device("cpu")
    if task.device == "cpu":
        torch.set_num_threads(task.threads)  # Ray allows a worker as many as it reserved, which is one
    else:
        torch.set_float32_matmul_precision("high")  # of the LoRA matrices: TF32 is ample for them
    if _has_failed(task.folder):
        return  # another start would fail alike
    state = _restored(ray.train.get_checkpoint())

    def keep(state: State) -> None:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if rank == 0:
                state.save(Path(folder))
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": state.step}, checkpoint=checkpoint)

    try:
        train(task, state, keep, rank=rank, workers=workers, device=str(device))
    except StoreError:
        raise  # the store may be back when Ray Train starts this again
    except (RaydistError, torch.OutOfMemoryError) as error:
        failure = {"stopped": FAILED, "error": str(error)}
        objects.replace(task.folder, OUTCOME, json.dumps(failure).encode())
        raise  # the others wait for this worker, and end with it


def train(task: Task, state: State, keep: Any, *, rank: int, workers: int, device: str) -> State:
    """Build the loop's parts, run it, and leave the adapter and the outcome behind on the first worker."""
    encoder = load_encoder(task.model, device=device)
    adapter = lora.attach(encoder, rank=task.section.rank, alpha=task.section.alpha, seed=task.section.seed)
    if task.section.checkpointing:
        encoder.checkpoint_activations()
    parts = _parts(task, encoder, adapter, state, rank, workers)
    try:
        state = Loop(parts, state, keep).run()
        if parts.recorder is not None:
            _finish(parts, state)
    finally:
        parts.feed.close()
        parts.watch.close()
        if parts.recorder is not None:
            parts.recorder.close()
    return state


def _parts(task: Task, encoder: Any, adapter: lora.LoRA, state: State, rank: int, workers: int) -> Parts:
    section = task.section
    pairs, watched = (files.read_table(task.folder, name) for name in (TRAINED, WATCHED))
    order = Order(pairs["clip_key"].to_numpy(), section.batch, section.seed, _counts(pairs))

    def reader(candidates: int) -> FrameReader:
        return FrameReader(
            task.location,
            task.geometry,
            task.places,
            task.limits,
            encoding=section.cache,
            candidates=candidates,
            local=cache_home() / "frames" if task.keeps_frames else None,
            local_bytes=int(section.cache_gb * 1e9),
            decoders=task.threads if section.cache == "none" else 1,
        )

    feed = Feed(
        pairs,
        order,
        reader(task.candidates),
        encoder.ids,
        device=encoder.device,
        rank=rank,
        workers=workers,
        frames=task.geometry.frames,
        candidates=task.candidates,
        flip=section.flip,
    )
    watch = Watch(
        watched, reader(1), encoder.ids, batch=section.batch, device=encoder.device, rank=rank, workers=workers
    )
    recorder = None
    if rank == 0:
        recorder = Recorder(Sender(task), state.step, recipe.read(task.folder))
    return Parts(
        task=task,
        encoder=encoder,
        lora=adapter,
        feed=feed,
        watch=watch,
        pairs=pairs,
        steps_per_epoch=order.steps_per_epoch,
        recorder=recorder,
    )


def _counts(pairs: pa.Table) -> Any:
    return pa.compute.list_value_length(pairs["captions"]).to_numpy()


def _restored(checkpoint: Any) -> State:
    if checkpoint is None:
        return State()
    with checkpoint.as_directory() as folder:
        return State.load(Path(folder))


def _has_failed(folder: str) -> bool:
    found = objects.read(folder, OUTCOME)
    return found is not None and json.loads(found)["stopped"] == FAILED


def _finish(parts: Parts, state: State) -> None:
    """Write the best adapter with its card, and how the run ended."""
    assert parts.recorder is not None
    task = parts.task
    trained, total = parts.lora.counts
    outcome = {
        "stopped": state.stopped,
        "steps": state.step,
        "steps_per_epoch": parts.steps_per_epoch,
        "seconds": round(state.seconds, 3),
        "baseline": state.baseline,
        "best": state.best,
        "trained_parameters": trained,
        "total_parameters": total,
        "culprits": state.culprits,
        "unread": state.unread,
    }
    if state.stopped not in (INTERRUPTED, NOT_FINITE):
        parts.lora.load(state.best_adapter)
        best, sender = state.best, parts.recorder.sender
        parts.recorder.final(
            {
                "val/loss": best["loss"],
                "val/text_to_video_r1": best["text_to_video"]["r1"],
                "val/video_to_text_r1": best["video_to_text"]["r1"],
            }
        )
        parts.recorder.sent()
        adapters.write(parts.lora, sender.folder / ADAPTER, _card(task, parts, state))
        sender.send_adapter(adapters.MARK)
    objects.replace(task.folder, OUTCOME, json.dumps(outcome, indent=2).encode())


def _card(task: Task, parts: Parts, state: State) -> adapters.Card:
    section = task.section
    return adapters.card_of(
        parts.encoder.info,
        recipe={**section.model_dump(), "steps": state.step, "best_step": state.best["step"]},
        data=dict(task.facts),
        before=state.baseline,
        after=state.best,
        temperature=state.best_temperature if section.learn_temperature else None,
    )
