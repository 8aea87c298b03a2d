"""The books of an archive, for people and for tools."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import configure, fails_with, made, scanned, videos, write_viclip

from raydist import cli, status
from raydist.errors import ArchiveError
from raydist.progress import bar
from raydist.store import lease
from raydist.store.lease import Lease

PROMISED = {"files", "clips", "captions", "failed_files", "embeddings"}


@dataclass(frozen=True)
class Made:
    """An archive with three files that are videos, one that is none and one that went away before it was embedded."""

    archive: Path
    model: Path
    key: str


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("status")
    model, folder = write_viclip(top / "small"), videos(top / "v", 4, 2)
    (folder / "text.mp4").write_text("no video")
    scanned(top / "archive", folder)
    (folder / "v003.mp4").unlink()
    report = made(top / "archive", model)
    return Made(top / "archive", model, report.details["model_key"])


def test_the_books_balance(once: Made) -> None:
    books = status.run(configure(once.archive))
    assert set(books) >= PROMISED
    assert (books["files"], books["ok"], books["alias"], books["failed_files"]) == (5, 4, 0, 1)
    assert (books["clips"], books["captions"]) == (8, 0)
    assert books["embeddings"] == {once.key: {"rows": 6, "failed": 2, "pending": 0}}
    assert books["reasons"] == {"not_a_video": 1, "missing": 2}


def test_json_is_one_object_on_stdout(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["status", "--archive", str(once.archive), "--json"])
    out, talk = capsys.readouterr()
    (line,) = out.splitlines()
    assert json.loads(line)["embeddings"] == {once.key: {"rows": 6, "failed": 2, "pending": 0}}
    assert talk == ""


def test_a_person_reads_sums_reasons_and_what_is_next(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["status", "--archive", str(once.archive)])
    text = capsys.readouterr().out
    assert "5 = 4 ok + 0 alias + 1 failed" in text
    assert f"6 rows + 2 failed + 0 pending  ({once.key})" in text
    assert "2 missing" in text
    assert "raydist search" in text.splitlines()[-1]


def test_what_is_next_follows_the_state(tmp_path: Path, once: Made) -> None:
    folder = videos(tmp_path / "v", 1, 2)
    scanned(tmp_path / "archive", folder)
    bare = status.run(configure(tmp_path / "archive"))
    assert bare["embeddings"] == {}
    assert "`raydist embed`" in status.render(bare)
    waiting = {**bare, "embeddings": {"m-1": {"rows": 0, "failed": 0, "pending": 2}}, "models": {"m-1": "some"}}
    assert "`raydist embed --model some` goes on with 2 clips" in status.render(waiting)
    assert "raydist scan" in status.render({**bare, "clips": 0})


def test_no_archive_is_told(tmp_path: Path) -> None:
    with fails_with(ArchiveError, "no archive", "raydist scan|scan"):
        status.run(configure(tmp_path / "none"))


def test_who_is_at_work_is_told_with_rate_and_time_left(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with Lease(str(once.archive), "embed", run="embed-1") as held, bar("embedding with small", 400) as progress:
        progress.advance(100)
        time.sleep(0.05)
        held._write("held")
        books = status.run(configure(once.archive))
    (one,) = books["at_work"]
    assert (one["verb"], one["run"], one["done"], one["total"]) == ("embed", "embed-1", 100, 400)
    assert one["left_s"] == pytest.approx(300 / one["rate"], rel=0.1, abs=0.2)
    text = status.render(books)
    assert f"at work    embed on {socket.gethostname()} (process {os.getpid()}) for " in text
    assert "embedding with small, 100 of 400, " in text
    assert text.splitlines()[-1] == (
        "next       wait for the run that is at work; `raydist report` tells afterwards what it did"
    )
    assert status.run(configure(once.archive))["at_work"] == []


def test_a_void_lease_is_left_by_who_only_looks(once: Made) -> None:
    folder = once.archive / lease.FOLDER
    folder.mkdir(exist_ok=True)
    void = folder / "void.json"
    void.write_text("{}")
    assert status.run(configure(once.archive))["at_work"] == []
    assert void.exists()
    void.unlink()
