"""Pairs that are read again, from files on disk to rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from archives import configure, encode, made, rows, write_viclip
from numpy.typing import NDArray
from takes import Film

from raydist import scan
from raydist.dedup import read, statements
from raydist.store import read as stored
from raydist.store import schema

RATE = 10


def given(*pairs: tuple[int, int]) -> pa.Table:
    """Pairs as the join gives them."""
    columns = {"a": pa.int64(), "b": pa.int64(), "similarity": pa.float32()}
    return pa.Table.from_pylist([{"a": a, "b": b, "similarity": 0.97} for a, b in pairs], pa.schema(columns))


def frames(film: Film, start_s: float, end_s: float) -> list[NDArray[np.uint8]]:
    """[H, W, C] of a stretch of a film, ten a second."""
    grey = [film.picture(time).astype(np.uint8) for time in np.arange(start_s, end_s, 1 / RATE)]
    return [np.repeat(np.kron(picture, np.ones((1, 2), np.uint8))[..., None], 3, axis=-1) for picture in grey]


def written(path: Path, drawn: list[NDArray[np.uint8]], crf: int = 26) -> None:
    options = {"crf": str(crf), "preset": "veryfast"}
    encode(path, count=len(drawn), size=(96, 48), rate=RATE, options=options, drawn=drawn)


@pytest.mark.ray
def test_a_trimmed_copy_is_found_whole_from_one_pair(tmp_path: Path, cluster: None) -> None:
    folder, archive = tmp_path / "in", tmp_path / "archive"
    folder.mkdir()
    film, cuts = Film(3, 4, cuts_s=(8.0, 17.0, 31.0)), (8.0, 17.0, 31.0)
    written(folder / "a.mp4", frames(film, 0, 40))
    written(folder / "b.mp4", frames(film, 2.7, 40), crf=36)
    written(folder / "c.mp4", frames(Film(3, 5, cuts_s=cuts), 0, 40))
    changes = ("scan.clip_seconds=10",)
    scan.run(configure(archive, "", *changes), scan.Request(inputs=(str(folder),)))
    made(archive, write_viclip(tmp_path / "model"), *changes)
    (model_key,) = stored.model_keys(str(archive))
    clips = {row["clip_id"]: row["clip_key"] for row in rows(archive, "clips")}
    pair = clips["in/a.mp4#t=10,20"], clips["in/b.mp4#t=10,20"]
    other = clips["in/a.mp4#t=10,20"], clips["in/c.mp4#t=10,20"]
    config = configure(archive, "", *changes)
    found = read.verify(config, model_key, given(pair, other))
    found_by = {(row["a_id"], row["b_id"]): row for row in found.to_pylist()}
    assert found.schema == schema.PAIRS
    assert found_by["in/a.mp4#t=10,20", "in/c.mp4#t=10,20"]["kind"] == "similar"
    copies = {pair: row for pair, row in found_by.items() if row["kind"] == "copy"}
    spans = [(0, 0), (10, 0), (10, 10), (20, 10), (20, 20), (30, 20), (30, 30)]
    ends = {30: "37.3"}
    expected = {(f"in/a.mp4#t={a},{a + 10}", f"in/b.mp4#t={b},{ends.get(b, b + 10)}") for a, b in spans}
    assert copies.keys() == expected
    for row in copies.values():
        assert row["offset_s"] == pytest.approx(-2.7, abs=0.3)
        assert row["a_from_s"] + row["offset_s"] == pytest.approx(row["b_from_s"])
        assert row["similarity"] is not None
    (said,) = statements.overlaps(found).to_pylist()
    assert (said["a_video"], said["b_video"], said["pairs"]) == ("in/a.mp4", "in/b.mp4", 7)
    assert (said["a_from_s"], said["b_from_s"]) == (pytest.approx(2.7, abs=0.5), pytest.approx(0.0, abs=0.5))
    assert (said["a_to_s"], said["b_to_s"]) == (pytest.approx(40, abs=0.5), pytest.approx(37.3, abs=0.5))
    assert read.verify(config, model_key, given(pair, other), known=found).num_rows == 0


@pytest.mark.ray
def test_clips_are_compared_with_those_of_another_archive_which_stays_as_it_is(tmp_path: Path, cluster: None) -> None:
    here, there, film = tmp_path / "here", tmp_path / "there", Film(3, 4, cuts_s=(8.0,))
    model = write_viclip(tmp_path / "model")
    for archive, start_s in ((here, 0), (there, 3)):
        (archive / "in").mkdir(parents=True)
        written(archive / "in" / "same.mp4", frames(film, start_s, start_s + 20))
        config = configure(archive, "", "scan.clip_seconds=20")
        scan.run(config, scan.Request(inputs=(str(archive / "in"),)))
        made(archive, model, "scan.clip_seconds=20")
    (model_key,) = stored.model_keys(str(here))
    ((a,), (b,)) = ([row["clip_key"] for row in rows(archive, "clips")] for archive in (here, there))
    before = sorted(path.name for path in there.iterdir())
    (row,) = read.verify(configure(here), model_key, given((a, b)), against=str(there)).to_pylist()
    assert (row["kind"], row["archive_b"], row["offset_s"]) == ("copy", str(there), pytest.approx(-3, abs=0.3))
    assert row["a_fingerprint"] != row["b_fingerprint"]
    assert sorted(path.name for path in there.iterdir()) == before


@pytest.mark.ray
def test_a_pair_of_a_clip_that_does_not_decode_stays_unread(tmp_path: Path, cluster: None) -> None:
    archive, folder = tmp_path / "archive", tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        written(folder / f"{name}.mp4", frames(Film(3, ord(name)), 0, 5))
    config = configure(archive, "", "scan.clip_seconds=5")
    scan.run(config, scan.Request(inputs=(str(folder),)))
    keys = [row["clip_key"] for row in sorted(rows(archive, "clips"), key=lambda row: str(row["clip_id"]))]
    (folder / "b.mp4").unlink()
    (row,) = read.verify(config, "none", given((keys[1], keys[0]))).to_pylist()
    assert (row["a_id"], row["kind"], row["confidence"]) == ("in/a.mp4#t=0,5", "unread", None)
    assert row["similarity"] == pytest.approx(0.97)
    assert [failure["reason"] for failure in rows(archive, "failures") if failure["stage"] == "dedup"] == ["missing"]
