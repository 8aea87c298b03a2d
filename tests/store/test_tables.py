"""Tables: created once, opened fresh, readable by LanceDB."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lancedb
import numpy as np
import pytest
from store import tables

from raydist.errors import StoreError
from raydist.store import commit, read, schema
from raydist.store.tables import create_table, open_table

KIND = schema.embeddings(4)


def test_lancedb_opens_the_archive_and_searches_it(location: str) -> None:
    vectors = tables.vectors(50)
    commit.append(location, tables.TABLE, tables.embeddings(range(50), vector=vectors), KIND)
    commit.append(location, "clips", tables.clips(range(50)), schema.CLIPS)
    commit.delete(location, tables.TABLE, "clip_key = 3")
    database = lancedb.connect(location)
    assert sorted(database.list_tables().tables) == ["clips", tables.TABLE]
    table = database.open_table(tables.TABLE)
    query = np.array(vectors[7].as_py(), np.float32)
    hits = table.search(query).distance_type("dot").where("clip_key < 40").limit(3).to_list()
    assert hits[0]["clip_id"] == "v.mp4#t=7"
    assert table.count_rows() == 49


def test_vectors_are_stored_as_the_format_for_wide_lists_asks(location: str) -> None:
    commit.append(location, tables.TABLE, tables.embeddings([1]), KIND)
    dataset = read.need_table(location, tables.TABLE)
    assert dataset.data_storage_version == schema.DATA_STORAGE_VERSION
    assert dataset.schema.field("vector").metadata == {b"lance-encoding:structural-encoding": b"miniblock"}


def test_creators_at_once_end_with_one_table_and_all_rows(location: str) -> None:
    for attempt in range(5):
        table = f"embeddings_m{attempt}"
        start = threading.Barrier(4)

        def create(keys: range, table: str = table, start: threading.Barrier = start) -> int:
            start.wait()
            return commit.append(location, table, tables.embeddings(keys), KIND)

        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(create, [range(0, 20), range(10, 30), range(20, 40), range(30, 50)]))
        keys = [key for batch in read.scan_batches(location, table, ["clip_key"]) for key in batch[0].to_pylist()]
        assert sorted(keys) == list(range(50))
        assert sum(rows) == 50


def test_creating_a_table_that_is_there_keeps_its_rows(location: str) -> None:
    commit.append(location, tables.TABLE, tables.embeddings([1, 2]), KIND)
    create_table(location, tables.TABLE, KIND)
    assert read.count_rows(location, tables.TABLE) == 2


def test_what_a_killed_creator_left_is_no_table(location: str) -> None:
    (Path(location) / "clips.lance" / "data").mkdir(parents=True)
    assert open_table(location, "clips") is None
    assert read.table_names(location) == []
    commit.append(location, "clips", tables.clips([1]), schema.CLIPS)
    assert read.table_names(location) == ["clips"]


def test_a_damaged_table_is_an_error_that_names_it(location: str) -> None:
    commit.append(location, "clips", tables.clips([1]), schema.CLIPS)
    for manifest in (Path(location) / "clips.lance" / "_versions").iterdir():
        manifest.write_bytes(b"nonsense")
    with pytest.raises(StoreError, match=r"clips\.lance.*cannot be opened"):
        open_table(location, "clips")


def test_rows_are_found_by_key_and_missing_ones_left_out(location: str) -> None:
    commit.append(location, "clips", tables.clips([5, -(2**63), 2**63 - 1]), schema.CLIPS)
    rows = read.rows_by_key(location, "clips", [2**63 - 1, 77, -(2**63)], ["clip_key"])
    assert rows["clip_key"].to_pylist() == [-(2**63), 2**63 - 1]
    assert read.rows_by_key(location, "clips", [], ["clip_id"]).num_rows == 0


def test_the_models_of_an_archive_are_told_from_its_tables(location: str) -> None:
    assert read.model_keys(location) == []
    for model in ("viclip-b16-0a1b2c3d", "tiny-00000001"):
        commit.append(location, schema.embeddings_table(model), tables.embeddings([1]), KIND)
    commit.append(location, "clips", tables.clips([1]), schema.CLIPS)
    assert read.model_keys(location) == ["tiny-00000001", "viclip-b16-0a1b2c3d"]
    with pytest.raises(ValueError, match=r"a/b"):
        schema.embeddings_table("a/b")
