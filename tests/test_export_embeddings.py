"""export embeddings: current vectors with their names, whole files or none."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from archives import configure, embeddings, fails_with, made, rows, scanned, videos, write_viclip

import raydist
from raydist import cli, export
from raydist.errors import ArchiveError, StoreError, UsageError
from raydist.store import commit


@dataclass(frozen=True)
class Made:
    """An archive that was embedded with one model."""

    archive: Path
    folder: Path


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("vectors")
    folder = videos(top / "v", 3)
    scanned(top / "archive", folder)
    made(top / "archive", write_viclip(top / "small"))
    return Made(top / "archive", folder)


def test_parquet_holds_every_vector_bit_for_bit(once: Made, tmp_path: Path) -> None:
    report = export.embeddings(configure(once.archive), str(tmp_path / "out.parquet"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == [
        *("clip_id", "video_id", "start_s", "end_s", "split", "clip_key", "fingerprint", "vector"),
    ]
    stored = embeddings(once.archive)
    assert report.counts["vectors"] == table.num_rows == len(stored) == 9
    for row in table.to_pylist():
        assert all(row[name] == stored[row["clip_id"]][name] for name in row)
    kind = table.schema.field("vector").type
    assert (kind.list_size, str(kind.value_type)) == (32, "halffloat")


def test_numpy_holds_the_same_with_names_beside_it(once: Made, tmp_path: Path) -> None:
    raydist.open(str(once.archive)).export_embeddings(str(tmp_path / "out.npy"))
    vectors = np.load(tmp_path / "out.npy", mmap_mode="r")
    assert (vectors.dtype, vectors.shape) == (np.float16, (9, 32))
    with (tmp_path / "out.csv").open(newline="") as file:
        names = list(csv.DictReader(file))
    stored = embeddings(once.archive)
    for vector, name in zip(vectors, names, strict=True):
        assert vector.tolist() == stored[name["clip_id"]]["vector"]
        assert float(name["start_s"]) == stored[name["clip_id"]]["start_s"]
    assert "vector" not in names[0]


def test_only_what_the_condition_allows_is_written(once: Made, tmp_path: Path) -> None:
    where = "start_s >= 1 AND (codec = 'h264' AND video_id <> 'v/v001.mp4')"
    report = export.embeddings(configure(once.archive), str(tmp_path / "out.parquet"), where=where)
    names = pq.read_table(tmp_path / "out.parquet")["clip_id"].to_pylist()
    assert sorted(names) == [f"v/v00{number}.mp4#t={second},{second + 1}" for number in (0, 2) for second in (1, 2)]
    assert report.counts["vectors"] == 4
    export.embeddings(configure(once.archive), str(tmp_path / "none.npy"), where="start_s > 100")
    assert np.load(tmp_path / "none.npy").shape == (0, 32)
    with fails_with(StoreError, "speed", "start_s"):
        export.embeddings(configure(once.archive), str(tmp_path / "bad.parquet"), where="speed > 3")
    assert not list(tmp_path.glob("bad*"))


def test_vectors_of_clips_that_changed_are_left_out(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    gone = rows(archive, "clips")[0]
    commit.delete(str(archive), "clips", f"clip_key = {gone['clip_key']}")
    export.embeddings(configure(archive), str(tmp_path / "out.parquet"))
    names = pq.read_table(tmp_path / "out.parquet")["clip_id"].to_pylist()
    assert len(names) == 8
    assert gone["clip_id"] not in names


def test_nothing_that_is_there_is_overwritten(once: Made, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    with fails_with(UsageError, "out.csv", "there already"):
        export.embeddings(configure(once.archive), str(tmp_path / "out.npy"))
    with fails_with(UsageError, "out.txt", ".parquet", ".npy"):
        export.embeddings(configure(once.archive), str(tmp_path / "out.txt"))
    with fails_with(UsageError, "does not exist"):
        export.embeddings(configure(once.archive), str(tmp_path / "no" / "out.npy"))
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


def test_an_archive_without_vectors_says_what_to_do(once: Made, tmp_path: Path) -> None:
    scanned(tmp_path / "bare", once.folder)
    with fails_with(ArchiveError, "raydist embed"):
        export.embeddings(configure(tmp_path / "bare"), str(tmp_path / "out.parquet"))


def test_the_command_line_reports_and_leaves_a_record(
    once: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.parquet"
    cli.main(["export", "embeddings", "--archive", str(once.archive), "--out", str(out), "--json"])
    line = json.loads(capsys.readouterr().out)
    assert line["vectors"] == 9
    assert line["bytes"] == out.stat().st_size
    (record,) = [
        json.loads(file.read_text())
        for file in once.archive.glob("runs/export-*/report.json")
        if json.loads(file.read_text())["details"]["file"] == str(out)
    ]
    assert record["details"]["model"] == "small"
