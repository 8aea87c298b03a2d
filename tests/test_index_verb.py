"""The verb index, and embed's own use of it: built where it pays, measured on texts, told in the report."""

from __future__ import annotations

import json
from pathlib import Path

import archives
import numpy as np
import pytest
from store import tables

from raydist import index as verb
from raydist import search as search_stage
from raydist.errors import ArchiveError
from raydist.store import commit, index, read
from raydist.store.schema import embeddings_table


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Path:
    """Ten clips, embedded with a small random ViCLIP, and far more rows beside them."""
    folder = tmp_path_factory.mktemp("index")
    base = folder / "archive"
    archives.scanned(base, archives.videos(folder / "videos", 5, seconds=2))
    archives.made(base, archives.write_viclip(folder / "model"))
    return base


def table_of(archive: Path) -> str:
    (key,) = read.model_keys(str(archive))
    return embeddings_table(key)


def crowd(archive: Path, rows: int, first: int = 1_000_000) -> None:
    """Rows with drawn vectors, of no clip of the archive."""
    table = table_of(archive)
    kind = read.need_table(str(archive), table).schema
    width = kind.field("vector").type.list_size
    values = np.random.default_rng(first).normal(size=(rows, width))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    made = tables.embeddings(list(range(first, first + rows)), vector=tables.fixed(values))
    commit.append(str(archive), table, made, kind)


@pytest.mark.ray
def test_index_builds_measures_and_then_has_nothing_to_do(archive: Path) -> None:
    crowd(archive, 2_000)
    config = archives.configure(archive)
    report = verb.run(config)
    rows = read.count_rows(str(archive), table_of(archive))
    assert report.counts["vectors"] == report.counts["indexed"] == rows
    assert report.counts["partitions"] == index.partitions_for(rows)
    card = report.details["index"]
    assert card["done"] == "build"
    assert card["recall"]["text"] > 0.85
    assert card["recall"]["video"] > 0.9
    assert set(card["probes"]) == {"10", "100", "1000"}
    assert "partitions" in " ".join(report.notes)
    saved = json.loads((archive / "runs" / report.run / "report.json").read_text())
    assert saved["details"]["index"]["recall"] == card["recall"]
    again = verb.run(config)
    assert again.details["index"]["done"] == ""
    assert "nothing to do" in again.notes
    crowd(archive, 100, first=3_000_000)
    assert verb.run(config).details["index"]["done"] == "refresh"
    assert verb.run(config, rebuild=True).details["index"]["done"] == "build"


@pytest.mark.ray
def test_embed_builds_the_index_once_the_table_is_large(archive: Path) -> None:
    index.drop(str(archive), table_of(archive))
    model = next(iter(read.model_keys(str(archive))))
    assert "index" not in archives.made(archive, model).details
    report = archives.made(archive, model, "search.index_rows=500")
    assert report.details["index"]["done"] == "build"
    assert any("of the ten nearest" in note for note in report.notes)
    assert "index" not in archives.made(archive, model, "search.index_rows=500").details
    crowd(archive, 900, first=5_000_000)
    assert archives.made(archive, model, "search.index_rows=500").details["index"]["done"] == "refresh"


@pytest.mark.ray
def test_a_search_finds_clips_through_the_index(archive: Path) -> None:
    verb.run(archives.configure(archive))
    ids = list(archives.rows(archive, "clips"))
    wanted = ids[0]["clip_id"]
    query = search_stage.Query(words=None, image=None, clip_id=wanted)
    hits = search_stage.run(archives.configure(archive), [query]).to_pylist()
    assert hits
    assert {hit["clip_id"] for hit in hits} <= {row["clip_id"] for row in ids}


@pytest.mark.ray
def test_without_the_models_weights_probes_stay_wide(archive: Path, tmp_path: Path) -> None:
    place = archive.parent / "model" / "model.safetensors"
    away = place.rename(tmp_path / "away")
    try:
        report = verb.run(archives.configure(archive), rebuild=True)
    finally:
        away.rename(place)
    card = report.details["index"]
    assert "text" not in card["recall"]
    assert card["probes"]["10"] >= card["partitions"] // 10
    assert any("recall of texts was not measured" in note for note in report.notes)


def test_an_archive_without_vectors_has_nothing_to_index(tmp_path: Path) -> None:
    archives.scanned(tmp_path / "archive", archives.videos(tmp_path / "videos", 1))
    with pytest.raises(ArchiveError, match="raydist embed"):
        verb.run(archives.configure(tmp_path / "archive"))
