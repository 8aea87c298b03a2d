"""Rows that are looked up by a text, many times."""

from __future__ import annotations

import builtins

import pyarrow as pa
import pytest
from store import tables

from raydist.store import commit, find, schema
from raydist.store.find import Finder


def add(location: str, numbers: range, path: str = "first") -> None:
    names = [f"v{number:03}" for number in numbers]
    rows = tables.filled(schema.VIDEOS, len(names), video_id=names, path=path, state="ok")
    where = f"video_id IN ({', '.join(map(repr, names))})"
    columns = schema.VIDEOS
    committer = commit.Committer(location, "videos", columns)
    committer.commit(commit.write_fragments(location, "videos", rows, columns), delete_where=where)


def found(finder: Finder, *numbers: int) -> dict[str, str]:
    rows = finder.find([f"v{number:03}" for number in numbers])
    assert len(rows) == len(set(rows["video_id"].to_pylist()))
    return dict(zip(rows["video_id"].to_pylist(), rows["path"].to_pylist(), strict=True))


@pytest.mark.parametrize("shared", [False, True])
def test_rows_are_found_whatever_was_deleted_replaced_and_added(
    location: str, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    if shared:  # two texts of one number
        monkeypatch.setattr(find, "hash", lambda text: builtins.hash(text) % 7, raising=False)
    for start in range(0, 100, 25):
        add(location, range(start, start + 25))
    add(location, range(20, 30), "second")
    commit.delete(location, "videos", "video_id < 'v005' OR video_id = 'v040'")
    finder = Finder(location, "videos", "video_id", ["video_id", "path"])
    for _ in range(3):
        assert found(finder, 3, 5, 25, 40, 99, 100) == {"v005": "first", "v025": "second", "v099": "first"}
        assert found(finder, 999, 4) == {}
    add(location, range(100, 102), "later")
    assert found(finder, 100, 50) == {"v050": "first", "v100": "later"}
    assert found(finder) == {}


def test_a_table_without_rows_has_none(location: str) -> None:
    commit.Committer(location, "videos", schema.VIDEOS)
    finder = Finder(location, "videos", "video_id", ["video_id", "path"])
    assert [found(finder, 1, 2) for _ in range(3)] == [{}] * 3
    assert isinstance(finder.find(["v001"]), pa.Table)
