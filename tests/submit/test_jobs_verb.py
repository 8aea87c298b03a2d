"""Jobs on a cluster of three nodes: submitted, followed, killed under, stopped, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from archives import embeddings, rows, scanned, videos
from here import LONGEST_S, ROOT, Here, cluster, end, run, start, wait_for

from raydist.store import read

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]
CPU = ("--set=embed.device=cpu", "--set=embed.commit_s=0.2", "--set=embed.batch=1")
FILES, SECONDS = 6, 10
LONG_S = 80
"""Of a file whose job is stopped: a command of raydist takes seconds to start."""


@pytest.fixture(scope="module")
def there() -> Iterator[Here]:
    """A head, a worker, and a worker with a fake GPU."""
    with cluster("2", "1", "1+gpu") as found:
        yield found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos(tmp_path_factory.mktemp("drawn") / "videos", FILES, SECONDS)


@pytest.fixture
def archive(tmp_path: Path, drawn: Path) -> Path:
    """60 clips of 6 files."""
    scanned(tmp_path / "archive", drawn)
    return tmp_path / "archive"


def done(archive: Path) -> int:
    keys = read.model_keys(str(archive))
    return read.count_rows(str(archive), f"embeddings_{keys[0]}") if keys else 0


def embedding(archive: Path, there: Here, *more: str) -> list[str]:
    return ["submit", "embed", *CPU, "--model", "tiny", "--archive", str(archive), "--address", there.jobs, *more]


@contextmanager
def without_a_node(there: Here) -> Iterator[None]:
    """The one with the fake GPU, for so long."""
    there.tell("kill")
    try:
        yield
    finally:
        there.tell("add 1+gpu")


def test_a_job_that_is_stopped_keeps_what_is_done_and_goes_on(there: Here, tmp_path: Path) -> None:
    archive, clips = tmp_path / "archive", FILES * LONG_S
    scanned(archive, videos(tmp_path / "long", FILES, LONG_S))
    left = run(*embedding(archive, there, "--no-wait", "--json"))
    (told,) = left.json()
    assert told["dashboard"] == f"{there.jobs}/#/jobs/{told['job']}"
    wait_for(lambda: done(archive))
    stopped = run("jobs", "stop", told["job"], "--address", there.jobs, "--json")
    assert (stopped.code, stopped.json()[0]["job"]) == (0, told["job"])
    kept = done(archive)
    assert 0 < kept < clips, "it was stopped too late to show anything"
    log = run("jobs", "logs", told["job"], "--address", there.jobs)
    assert "vectors of this run are kept" in log.err
    with without_a_node(there):
        again = run(*embedding(archive, there, "--json"))
    assert again.code == 0, again.err
    assert again.json()[0]["counts"] == {"clips": clips - kept, "rows": clips - kept, "failed": 0}
    assert len(embeddings(archive)) == clips
    assert told["job"] in run("jobs", "list", "--address", there.jobs).out


def test_a_node_that_is_killed_amid_a_job_costs_no_clip(there: Here, archive: Path) -> None:
    job = start(*embedding(archive, there, "--json"))
    wait_for(lambda: done(archive) or job.poll() is not None)
    with without_a_node(there):
        ended = end(job)
    assert ended.code == 0, ended.err
    assert "checked: every node sees" in ended.err
    assert ended.json()[0]["counts"] == {"clips": FILES * SECONDS, "rows": FILES * SECONDS, "failed": 0}
    assert set(embeddings(archive)) == {row["clip_id"] for row in rows(archive, "clips")}


def test_ctrl_c_leaves_the_job_and_its_exit_code_is_the_verbs(there: Here, archive: Path, tmp_path: Path) -> None:
    (archive / "archive.json").rename(tmp_path / "kept.json")
    job = start("submit", "embed", "--archive", str(archive), "--address", there.jobs)
    assert job.stderr is not None
    first = job.stderr.readline()
    job.send_signal(signal.SIGINT)
    ended = end(job)
    name = first.split()[1].rstrip(":")
    assert ended.code == 130
    assert f"the job goes on. Follow: `raydist jobs logs {name} --follow" in ended.err
    followed = run("jobs", "logs", name, "--follow", "--address", there.jobs)
    assert (followed.code, followed.out) == (1, "")
    assert "no archive at" in followed.err


def test_what_only_this_machine_has_is_refused_before_the_stage(there: Here, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    runs = sorted((archive / "runs").glob("scan-*"))
    job = start("submit", "scan", str(tmp_path / "films"), "--archive", str(archive), "--address", there.jobs)
    assert job.stderr is not None
    job.stderr.readline()  # it is sent: what it names is gone by the time that the cluster looks
    (tmp_path / "films").rmdir()
    ended = end(job)
    assert ended.code == 1
    assert f"has no '{tmp_path}/films' (inputs)" in ended.err
    assert sorted((archive / "runs").glob("scan-*")) == runs


@pytest.mark.slow
def test_an_archive_in_a_bucket_without_credentials_on_the_nodes_is_refused(there: Here) -> None:
    place = {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    words = ("submit", "status", "--archive", "s3://nobodys/archive", "--address", there.jobs)
    ended = run(*words, **place, AWS_EC2_METADATA_DISABLED="true")
    assert ended.code == 1
    assert "cannot read the archive 's3://nobodys/archive'" in ended.err
    assert "hunter2" not in ended.err


@pytest.mark.slow
def test_jobs_run_by_path_through_ray_itself(there: Here, archive: Path) -> None:
    words = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", there.jobs]
    words += ["--working-dir", ".", "--runtime-env", "jobs/runtime-env.yaml", "--"]  # as docs/jobs.md says
    words += [sys.executable, "jobs/embed.py", "--config", "jobs/smoke.toml", "--archive", str(archive), *CPU]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    sent = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=LONGEST_S, env=environment, cwd=ROOT
    )
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "embed: 60 clips, 60 rows, 0 failed" in sent.stdout
    assert len(embeddings(archive)) == FILES * SECONDS


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything_is_killed_once_and_every_clip_is_done_once() -> None:
    command = [sys.executable, str(ROOT / "tests" / "submit" / "chaos.py")]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1700)
    assert shown.returncode == 0, shown.stderr[-6000:]
    (seen,) = [json.loads(line) for line in shown.stdout.splitlines()]
    assert seen["clips"] >= 500
    assert 0 < seen["rows_when_node_was_killed"] < seen["rows_when_driver_was_killed"] < seen["clips"], seen
    assert (seen["every_clip_once"], seen["exit"], seen["exit_of_killed"]) == (True, 0, 137), seen
    assert seen["books"] == {"rows": seen["clips"], "failed": 0, "pending": 0}
    assert seen["reports"][-1]["clips"] == seen["clips"] - seen["rows_when_driver_was_killed"]
    assert seen["report"]["how"] == {"died": 1, "done": 1}
    # A kill between a commit and the run's note of it costs the report one commit of half a second.
    assert 0.9 * seen["clips"] <= seen["report"]["counts"]["rows"] <= seen["clips"]
    assert seen["report"]["core_hours"] > 0
