"""The morning report: what was done, what failed, what it cost, what to do next, from an archive alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from archives import configure, fails_with, made, scanned, videos, write_viclip

from raydist import cli, report
from raydist.errors import ArchiveError, UsageError
from raydist.progress import bar
from raydist.report import Request
from raydist.report.period import parse
from raydist.store.lease import NOTE, Lease

DIES = """
import sys, time
from raydist import meter
from raydist.progress import bar
from raydist.store.lease import Lease
meter.hold(8, 1)
with Lease(sys.argv[1], "embed", run=sys.argv[2]) as held, bar("embedding with small", 40) as progress:
    progress.advance(30)
    held.counts = lambda: {"clips": 20, "rows": 19, "failed": 1}
    time.sleep(0.5)
    held._write("held")
    print("held", flush=True)
    time.sleep(600)
"""


@dataclass(frozen=True)
class Made:
    """An archive of six clips with a vector, two whose file went away, and a file that is no video."""

    archive: Path
    model: Path
    run: str


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("report")
    model, folder = write_viclip(top / "small"), videos(top / "v", 4, 2)
    (folder / "text.mp4").write_text("no video")
    scanned(top / "archive", folder)
    (folder / "v003.mp4").unlink()
    done = made(top / "archive", model)
    return Made(top / "archive", model, done.run)


def told(archive: Path, *changes: str, **asked: Any) -> dict[str, Any]:
    return report.run(configure(archive, "", *changes), Request(**asked))


def killed(archive: Path, run: str) -> None:
    """A run that dies with its process after 30 of 40."""
    process = subprocess.Popen([sys.executable, "-c", DIES, str(archive), run], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    process.stdout.close()


def test_what_was_done_is_summed_by_stage(once: Made) -> None:
    found = told(once.archive)
    assert list(found["stages"]) == ["scan", "embed"]
    assert found["stages"]["embed"]["counts"] == {"clips": 8, "rows": 6, "failed": 2}
    assert found["stages"]["embed"]["how"] == {"done": 1}
    (embed,) = [run for run in found["runs"] if run["stage"] == "embed"]
    assert embed["run"] == once.run
    began, ended = datetime.fromisoformat(embed["began"]), datetime.fromisoformat(embed["ended"])
    assert timedelta(0) <= datetime.now(UTC) - ended < timedelta(hours=1)
    assert began <= ended


def test_failures_have_their_reason_a_count_and_an_example(once: Made) -> None:
    reasons = {(row["stage"], row["reason"]): row for row in told(once.archive)["failures"]}
    missing = reasons["embed", "missing"]
    assert (missing["count"], missing["example"]) == (2, "v/v003.mp4")
    assert missing["what"] == "the file does not exist"
    assert reasons["scan", "not_a_video"]["example"] == "v/text.mp4"
    only = told(once.archive, run=once.run)
    assert [(row["stage"], row["reason"]) for row in only["failures"]] == [("embed", "missing")]
    assert [run["run"] for run in only["runs"]] == [once.run]


def test_cost_is_of_machines_that_were_held_times_what_they_cost(once: Made) -> None:
    cost = told(once.archive)["cost"]
    assert cost["core_hours"] > 0
    assert cost["busy_core_hours"] > 0
    assert cost["money"] == {}
    assert cost["unmeasured"] == []
    priced = told(once.archive, "report.core_hour_price=1000", "report.currency=EUR")["cost"]
    assert priced["money"]["EUR"] == pytest.approx(cost["core_hours"] * 1000, rel=0.01, abs=1e-3)
    seconds = sum(run["seconds"] for run in told(once.archive)["runs"])
    assert cost["core_hours"] <= 4 * seconds / 3600 * 1.01  # of four cores


def test_a_run_that_died_cost_what_it_held_and_did_what_it_committed(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    scanned(archive, videos(tmp_path / "v", 1, 2))
    before = told(archive)["cost"]
    run = f"embed-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    killed(archive, run)
    found = told(archive, "report.gpu_hour_price=3600000", "report.currency=EUR")
    cost = found["cost"]
    assert 4 <= (cost["core_hours"] - before["core_hours"]) * 3600 < 8 * 60
    assert 0.5 <= cost["gpu_hours"] * 3600 < 60
    assert cost["busy_gpu_hours"] == 0
    assert cost["money"]["EUR"] == pytest.approx(cost["gpu_hours"] * 3600000, rel=0.01)
    assert found["stages"]["embed"]["counts"] == {"clips": 20, "rows": 19, "failed": 1}
    assert "GPU hours held (0.00 at work)" in report.render(found)
    earlier = told(archive, run=run)["cost"]["gpu_hours"]
    with Lease(str(archive), "embed", run=run):  # another driver of the same run counts on
        pass
    assert told(archive, run=run)["cost"]["gpu_hours"] == pytest.approx(earlier)


def test_a_run_that_died_is_told_with_how_far_it_came_and_what_goes_on(once: Made, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    scanned(archive, videos(tmp_path / "v", 1, 2))
    run = f"embed-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    killed(archive, run)
    found = told(archive)
    (dead,) = [row for row in found["runs"] if row["run"] == run]
    assert (dead["how"], dead["done"], dead["total"]) == ("died", 30, 40)
    text = report.render(found)
    assert f"{run} on " in text
    assert "died without a word at 30 of 40 (embedding with small)" in text
    assert found["next"][0] == f"`raydist embed`, with the same options, goes on where {run} died"
    made(archive, once.model)
    assert told(archive)["next"] == ['`raydist search "words"`']


def test_runs_that_fail_are_stopped_or_are_at_work_are_told_as_such(once: Made, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    scanned(archive, videos(tmp_path / "v", 1, 2))
    with pytest.raises(OSError, match="disk"), Lease(str(archive), "embed", run="embed-1"):
        raise OSError("the disk is full")
    with pytest.raises(KeyboardInterrupt), Lease(str(archive), "embed", run="embed-2"):
        raise KeyboardInterrupt
    with Lease(str(archive), "embed", run="embed-3") as held, bar("embedding", 8) as progress:
        progress.advance(2)
        held._write("held")
        found = told(archive)
    how = {row["run"]: row for row in found["runs"]}
    assert (how["embed-1"]["how"], how["embed-1"]["error"]) == ("failed", "the disk is full")
    assert how["embed-2"]["how"] == "stopped"
    assert (how["embed-3"]["how"], how["embed-3"]["done"]) == ("running", 2)
    assert "`raydist status` shows how far it is" in found["next"][0]


def test_only_runs_since_then_are_told(once: Made) -> None:
    assert told(once.archive, since="1d")["runs"]
    ahead = (datetime.now().astimezone() + timedelta(minutes=5)).isoformat()
    found = told(once.archive, since=ahead)
    assert (found["runs"], found["failures"]) == ([], [])
    assert "nothing in this time" in report.render(found)


def test_since_is_a_length_or_a_moment() -> None:
    assert abs(parse("90m") - (datetime.now(UTC) - timedelta(minutes=90))) < timedelta(seconds=5)
    assert parse("2026-11-25T06:00+02:00") == datetime(2026, 11, 25, 4, tzinfo=UTC)
    assert parse("2026-11-25") == datetime(2026, 11, 25).astimezone(UTC)
    with fails_with(UsageError, "'yesterday'", "12h", "2026-11-25"):
        parse("yesterday")


def test_the_verb_prints_lines_or_one_object(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["report", "--archive", str(once.archive), "--since", "12h"])
    text = capsys.readouterr().out
    assert "embed      8 clips, 6 rows, 2 failed in" in text
    assert "failed     2 missing in embed (the file does not exist)" in text
    assert "such as v/v003.mp4" in text
    cli.main(["report", "--archive", str(once.archive), "--json", "--core-hour-price", "2"])
    (line,) = capsys.readouterr().out.splitlines()
    assert set(json.loads(line)) >= {"stages", "runs", "failures", "cost", "pending", "next"}


def test_what_is_not_there_is_told(once: Made, tmp_path: Path) -> None:
    with fails_with(UsageError, "'embed-x'", "no such run", once.run):
        told(once.archive, run="embed-x")
    with fails_with(ArchiveError, "no archive"):
        told(tmp_path / "none")


def test_a_note_that_was_cut_off_hides_nothing_else(once: Made) -> None:
    folder = once.archive / "runs" / "embed-cut"
    folder.mkdir()
    (folder / NOTE).write_text('{"verb": "emb')
    try:
        assert told(once.archive)["stages"]["embed"]["runs"] == 1
    finally:
        (folder / NOTE).unlink()
        os.rmdir(folder)
