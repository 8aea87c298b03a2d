"""One archive with a base and its adapters: what is named is what is embedded with and searched, never another."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import (
    adapter_for,
    as_stored,
    configure,
    embeddings,
    fails_with,
    made,
    scanned,
    videos,
    write_viclip,
)

import raydist
from raydist import choice, cli, load_encoder, search, status
from raydist.clips.decode import decode_clip
from raydist.errors import ModelError, StoreError, UsageError
from raydist.search import Query
from raydist.store import models

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


@dataclass(frozen=True)
class Made:
    """An archive with vectors of `small`, `small+a`, `small+b` and `small+a@fast`."""

    archive: Path
    base: Path
    folder: Path

    def run(self, name: str) -> Path:
        return self.archive / "runs" / name / "adapter"

    def key(self, name: str) -> str:
        (found,) = [model.model_key for model in models.stored(str(self.archive)) if model.name == name]
        return found


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("choice")
    base, folder, archive = write_viclip(top / "small"), videos(top / "v", 2, seconds=2), top / "archive"
    scanned(archive, folder)
    for seed, run in enumerate("ab"):
        adapter_for(base, archive / "runs" / run / "adapter", seed)
    made(archive, base)
    for changes in (["embed.adapter=a"], ["embed.adapter=b"], ["embed.adapter=a", "embed.sampling=fast"]):
        made(archive, "", *changes)
    return Made(archive, base, folder)


@pytest.fixture
def own(once: Made, tmp_path: Path) -> Made:
    """A copy that a test may spoil."""
    shutil.copytree(once.archive, tmp_path / "archive")
    shutil.copytree(once.base, tmp_path / "small")
    return Made(tmp_path / "archive", tmp_path / "small", once.folder)


def hits(made: Made, words: str, model: str = "", adapter: str = "") -> list[dict[str, Any]]:
    config = configure(made.archive, model, *([f"embed.adapter={adapter}"] if adapter else []))
    found: list[dict[str, Any]] = search.run(config, [Query(words=words)]).to_pylist()
    return found


def test_each_run_has_a_table_of_its_own_and_status_names_them(once: Made) -> None:
    names = {model.name for model in models.stored(str(once.archive))}
    assert names == {"small", "small+a", "small+b", "small+a@fast"}
    books = status.run(configure(once.archive))
    assert set(books["models"].values()) == names
    assert all(count == {"rows": 4, "failed": 0, "pending": 0} for count in books["embeddings"].values())


def test_vectors_are_those_of_the_base_with_its_adapter(once: Made) -> None:
    encoder = load_encoder(str(once.base), adapter=str(once.run("a")), device="cpu")
    found = embeddings(once.archive, once.key("small+a"))
    plain = embeddings(once.archive, once.key("small"))
    for name, row in found.items():
        start = row["start_s"]
        frames = decode_clip(str(once.folder / name.split("#")[0].split("/")[1]), start, row["end_s"], size=32)
        (expected,) = encoder.encode_frames(frames[None])
        np.testing.assert_allclose(as_stored(expected), np.array(row["vector"], np.float32), atol=1e-3)
        assert np.abs(np.array(row["vector"]) - np.array(plain[name]["vector"])).max() > 1e-2


def test_a_search_names_its_model_where_there_are_several(once: Made) -> None:
    with fails_with(StoreError, "several models", r"small \(", r"small\+a \(", r"small\+b \(", "--model", "--adapter"):
        hits(once, "a red cat")
    by_run = hits(once, "a red cat", adapter="b")
    assert by_run == hits(once, "a red cat", model="small+b") == hits(once, "a red cat", model=once.key("small+b"))
    assert by_run == hits(once, "a red cat", adapter=str(once.run("b")))
    assert by_run == hits(once, "a red cat", model="small", adapter="b")
    encoder = load_encoder(str(once.base), adapter=str(once.run("b")), device="cpu")
    best = max(
        float(np.array(row["vector"], np.float32) @ encoder.encode_text(["a red cat"])[0])
        for row in embeddings(once.archive, once.key("small+b")).values()
    )
    assert by_run[0]["score"] == pytest.approx(best, abs=1e-5)
    assert hits(once, "a red cat", model="small") != by_run != hits(once, "a red cat", model="small+a")


def test_fast_sampling_and_the_adapter_are_told_apart(once: Made) -> None:
    with fails_with(StoreError, "several models with the adapter 'a'", r"small\+a@fast", "--model"):
        hits(once, "a red cat", adapter="a")
    assert len(hits(once, "a red cat", model="small+a@fast")) == 4
    assert len(hits(once, "a red cat", model="small@fast", adapter="a")) == 4
    assert choice.to_embed(str(once.archive), "small+a@fast").sampling == "fast"


@pytest.mark.parametrize(
    "how", [("", None, "a"), ("small+a", None, ""), ("KEY", None, ""), ("BASE", None, "a"), ("small", None, "a")]
)
def test_embedding_again_finds_the_same_model_however_it_is_named(once: Made, how: tuple[str, None, str]) -> None:
    wanted = {"KEY": once.key("small+a"), "BASE": str(once.base)}.get(how[0], how[0])
    info = choice.to_embed(str(once.archive), wanted, how[1], how[2])
    assert (info.name, info.model_key, info.adapter) == ("small+a", once.key("small+a"), str(once.run("a")))


def test_two_adapters_in_one_name_are_refused(once: Made) -> None:
    with fails_with(UsageError, r"small\+a", "--adapter 'b' is another"):
        choice.to_embed(str(once.archive), "small+a", None, "b")
    with fails_with(ModelError, "no adapter 'nope'", "Runs with an adapter: a, b"):
        choice.to_embed(str(once.archive), "small+nope")


def test_an_adapter_that_was_not_embedded_with_is_said(once: Made, tmp_path: Path) -> None:
    new = adapter_for(once.base, tmp_path / "new", seed=9)
    with fails_with(StoreError, "no vectors of the adapter 'new'", r"small\+a \(", "raydist embed --adapter"):
        hits(once, "a red cat", adapter=str(new))
    with fails_with(ModelError, "no adapter 'nope'", "a, b"):
        hits(once, "a red cat", adapter="nope")


def test_a_run_that_was_trained_again_is_not_taken_for_the_old_one(own: Made) -> None:
    adapter_for(own.base, own.run("b"), seed=5)
    for how in ({"adapter": "b"}, {"model": "small+b"}):
        with fails_with(StoreError, "trained again", own.key("small+b"), "folder of another name"):
            hits(own, "a red cat", **how)
    for wanted, adapter in (("", "b"), ("small+b", ""), (own.key("small+b"), "")):
        with fails_with(StoreError, "two models", own.key("small+b"), "trained again", "--adapter FOLDER"):
            choice.to_embed(str(own.archive), wanted, None, adapter)
    copied = shutil.copytree(own.run("b"), own.archive.parent / "b2")
    assert choice.to_embed(str(own.archive), "", None, str(copied)).name == "small+b2"


def test_another_adapter_of_the_same_name_is_refused(own: Made, tmp_path: Path) -> None:
    other = adapter_for(own.base, tmp_path / "else" / "b", seed=5)
    with fails_with(StoreError, "two models", own.key("small+b")):
        hits(own, "a red cat", adapter=str(other))


def test_an_adapter_that_is_gone_is_said_and_clips_are_searched_without_it(own: Made) -> None:
    kept = shutil.move(own.run("b"), own.archive.parent / "moved")
    for how in ({"adapter": "b"}, {"model": "small+b"}):
        with fails_with(ModelError, r"small\+b", "folder is gone", "--clip works"):
            hits(own, "a red cat", **how)
    clip = next(iter(embeddings(own.archive, own.key("small+b"))))
    config = configure(own.archive, "", "embed.adapter=b")
    assert len(search.run(config, [Query(clip_id=clip)])) == 3
    with fails_with(ModelError, "has no adapter|no adapter"):
        choice.to_embed(str(own.archive), own.key("small+b"))
    back = own.archive.parent / "b"
    shutil.move(kept, back)
    assert len(hits(own, "a red cat", adapter=str(back))) == 4


def test_an_archive_that_moved_finds_its_runs(own: Made, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "small")
    there = Made(Path(shutil.move(own.archive, tmp_path / "elsewhere")), own.base, own.folder)
    assert {Path(model.adapter) for model in models.stored(str(there.archive)) if model.adapter} == {
        there.run("a"),
        there.run("b"),
    }
    assert len(hits(there, "a red cat", adapter="b")) == 4


def test_training_begins_with_the_base_of_all_the_archives_vectors(once: Made, tmp_path: Path) -> None:
    assert choice.to_train(str(once.archive), "").location == str(once.base)
    assert choice.to_train(str(once.archive), "").adapter == ""
    assert choice.to_train(str(once.archive), "tiny").name == "tiny"
    with fails_with(UsageError, r"small\+a.*has an adapter already", "name the base"):
        choice.to_train(str(once.archive), "small+a")


def test_the_only_vectors_of_an_archive_may_be_an_adapters(tmp_path: Path, once: Made) -> None:
    archive = tmp_path / "archive"
    scanned(archive, once.folder)
    adapter = adapter_for(once.base, archive / "runs" / "mine" / "adapter")
    found = raydist.open(str(archive), ("embed.decoders=1", "scan.clip_seconds=1"))
    assert found.embed(adapter="mine").counts["rows"] == 4
    assert found.embed().counts["clips"] == 0
    assert found.search("a red cat", top=2).num_rows == 2
    assert found.search("a red cat", top=2, adapter="mine").num_rows == 2
    assert choice.to_embed(str(archive), "").adapter == str(adapter)
    out = tmp_path / "out"
    found.export_checkpoint(str(out), adapter="mine")
    assert found.embed(str(out)).counts["rows"] == 4
    by_export, by_adapter = (
        {row["clip_id"]: row["vector"] for row in embeddings(archive, model.model_key).values()}
        for model in sorted(models.stored(str(archive)), key=lambda model: model.name)
    )
    for name, vector in by_adapter.items():
        np.testing.assert_allclose(np.array(by_export[name], np.float32), np.array(vector, np.float32), atol=1e-3)


def test_the_command_line_takes_adapters(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["embed", "--archive", str(once.archive), "--adapter", "a", "--json", "--set", "embed.decoders=1"])
    assert json.loads(capsys.readouterr().out)["counts"]["clips"] == 0
    cli.main(["search", "a red cat", "--archive", str(once.archive), "--adapter", "b", "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    with pytest.raises(SystemExit, match="1"):
        cli.main(["embed", "--archive", str(once.archive), "--adapter", "nope"])
    assert "Runs with an adapter: a, b" in " ".join(capsys.readouterr().err.split())
