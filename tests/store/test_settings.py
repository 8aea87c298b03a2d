"""The archive's own file: made once, checked at each opening."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raydist.errors import ArchiveError
from raydist.store import schema
from raydist.store import settings as archive

SETTINGS = {"clip_seconds": 30.0, "min_clip_seconds": 2.0, "naming": None, "index_base": 0}


def test_an_archive_opens_with_what_it_was_made_with(location: str) -> None:
    made = archive.create_or_open(location, SETTINGS)
    assert made["settings"] == SETTINGS
    assert made["format_version"] == schema.FORMAT_VERSION
    assert archive.create_or_open(location, SETTINGS) == archive.open_existing(location) == made


def test_other_settings_are_refused_with_both_values_and_the_remedy(location: str) -> None:
    archive.create_or_open(location, SETTINGS)
    with pytest.raises(ArchiveError, match=r"clip_seconds is 30.0 there and 20.0 here.*--archive"):
        archive.create_or_open(location, {**SETTINGS, "clip_seconds": 20.0})
    assert archive.open_existing(location)["settings"] == SETTINGS


def test_of_creators_at_once_one_wins_and_the_others_find_it(location: str) -> None:
    start = threading.Barrier(8)

    def create(seconds: int) -> str:
        start.wait()
        try:
            return str(archive.create_or_open(location, {"clip_seconds": seconds})["settings"]["clip_seconds"])
        except ArchiveError:
            return "refused"

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(create, range(8)))
    assert ends.count("refused") == 7
    assert [path.name for path in Path(location).iterdir()] == [archive.FILE]


def test_a_newer_format_is_refused_and_an_older_one_upgraded(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.create_or_open(location, SETTINGS)
    file = Path(location) / archive.FILE
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "format_version": schema.FORMAT_VERSION + 1}))
    with pytest.raises(ArchiveError, match="update raydist"):
        archive.open_existing(location)
    file.write_text(json.dumps({**document, "format_version": 0}))
    with pytest.raises(ArchiveError, match="cannot upgrade"):
        archive.open_existing(location)
    monkeypatch.setitem(archive.UPGRADES, 0, lambda location, old: {**old, "upgraded": True})
    assert archive.open_existing(location)["upgraded"]
    assert json.loads(file.read_text())["format_version"] == schema.FORMAT_VERSION


def test_a_place_that_is_no_archive_says_what_to_run(location: str) -> None:
    with pytest.raises(ArchiveError, match=r"raydist scan FOLDER --archive .*does not exist"):
        archive.open_existing(location)
    Path(location).mkdir()
    with pytest.raises(ArchiveError, match=r"run `raydist scan FOLDER --archive .*` first$"):
        archive.open_existing(location)


def test_a_mistyped_name_is_told_the_archive_beside_it(tmp_path: Path) -> None:
    archive.create_or_open(str(tmp_path / "archive"), SETTINGS)
    for slip in ("archvie", "archive/clips.lance", "", "archive/sub/folder"):
        with pytest.raises(ArchiveError, match=f"there is one at '{tmp_path / 'archive'}'"):
            archive.open_existing(str(tmp_path / slip) if slip else str(tmp_path))


@pytest.mark.parametrize("opening", [archive.open_existing, lambda where: archive.create_or_open(where, SETTINGS)])
def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path, opening: object) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ArchiveError, match=r"a\.mp4' is a file"):
        opening(str(tmp_path / "a.mp4"))  # type: ignore[operator]


def test_a_damaged_file_is_refused(location: str) -> None:
    archive.create_or_open(location, SETTINGS)
    (Path(location) / archive.FILE).write_text("{")
    with pytest.raises(ArchiveError, match="damaged"):
        archive.open_existing(location)
