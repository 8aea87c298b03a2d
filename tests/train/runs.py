"""Small archives to train on, and what a run left behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from archives import configure, rows, scanned, videos

from raydist import caption, choice, train
from raydist.config import Config
from raydist.records import Report
from raydist.runtime import Resources
from raydist.store import objects
from raydist.store.runs import fetch
from raydist.train import driver, journal, worker
from raydist.train.files import folder_of
from raydist.train.loop import Keep
from raydist.train.prepare import prepare
from raydist.train.state import State
from raydist.train.summary import summary
from raydist.train.task import OUTCOME

COLOURS = ("red", "green", "blue", "yellow", "white", "black")


def captioned(archive: Path | str, folder: Path, count: int = 24, seconds: float = 2, text: str = "") -> Path:
    """An archive of short videos, a clip a second, all with captions, different ones unless `text` is given."""
    scanned(archive, videos(folder, count, seconds))
    listed = folder.with_suffix(".csv")
    with listed.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["clip_id", "caption"])
        for number, clip in enumerate(rows(archive, "clips")):
            lines.writerow([clip["clip_id"], text or f"a {COLOURS[number % 6]} thing, number {number}"])
    caption.run(configure(archive), caption.Request(file=str(listed)))
    return archive


def settings(archive: Path | str, model: Path, *changes: str) -> Config:
    """For runs of seconds."""
    usual = ("train.batch=8", "train.epochs=2", "train.rank=4", "train.alpha=8", "train.learning_rate=1e-3")
    return configure(archive, model, *usual, *changes)


def trained_here(
    archive: Path | str,
    model: Path,
    run: str,
    *changes: str,
    workers: int = 1,
    keep: Keep | None = None,
    state: State | None = None,
) -> State:
    """Train a run in this process, without Ray Train: seconds less, and checkpoints can be looked at.

    Args:
        workers: that are planned; more than one are not started.
        keep: gets each checkpoint.
        state: of a checkpoint, to go on from.
    """
    config = settings(archive, model, *changes)
    info = choice.to_train(str(archive), str(model))
    folder = folder_of(str(archive), run)
    prepared = prepare(config, info, folder)
    task = driver.begin(config, info, folder, prepared, Resources(cpus=2, gpus=0, nodes=1), workers, "cpu")
    return worker.train(task, state or State(), keep or (lambda state: None), rank=0, workers=1, device="cpu")


def trained(archive: Path | str, model: Path, run: str, *changes: str) -> Report:
    """Train a run."""
    return train.run(settings(archive, model, *changes), train.Request(run=run))


def reported(archive: Path, model: Path, run: str, *changes: str) -> Report:
    """The report of a run that `trained_here` did."""
    config, folder = settings(archive, model, *changes), folder_of(str(archive), run)
    info = choice.to_train(str(archive), str(model))
    outcome = json.loads(objects.read(folder, OUTCOME) or b"")
    return summary(run, 1.0, outcome, prepare(config, info, folder), info, config.train.patience)


def steps(archive: Path | str, run: str) -> dict[int, dict[str, Any]]:
    """Step -> its line of the journal; each step stands there once. Of an archive in a bucket, of the bucket's."""
    lines = [line for line in journal.entries(fetch(str(archive), run, only=(journal.FILE,))) if "loss" in line]
    found = {line["step"]: line for line in lines}
    assert len(found) == len(lines), "a step stands twice in the journal"
    return found


def losses(archive: Path | str, run: str) -> list[float]:
    """Of all steps, in order."""
    found = steps(archive, run)
    assert sorted(found) == list(range(1, len(found) + 1))
    return [found[step]["loss"] for step in sorted(found)]
