"""The command line: exit codes, what goes to stdout, and what a person is told when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from videos import encode

from raydist import cli

HEAVY = ("torch", "ray", "lance", "lancedb", "numpy", "pyarrow", "transformers", "av")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> list[dict[str, object]]:
        """stdout, which must be JSON to the last line."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ended]


@pytest.fixture
def raydist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, in an empty folder; everything it writes is caught, by whatever part."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYDIST_ARCHIVE", raising=False)
    monkeypatch.setenv("RAYDIST_DEBUG", "")

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        code = 0
        try:
            cli.main(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    encode(folder / "a.mp4", count=3, size=(32, 32), rate=1)
    return folder


def test_help_names_every_verb_and_how_to_begin() -> None:
    ended = CliRunner().invoke(cli.cli, ["--help"])
    assert ended.exit_code == 0
    assert "raydist scan FOLDER" in ended.output
    for verb in ("config", "demo", "embed", "scan", "search", "status"):
        assert f"\n  {verb} " in ended.output
        assert CliRunner().invoke(cli.cli, [verb, "--help"]).exit_code == 0


def test_help_waits_for_nothing_heavy() -> None:
    script = f"""
import sys, time
from raydist import cli
try:
    cli.main(["--help"])
except SystemExit:
    pass
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
assert time.process_time() < 1.5, time.process_time()
"""
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_the_command_is_installed() -> None:
    ended = subprocess.run([_script(), "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("raydist")


def _script() -> str:
    script = Path(sys.executable).with_name("raydist")
    if not script.exists():
        pytest.skip("raydist is not installed, it is run from its folder")
    return str(script)


def test_a_first_archive_from_scan_to_status(raydist: Run, videos: Path) -> None:
    scan = raydist("scan", str(videos), "--archive", "a", "--json")
    (report,) = scan.json()
    assert (scan.code, report["files"], report["clips"], report["stage"]) == (0, 1, 1, "scan")
    again = raydist("scan", str(videos), "--archive", "a")
    assert again.out.startswith("scan: 1 files, 1 unchanged, 0 clips in ")
    status = raydist("status", "--archive", "a", "--json")
    (books,) = status.json()
    assert (books["files"], books["clips"], books["failed_files"], books["embeddings"]) == (1, 1, 0, {})
    assert "`raydist embed`" in raydist("status", "--archive", "a").out
    unasked = raydist("search", "a dog", "--archive", "a")
    assert unasked.code == 1
    assert "raydist embed" in unasked.err
    assert unasked.out == ""


def test_too_many_failures_end_with_1_and_the_report(raydist: Run, videos: Path) -> None:
    (videos / "b.mp4").write_text("no video")
    ended = raydist("scan", str(videos), "--archive", "a", "--json")
    assert ended.code == 1
    assert ended.json()[0]["failures"] == {"not_a_video": 1}
    assert "max_failed = 10%" in ended.err
    (videos / "c.mp4").write_text("no video either")
    assert raydist("scan", str(videos), "--archive", "a", "--set", "max_failed=1").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["scan", "."], 2, "no archive was named"),
        (["scan", "nowhere", "--archive", "a"], 2, "'nowhere' does not exist"),
        (["scan", "vidoes", "--archive", "a"], 2, "did you mean 'videos'"),
        (["scan", "--archive", "a"], 2, "nothing to scan"),
        (["scan", "videos", "--archive", "a", "--clip-seconds", "-1"], 2, "scan.clip_seconds = -1.0 (option)"),
        (["scan", "videos", "--archive", "a", "--set", "scan.clip_second=3"], 2, "did you mean 'scan.clip_seconds'"),
        (["scan", "videos", "--archive", "a", "--config", "x.toml"], 2, "'x.toml' cannot be read"),
        (["scan", "videos", "--archive", "videos/a.mp4"], 1, "is a file"),
        (["scan", "videos", "--archive", "a", "--metadata", "no.csv"], 2, "'no.csv' does not exist"),
        (["status", "--archive", "nowhere"], 1, "run `raydist scan FOLDER --archive"),
        (["search", "a dog", "--archive", "nowhere"], 1, "no archive at"),
        (["embed", "--archive", "nowhere"], 1, "no archive at"),
        (["search", "--archive", "nowhere"], 2, "expected one of: words, --image FILE"),
        (["search", "a", "--image", "b", "--archive", "nowhere"], 2, "expected one of"),
        (["scna"], 2, "No such command 'scna'"),
        (["scan", "--tpo"], 2, "No such option"),
    ],
)
def test_a_mistake_gets_one_clear_message_and_a_code(
    raydist: Run, videos: Path, arguments: list[str], code: int, message: str
) -> None:
    ended = raydist(*arguments)
    assert message in ended.err
    assert ended.code == code
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert not Path("a").exists()


def test_debug_shows_where_an_error_comes_from(raydist: Run) -> None:
    ended = raydist("--debug", "status", "--archive", "nowhere")
    assert (ended.code, "Traceback" in ended.err, "error: no archive" in ended.err) == (1, True, True)


def test_what_nobody_expected_is_one_message_too(raydist: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydist.status.run", lambda config: 1 / 0)
    ended = raydist("status", "--archive", "a")
    assert ended.code == 1
    assert "error: ZeroDivisionError" in ended.err
    assert "--debug" in ended.err
    assert "Traceback" not in ended.err


def test_config_shows_each_value_and_where_it_came_from(raydist: Run) -> None:
    Path("raydist.toml").write_text("[embed]\nbatch = 7\n", encoding="utf-8")
    rows = {row["key"]: row for row in raydist("config", "--set", "search.top=3", "--json").json()}
    assert (rows["embed.batch"]["value"], rows["embed.batch"]["from"]) == (7, "file raydist.toml")
    assert (rows["search.top"]["value"], rows["search.top"]["from"]) == (3, "--set")
    assert (rows["scan.clip_seconds"]["value"], rows["scan.clip_seconds"]["from"]) == (30.0, "default")
    assert all(row["what"] for row in rows.values())
    lines = raydist("config").out.splitlines()
    assert len(lines) == len(rows)


def test_the_archive_may_be_named_in_three_ways(raydist: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("raydist.toml").write_text('archive = "from-file"\n', encoding="utf-8")
    assert "from-file" in raydist("status").err
    monkeypatch.setenv("RAYDIST_ARCHIVE", "from-environment")
    assert "from-environment" in raydist("status").err
    assert "from-option" in raydist("status", "--archive", "from-option").err


def _many(videos: Path) -> None:
    """So many videos that Ray is needed."""
    for number in range(40):
        shutil.copy(videos / "a.mp4", videos / f"b{number}.mp4")


def _start(videos: Path, archive: Path) -> subprocess.Popen[str]:
    """A scan in a process group of its own, so that it can be interrupted as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-c", "from raydist.cli import main; main()", "scan", str(videos), "--archive", str(archive)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "RAYDIST_RAY_CPUS": "1"},
    )


def _wait_for(archive: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the scan has written down what it will open."""
    deadline = time.monotonic() + 120
    while not list(archive.glob("runs/*/manifest/*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.ray
def test_an_interrupted_scan_says_how_to_go_on(videos: Path, tmp_path: Path) -> None:
    _many(videos)
    process = _start(videos, tmp_path / "archive")
    _wait_for(tmp_path / "archive", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == cli.INTERRUPTED
    assert out == ""
    assert "the same command goes on from here" in err
    assert "Traceback" not in err


@pytest.mark.ray
def test_a_killed_scan_is_taken_up_and_no_row_is_twice(
    raydist: Run, videos: Path, tmp_path: Path, cluster: None
) -> None:
    _many(videos)
    process = _start(videos, tmp_path / "archive")
    _wait_for(tmp_path / "archive", process)
    process.kill()
    process.communicate(timeout=60)
    ended = raydist("scan", str(videos), "--archive", str(tmp_path / "archive"), "--json")
    assert ended.code == 0, ended.err
    (books,) = raydist("status", "--archive", str(tmp_path / "archive"), "--json").json()
    assert (books["files"], books["ok"], books["clips"]) == (41, 41, 41)
