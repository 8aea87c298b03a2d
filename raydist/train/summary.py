"""The report of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raydist.errors import TrainError
from raydist.models.encoder import ModelInfo
from raydist.records import Report
from raydist.train.loop import DONE, NOT_FINITE, PATIENCE
from raydist.train.prepare import Prepared

_SHOWN_CLIPS = 8


def summary(
    name: str, seconds: float, outcome: Mapping[str, Any], prepared: Prepared, info: ModelInfo, patience: int
) -> Report:
    """What the run did and what the held-out clips say of it.

    Raises:
        TrainError: the loss was no number.
    """
    if outcome["stopped"] == NOT_FINITE:
        raise _not_finite(name, outcome)
    steps = int(outcome["steps"])
    failures = prepared.failures
    clips = prepared.trained.num_rows
    return Report(
        stage="train",
        run=name,
        seconds=round(seconds, 3),
        counts={
            "clips": clips,
            "held_out_clips": prepared.watched.num_rows,
            "steps": steps,
            "epochs": steps // int(outcome["steps_per_epoch"]),
            "failed": sum(failures.values()),
        },
        failures=failures,
        clips_per_s=round(steps * clips / outcome["steps_per_epoch"] / max(outcome["seconds"], 1e-9), 2),
        notes=_notes(name, outcome, prepared, patience),
        details={
            **outcome,
            "model": info.name,
            "model_key": info.model_key,
            "attempted": prepared.built.clips,
        },
    )


def _notes(name: str, outcome: Mapping[str, Any], prepared: Prepared, patience: int) -> tuple[str, ...]:
    trained, total = outcome["trained_parameters"], outcome["total_parameters"]
    before, best = outcome["baseline"], outcome["best"]
    epochs = f"{patience} epochs without a better evaluation"
    why = {DONE: "the schedule's end", PATIENCE: epochs}[outcome["stopped"]]
    notes = [
        f"{trained:,} parameters trained, {trained / total:.2%} of {total:,}",
        f"ended by {why}; the best evaluation is that of step {best['step']:,}",
        f"held-out loss {before['loss']:.3f} -> {best['loss']:.3f}; "
        + "; ".join(
            f"{words} R@1 {before[key]['r1']:.1f} -> {best[key]['r1']:.1f} %"
            for key, words in (("text_to_video", "text to video"), ("video_to_text", "video to text"))
        )
        + " (on val, which chose the step)",
    ]
    if best["step"] == 0:
        notes.append("no evaluation was better than before training: the adapter changes nothing; try a lower rate")
    notes += prepared.notes
    if outcome["unread"]:
        shown = ", ".join(outcome["unread"][:_SHOWN_CLIPS])
        notes.append(
            f"{len(outcome['unread']):,} clips could not be read in some step and were left out of it: {shown}"
        )
    return (*notes, f"next: `raydist eval --adapter {name}`, then `raydist embed --adapter {name}`")


def _not_finite(name: str, outcome: Mapping[str, Any]) -> TrainError:
    clips = outcome["culprits"]
    where = (
        f"in the batch of step {outcome['steps']:,}" if clips else f"on held-out clips after step {outcome['steps']:,}"
    )
    listed = f" Its clips: {', '.join(clips)}." if clips else ""
    return TrainError(
        f"the run {name!r} stopped: the loss or its gradient is NaN or infinite {where}; expected a number.{listed} "
        "Nothing of that step went into the weights. A lower train.learning_rate usually helps (with another --run)"
    )
