"""A disk that is full, or must not be written: nothing is lost, the message is right, the same command goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import embeddings, videos, write_viclip

from raydist import cli
from raydist.errors import disk_remedy
from raydist.store import read

SETTINGS = ("scan.clip_seconds=1", "scan.min_clip_seconds=0.2", "scan.probes=1", "embed.decoders=1", "embed.batch=1")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("this user may mount no disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_viclip(tmp_path_factory.mktemp("models") / "small")


def fill(disk: Path, leaves_bytes: int = 0) -> Path:
    """Take all room but so much."""
    room = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        file.write(bytes(max(0, room.f_bavail * room.f_frsize - leaves_bytes)))
    return disk / "filler"


def verb(*words: str, archive: Path) -> int:
    """The exit code of a command."""
    changes = [word for change in SETTINGS for word in ("--set", change)]
    try:
        cli.main([*words, "--archive", str(archive), *changes])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def refused(capsys: pytest.CaptureFixture[str], what: str) -> None:
    text = " ".join(capsys.readouterr().err.split())
    assert what in text, text
    assert "run the same command again" in text
    assert "not expected" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("room", [0, 100_000])
def test_a_full_disk_at_embed_loses_nothing_and_the_same_command_goes_on(
    cluster: None, disk: Path, model: Path, tmp_path: Path, room: int, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = disk / "archive"
    assert verb("scan", str(videos(tmp_path / "v", 6, 2)), archive=archive) == 0
    filler = fill(disk, room)
    capsys.readouterr()
    each = ("--set", "embed.commit_rows=1", "--model", str(model))
    assert verb("embed", *each, archive=archive) == 1
    refused(capsys, "the disk is full")
    found = read.model_keys(str(archive))
    kept = read.count_rows(str(archive), f"embeddings_{found[0]}") if found else 0
    assert (kept > 0) == (room > 0)
    assert kept < 12
    filler.unlink()
    assert verb("embed", *each, archive=archive) == 0
    assert f"{12 - kept} rows" in capsys.readouterr().out
    assert len(embeddings(archive)) == 12
    signed = [row for batch in read.scan_batches(str(archive), "signatures") for row in batch["clip_key"].to_pylist()]
    assert len(signed) == len(set(signed)) == 12


def test_a_full_disk_at_scan_leaves_an_archive_that_the_same_command_finishes(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, first = disk / "archive", videos(tmp_path / "v", 1, 2)
    assert verb("scan", str(first), archive=archive) == 0
    videos(tmp_path / "v", 2, 2, first=1)
    filler = fill(disk)
    capsys.readouterr()
    assert verb("scan", str(first), archive=archive) == 1
    refused(capsys, "the disk is full")
    filler.unlink()
    assert verb("scan", str(first), archive=archive) == 0
    clips = [row for batch in read.scan_batches(str(archive), "clips") for row in batch["clip_key"].to_pylist()]
    assert len(clips) == len(set(clips)) == 6


def test_an_archive_that_may_only_be_read_is_searched_and_refuses_the_rest(
    cluster: None, disk: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, folder = disk / "archive", videos(tmp_path / "v", 2, 2)
    assert verb("scan", str(folder), archive=archive) == 0
    assert verb("embed", "--model", str(model), archive=archive) == 0
    videos(tmp_path / "v", 1, 2, first=7)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        capsys.readouterr()
        assert verb("search", "a dog", "--json", archive=archive) == 0
        assert len(capsys.readouterr().out.splitlines()) == 4
        for words in (["status"], ["report"]):
            assert verb(*words, archive=archive) == 0
        capsys.readouterr()
        for words in (["scan", str(folder)], ["embed", "--model", str(model), "--retry-failed"]):
            assert verb(*words, archive=archive) == 1
            refused(capsys, "may only be read")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert verb("scan", str(folder), archive=archive) == 0
    assert verb("embed", "--model", str(model), archive=archive) == 0
    assert len(embeddings(archive)) == 6


def test_what_disks_say_has_a_remedy_and_the_rest_has_none() -> None:
    for said, meant in (
        ("LanceError(IO): ... No space left on device (os error 28)", "the disk is full"),
        ("[Errno 30] Read-only file system: '/a'", "may only be read"),
        ("[Errno 13] Permission denied: '/a/writers'", "may not write"),
        ("connection reset", ""),
    ):
        assert meant in disk_remedy(said)
        assert bool(meant) == bool(disk_remedy(said))
