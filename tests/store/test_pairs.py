"""Captioned clips: who counts, in which order."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raydist.store import commit, schema
from raydist.store.pairs import PAIRS, captioned_clips, stale_captions


def fill(location: str, table: str, rows: list[dict[str, Any]], columns: pa.Schema) -> None:
    commit.append(location, table, pa.Table.from_pylist(rows, columns), columns)


def caption(key: int, text: str, number: int = 0, fingerprint: str = "f", origin: str = "sidecar") -> dict[str, Any]:
    return {
        "clip_key": key,
        "clip_id": f"v/{key}.mp4#t=0,1",
        "fingerprint": fingerprint,
        "number": number,
        "caption": text,
        "origin": origin,
        "prompt_hash": "",
        "cut": False,
        "at": datetime.now(UTC),
    }


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """Clips 1 to 5, the first of them in `train`, one in the gap; captions of 1, 2, 4 and of a clip that is gone."""
    location = str(tmp_path)
    splits = {5: "train", 3: "train", 1: "train", 2: "val", 4: "gap"}
    clips = [
        {"clip_id": f"v/{key}.mp4#t=0,1", "clip_key": key, "video_id": f"v/{key}.mp4", "start_s": 0.0, "end_s": 1.0}
        | {"start_ms": 0, "end_ms": 1000, "source_id": f"v/{key}", "split": split, "fingerprint": "f"}
        for key, split in splits.items()
    ]
    files = [{"video_id": f"v/{key}.mp4", "root": "v", "path": f"{key}.mp4", "file_fingerprint": "g"} for key in splits]
    fill(location, "clips", clips, schema.CLIPS)
    fill(location, "videos", files, schema.VIDEOS)
    rows = [
        caption(1, "b two", 2),
        caption(1, "  a one ", 1),
        caption(1, "z first", 9, origin="gemini"),
        caption(1, "b two", 3),
        caption(1, "  ", 4),
        caption(1, "of an older file", 1, fingerprint="e"),
        caption(2, "held out"),
        caption(4, "between"),
        caption(5, "of an older file", fingerprint="e"),
        caption(77, "of a clip that is gone"),
    ]
    fill(location, "captions", rows, schema.CAPTIONS)
    return location


def test_captions_come_by_origin_and_number_without_doubles_and_blanks(archive: str) -> None:
    table = captioned_clips(archive, "train")
    assert table.schema == PAIRS
    assert table["captions"].to_pylist() == [["z first", "a one", "b two"]]
    (row,) = table.drop_columns("captions").to_pylist()
    assert row == {
        "clip_key": 1,
        "clip_id": "v/1.mp4#t=0,1",
        "fingerprint": "f",
        "video_id": "v/1.mp4",
        "source_id": "v/1",
        "start_s": 0.0,
        "end_s": 1.0,
        "start_ms": 0,
        "end_ms": 1000,
        "split": "train",
        "root": "v",
        "path": "1.mp4",
        "file_fingerprint": "g",
    }


def test_a_split_is_a_part_of_all_clips_by_key(archive: str) -> None:
    assert captioned_clips(archive, None)["clip_key"].to_pylist() == [1, 2, 4]
    assert captioned_clips(archive, "val")["clip_key"].to_pylist() == [2]
    assert captioned_clips(archive, "test").num_rows == 0


def test_captions_of_an_older_content_are_counted_and_left_out(archive: str) -> None:
    assert (stale_captions(archive), stale_captions(archive, "train"), stale_captions(archive, "val")) == (2, 2, 0)


def test_an_archive_without_captions_has_no_pairs(tmp_path: Path) -> None:
    assert captioned_clips(str(tmp_path), None).schema == PAIRS
    assert captioned_clips(str(tmp_path), "train").num_rows == 0
    assert stale_captions(str(tmp_path)) == 0
