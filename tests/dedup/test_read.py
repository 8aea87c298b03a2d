"""Pairs that are read again, from files on disk to rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from archives import configure, encode, made, rows, write_viclip
from videos import draw

from raydist import scan
from raydist.dedup import read
from raydist.store import read as stored


def given(*pairs: tuple[int, int]) -> pa.Table:
    """Pairs as the join gives them."""
    columns = {"a": pa.int64(), "b": pa.int64(), "similarity": pa.float32()}
    return pa.Table.from_pylist([{"a": a, "b": b, "similarity": 0.97} for a, b in pairs], pa.schema(columns))


@pytest.mark.ray
def test_a_trimmed_copy_is_found_whole_from_one_pair(tmp_path: Path, cluster: None) -> None:
    folder, archive = tmp_path / "in", tmp_path / "archive"
    folder.mkdir()
    frames = list(draw(400, 96, 64, seed=5))
    encode(folder / "a.mp4", drawn=frames, rate=10)
    encode(folder / "b.mp4", drawn=frames[27:], rate=10, options={"crf": "36", "preset": "veryfast"})
    encode(folder / "c.mp4", drawn=draw(400, 96, 64, seed=6), rate=10)
    changes = ("scan.clip_seconds=10",)
    scan.run(configure(archive, "", *changes), scan.Request(inputs=(str(folder),)))
    made(archive, write_viclip(tmp_path / "model"), *changes)
    (model_key,) = stored.model_keys(str(archive))
    clips = {row["clip_id"]: row["clip_key"] for row in rows(archive, "clips")}
    pair = clips["in/a.mp4#t=10,20"], clips["in/b.mp4#t=10,20"]
    other = clips["in/a.mp4#t=10,20"], clips["in/c.mp4#t=10,20"]
    found = read.verify(configure(archive, "", *changes), model_key, given(pair, other))
    kinds = {(row["a_id"], row["b_id"]): row["kind"] for row in found.to_pylist()}
    assert kinds["in/a.mp4#t=10,20", "in/c.mp4#t=10,20"] == "similar"
    assert kinds["in/a.mp4#t=10,20", "in/b.mp4#t=10,20"] == "copy"
    assert kinds["in/a.mp4#t=30,40", "in/b.mp4#t=20,30"] == "copy"
