"""All stages as one job: what is done is not done again, and a step that fails names itself."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from archives import configure, embeddings, rows, videos, write_viclip

from raydist import pipeline
from raydist.config import Config
from raydist.errors import UsageError
from raydist.records import Report

COLOURS = ("red", "green", "blue", "yellow", "white", "black")
CHANGES = (
    *("train.batch=8", "train.epochs=1", "train.rank=4", "train.alpha=8", "train.eval_clips=16"),
    *("eval.split=train", "eval.resamples=100", "eval.strips=0", "embed.commit_s=0.2", "max_failed=1"),
)
FILES, SECONDS = 24, 2


class Told:
    """Runs the pipeline and keeps what it says."""

    def __init__(self, config: Config, **request: Any) -> None:
        self.shown: list[str] = []
        self.said: list[str] = []
        self.report, self.outcome = pipeline.run(config, pipeline.Request(**request), self.show, self.said.append)

    def show(self, step: str, report: Report) -> None:
        self.shown.append(step)


def made(folder: Path) -> tuple[Path, Path, Path]:
    """Videos, a list of their captions, a model."""
    drawn = videos(folder / "videos", FILES, SECONDS)
    listed = folder / "captions.csv"
    with listed.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "start", "end", "caption"])
        for number in range(FILES):
            for second in range(SECONDS):
                text = f"a {COLOURS[number % 6]} thing, number {number} at {second}"
                lines.writerow([f"videos/v{number:03}.mp4", second, second + 1, text])
    return drawn, listed, write_viclip(folder / "model")


def runs_of(archive: Path) -> dict[str, int]:
    """Stage -> how many runs have a report."""
    names = [path.parent.name.partition("-")[0] for path in (archive / "runs").glob("*/report.json")]
    return {name: names.count(name) for name in sorted(set(names))}


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_what_is_done_is_not_done_again(cluster: None, tmp_path: Path) -> None:
    drawn, listed, model = made(tmp_path)
    config = configure(tmp_path / "archive", model, *CHANGES)
    asked: dict[str, Any] = {"inputs": (str(drawn),), "listed": str(listed)}
    first = Told(config, **asked, steps=("train", "caption", "scan"))
    assert (first.shown, first.outcome.failed) == (["scan", "caption", "train"], ""), first.outcome.error
    rest = Told(config, **asked)
    assert rest.shown == ["scan", "caption", "eval", "embed", "dedup"], rest.outcome.error
    assert "the run 'lora' is trained" in rest.outcome.skipped["train"]
    found = embeddings(tmp_path / "archive")
    assert len(found) == FILES * SECONDS
    last = Told(config, **asked)
    assert list(last.outcome.skipped) == ["train", "eval", "embed", "dedup"]
    assert last.report.counts == {"steps": 6, "done": 2, "nothing_to_do": 4}
    assert embeddings(tmp_path / "archive") == found
    done = runs_of(tmp_path / "archive")
    assert {stage: done[stage] for stage in ("eval", "dedup", "lora", "pipeline")} == {
        **dict.fromkeys(("eval", "dedup", "lora"), 1),
        "pipeline": 3,
    }


@pytest.mark.ray
def test_a_step_that_fails_names_itself_and_the_same_command_goes_on(cluster: None, tmp_path: Path) -> None:
    drawn = videos(tmp_path / "videos", 2, 1)
    config = configure(tmp_path / "archive", tmp_path / "model")
    failed = Told(config, inputs=(str(drawn),), steps=("scan", "embed"))
    assert failed.outcome.failed == "embed"
    assert failed.outcome.error is not None
    assert "left to do: embed" in failed.report.notes[-2]
    write_viclip(tmp_path / "model")
    again = Told(config, inputs=(str(drawn),), steps=("scan", "embed"))
    assert (again.shown, again.outcome.failed) == (["scan", "embed"], "")
    assert len(embeddings(tmp_path / "archive")) == 2


def test_without_captions_the_base_model_embeds_and_it_is_said(tmp_path: Path) -> None:
    drawn = videos(tmp_path / "videos", 1, 1)
    told = Told(configure(tmp_path / "archive"), inputs=(str(drawn),), steps=("scan", "caption", "train", "eval"))
    assert told.shown == ["scan"]
    assert list(told.outcome.skipped) == ["caption", "train", "eval"]
    assert "neither --from FILE nor --provider" in told.said[1]


def test_an_error_that_nobody_expects_ends_with_a_report_that_names_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(config: Config, request: pipeline.Request) -> pipeline.Done:
        raise RuntimeError("the node is gone")

    monkeypatch.setitem(pipeline._STAGES, "embed", lost)
    drawn = videos(tmp_path / "videos", 1, 1)
    with pytest.raises(RuntimeError, match="node is gone"):
        Told(configure(tmp_path / "archive"), inputs=(str(drawn),), steps=("scan", "embed"))
    (file,) = (tmp_path / "archive" / "runs").glob("pipeline-*/report.json")
    report = json.loads(file.read_text())
    assert report["details"]["failed_step"] == "embed"
    assert "stopped at embed (the node is gone); left to do: embed" in report["notes"]


@pytest.mark.parametrize(("steps", "told"), [(("scan", "trian"), "expected some of scan"), ((), "expected some of")])
def test_an_unknown_step_is_refused(tmp_path: Path, steps: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Told(configure(tmp_path / "archive"), inputs=(".",), steps=steps)


def test_without_an_archive_and_videos_nothing_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no videos were named"):
        Told(configure(tmp_path / "archive"))


@pytest.mark.ray
def test_a_step_of_which_too_much_failed_ends_it_and_how_to_try_that_again_is_said(
    cluster: None, tmp_path: Path
) -> None:
    drawn = videos(tmp_path / "videos", 1, SECONDS)
    (drawn / "broken.mp4").write_bytes(b"no video")
    told = Told(configure(tmp_path / "archive"), inputs=(str(drawn),), steps=("scan", "embed"))
    assert (told.outcome.failed, told.outcome.error) == ("scan", None)
    assert "`raydist scan --retry-failed` tries that again" in told.report.notes[-1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("amid", ["train", "embed"])
def test_a_driver_that_is_killed_amid_a_step_goes_on(tmp_path: Path, amid: str) -> None:
    """The results are those of one go, and no step that was done is repeated."""
    drawn, listed, model = made(tmp_path)
    whole = tmp_path / "whole"
    _ended(_start(whole, drawn, listed, model, tmp_path))
    archive = tmp_path / "killed"
    process = _start(archive, drawn, listed, model, tmp_path)
    begun = {"train": "runs/lora/recipe.json", "embed": "runs/eval-*/pipeline.json"}[amid]
    deadline = time.monotonic() + 600
    while not list(archive.glob(begun)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(archive.glob(begun))
    before = runs_of(archive)
    reports = _ended(_start(archive, drawn, listed, model, tmp_path))
    assert reports[-1]["details"].get("failed_step") is None
    done = runs_of(archive)
    assert (done["eval"], done["dedup"], done["lora"]) == (1, 1, 1)
    assert done["caption"] == before["caption"] + 1  # the list is read again; it adds nothing
    assert [row["caption"] for row in rows(archive, "captions")] == [row["caption"] for row in rows(whole, "captions")]
    assert embeddings(archive).keys() == embeddings(whole).keys()


def _start(archive: Path, drawn: Path, listed: Path, model: Path, folder: Path) -> subprocess.Popen[str]:
    changes = [
        f"--set={change}" for change in (*CHANGES, "scan.clip_seconds=1", "scan.min_clip_seconds=0.2", "ray.cpus=2")
    ]
    words = [str(drawn), "--from", str(listed), "--model", str(model), "--archive", str(archive), "--json"]
    return subprocess.Popen(
        [sys.executable, "-c", "from raydist.cli import main; main()", "pipeline", *words, *changes],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def _ended(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    return [json.loads(line) for line in out.splitlines()]
