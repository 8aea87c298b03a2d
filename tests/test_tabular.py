"""Lists in Parquet: which columns are read, and as what."""

from __future__ import annotations

from datetime import time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import fails_with

from raydist import tabular
from raydist.errors import UsageError


def written(file: Path, columns: dict[str, pa.Array], **options: object) -> Path:
    pq.write_table(pa.table(columns), file, **options)
    return file


def test_a_parquet_file_is_a_list_whatever_its_suffix(tmp_path: Path) -> None:
    file = written(
        tmp_path / "captions.bin",
        {
            "path": pa.array(["a.mp4", "b.mp4", None]).dictionary_encode(),
            "caption": pa.array([["a dog", "a hound"], [], None], pa.list_(pa.large_string())),
            "said": pa.array([[{"caption": "x", "number": 0}], None, None]),
            "start": pa.array([1.5, float("nan"), None]),
            "clip_key": pa.array([-(1 << 63), (1 << 63) - 1, None], pa.int64()),
            "raw": pa.array([b"caf\xc3\xa9", None, b"x"]),
            "until": pa.array([time(0, 1, 2, 500_000), None, None], pa.time64("ns")),
            "long": pa.array([timedelta(seconds=62.5), None, None], pa.duration("ns")),
        },
    )
    listing = tabular.read(str(file), "--from")
    assert listing.columns == ("path", "caption", "said", "start", "clip_key", "raw", "until", "long")
    first, second, third = listing.lines
    assert first.values == {
        "path": "a.mp4",
        "caption": ["a dog", "a hound"],
        "said": [{"caption": "x", "number": 0}],
        "start": 1.5,
        "clip_key": -(1 << 63),
        "raw": "caf\u00e9",
        "until": time(0, 1, 2, 500_000),
        "long": timedelta(seconds=62.5),
    }
    assert (second.values["start"], second.values["caption"], second.where) == (None, [], "line 2")
    assert set(third.values.values()) == {None, "x"}


def test_vectors_and_pictures_are_not_read_and_named(tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.parquet",
        {
            "path": pa.array(["a.mp4", "b.mp4"]),
            "vector": pa.array(np.zeros((2, 4)).tolist(), pa.list_(pa.float32(), 4)),
            "numbers": pa.array([[1.0], [2.0]]),
            "mp4": pa.array([bytes(200_000), bytes(range(250)) * 800]),
            "pictures": pa.array([[{"bytes": b"x", "path": "p"}]] * 2),
        },
        compression="none",
        use_dictionary=False,
    )
    listing = tabular.read(str(file), "--from")
    assert listing.columns == ("path",)
    assert [line.values for line in listing.lines] == [{"path": "a.mp4"}, {"path": "b.mp4"}]
    (note,) = listing.notes
    for name in ("vector (fixed_size_list", "numbers (list", "mp4 (binary)"):
        assert name in note


@pytest.mark.parametrize("kept", [4, 20, 0.5, 0.99])
def test_a_damaged_parquet_file_is_told(tmp_path: Path, kept: float) -> None:
    file = written(tmp_path / "a.parquet", {"path": pa.array([f"{number}.mp4" for number in range(5000)])})
    data = file.read_bytes()
    file.write_bytes(data[: round(kept * len(data)) if kept < 1 else int(kept)])
    with fails_with(UsageError, "--from", "damaged Parquet file", "write or copy it again"):
        tabular.read(str(file), "--from")


def test_bytes_in_the_middle_that_changed_are_told_or_change_texts_only(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", {"path": pa.array([f"{number * 7919}.mp4" for number in range(5000)])})
    data = bytearray(file.read_bytes())
    data[200:400] = bytes(200)
    file.write_bytes(bytes(data))
    with fails_with(UsageError, "damaged Parquet file"):
        tabular.read(str(file), "--from")


def test_texts_that_are_no_utf_8_are_told(tmp_path: Path) -> None:
    ends, letters = np.array([0, 3], np.int32), b"a\xff\xe9"
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(letters))
    file = written(tmp_path / "a.parquet", {"path": pa.array(["a.mp4"]), "caption": texts})
    with fails_with(UsageError, "a.parquet", "damaged Parquet file", "utf-8"):
        tabular.read(str(file), "--from")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["path", "path"])
    pq.write_table(table, tmp_path / "a.parquet")
    with fails_with(UsageError, "two columns named 'path'"):
        tabular.read(str(tmp_path / "a.parquet"), "--from")


def test_a_list_of_many_rows_keeps_their_order(tmp_path: Path) -> None:
    names = [f"{number}.mp4" for number in range(25_000)]
    file = written(tmp_path / "a.parquet", {"path": pa.array(names)}, row_group_size=7_000)
    listing = tabular.read(str(file), "--from")
    assert [line.values["path"] for line in listing.lines] == names
    assert [line.number for line in listing.lines[:2]] == [1, 2]
