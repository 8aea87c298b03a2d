"""What the morning report counts, and what it says of a pipeline that failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from archives import configure, rows, scanned, videos

from raydist import pipeline, report
from raydist.records import Report
from raydist.report import Request, failed
from raydist.report.runs import Run, by_stage
from raydist.store import commit, schema
from raydist.store.lease import Lease
from raydist.store.runs import new_run, save

MODEL = "some-00000000"


def told(archive: Path, **asked: Any) -> dict[str, Any]:
    return report.run(configure(archive), Request(**asked))


def test_a_pipeline_that_failed_is_told_with_its_reason_and_goes_on(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    config = configure(archive, "no-such-model")
    asked = pipeline.Request(inputs=(str(videos(tmp_path / "v", 1, 2)),), steps=("scan", "embed"))
    done, outcome = pipeline.run(config, asked, lambda step, report: None, lambda line: None)
    assert outcome.failed == "embed"
    found = told(archive)
    assert found["stages"]["pipeline"]["how"] == {"failed": 1}
    (failed,) = [run for run in found["runs"] if run["stage"] == "pipeline"]
    assert failed["error"].startswith("stopped at embed (")
    assert "no-such-model" in failed["error"]
    assert f"{done.run} failed: stopped at embed" in report.render(found)
    assert found["next"] == [f"`raydist pipeline`, with the same options, goes on where {done.run} failed"]


def test_a_stage_that_failed_in_a_pipeline_is_the_pipelines_to_do_again(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    scanned(archive, videos(tmp_path / "v", 1, 2))
    with pytest.raises(OSError, match="full"), Lease(str(archive), "train", run=new_run("train")):
        raise OSError("the disk is full")
    details, notes = {"failed_step": "train"}, ("stopped at train (the disk is full); left to do: train",)
    whole = Report(stage="pipeline", run=new_run("pipeline"), seconds=60, counts={}, details=details, notes=notes)
    save(whole, str(archive))
    (step,) = told(archive)["next"]
    assert step.startswith("`raydist pipeline`")
    with Lease(str(archive), "train", run=new_run("train")):  # it goes on
        assert told(archive)["next"] == ["wait: `raydist status` shows how far it is"]


def failures(clips: list[dict[str, Any]], reason: str, ago_s: float = 0, **columns: Any) -> pa.Table:
    now = datetime.now(UTC) - timedelta(seconds=ago_s)
    given = {"stage": "embed", "model_key": MODEL, "reason": reason, "detail": f"{reason} it is", "at": now} | columns
    of = [{**given, **{name: clip[name] for name in ("video_id", "clip_key", "fingerprint")}} for clip in clips]
    return pa.Table.from_pylist([{**row, **columns} for row in of], schema=schema.FAILURES)


@pytest.fixture
def scanned_twice(tmp_path: Path) -> Path:
    """An archive of six clips and a file that is no video, which two scans found; another one is a video by now."""
    archive, folder = tmp_path / "archive", videos(tmp_path / "v", 2, 3)
    (folder / "text.mp4").write_text("no video")
    (folder / "later.mp4").write_text("no video yet")
    scanned(archive, folder)
    (folder / "text.mp4").write_text("no video either")
    (folder / "later.mp4").unlink()
    scanned(archive, folder)
    return archive


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_what_failed_counts_once_and_no_more_once_it_is_done(
    scanned_twice: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(failed, "_ROWS", at_once)
    archive = str(scanned_twice)
    clips = rows(archive, "clips")
    assert len(clips) == 6
    for given in (
        failures(clips[:4], "timeout", 20),  # by two drivers at the same time
        failures(clips[:4], "timeout", 20),
        failures(clips[1:2], "corrupt"),  # tried again, and failed for another reason
        failures(clips[:1], "missing", model_key="another"),
        failures(clips[:1], "provider", stage="caption", model_key="someone#abc"),
        failures(clips[1:2], "blocked", stage="caption", model_key="someone#abc"),
        failures(clips[:1], "crashed", stage="train", model_key=""),
        failures(clips[4:], "too_large", fingerprint="of what the file held before"),
    ):
        commit.append(archive, "failures", given, schema.FAILURES)
    texts = [(clips[0], "of-an-older-prompt"), (clips[1], "abc")]
    given = {"number": 0, "caption": "a dog", "origin": "someone"}
    said = [{**dict.fromkeys(schema.CAPTIONS.names), **clip, **given, "prompt_hash": prompt} for clip, prompt in texts]
    said = [{name: row[name] for name in schema.CAPTIONS.names} for row in said]
    commit.append(archive, "captions", pa.Table.from_pylist(said, schema=schema.CAPTIONS), schema.CAPTIONS)
    columns = schema.embeddings(2)
    done = [{**dict.fromkeys(columns.names), **clips[2], "vector": [1.0, 0.0]}]
    done = [{name: row[name] for name in columns.names} for row in done]
    commit.append(archive, f"embeddings_{MODEL}", pa.Table.from_pylist(done, schema=columns), columns)
    found = {(row["stage"], row["reason"]): row for row in told(scanned_twice)["failures"]}
    assert {where: row["count"] for where, row in found.items()} == {
        ("scan", "not_a_video"): 1,
        ("embed", "timeout"): 2,
        ("embed", "corrupt"): 1,
        ("embed", "missing"): 1,
        ("caption", "provider"): 1,
        ("train", "crashed"): 1,
    }
    assert found["scan", "not_a_video"]["example"] == "v/text.mp4"
    assert found["embed", "corrupt"]["example"] == clips[1]["video_id"]
    assert found["embed", "corrupt"]["detail"] == "corrupt it is"
    ahead = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    assert told(scanned_twice, since=ahead)["failures"] == []


def embedded(minute: int, minutes: int, model: str, **counts: int) -> Run:
    began = datetime(2026, 1, 2, 3, minute, tzinfo=UTC)
    made = {"stage": "embed", "counts": counts, "seconds": 60 * minutes, "details": {"model_key": model}}
    ended = began + timedelta(minutes=minutes)
    return Run(run=f"embed-{minute}", stage="embed", began=began, ended=ended, how="done", report=made)


def test_clips_that_two_drivers_looked_at_are_summed_once() -> None:
    one = embedded(0, 10, "a", clips=100, rows=60, failed=5)
    two = embedded(5, 10, "a", clips=100, rows=35, failed=3)
    assert by_stage([one, two])["embed"]["counts"] == {"clips": 100, "rows": 95, "failed": 5}
    later = embedded(20, 5, "a", clips=7, rows=7, failed=0)
    other = embedded(21, 5, "b", clips=100, rows=99, failed=1)
    found = by_stage([one, two, later, other])["embed"]
    assert found["counts"] == {"clips": 207, "rows": 201, "failed": 6}
    assert (found["runs"], found["how"]) == (4, {"done": 4})
