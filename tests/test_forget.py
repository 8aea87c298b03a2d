"""forget: a video leaves everything, bytes and all, and does not come back."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import configure, encode, fails_with, made, rows, scanned, videos, write_viclip
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from raydist import caption, cli, export, forget, index, metrics, rendering, scan, search, sheets
from raydist.caption import answers
from raydist.caption.tables import ANSWERED
from raydist.clips import naming
from raydist.clips.naming import clip_key
from raydist.config import Config
from raydist.errors import StoreError, UsageError
from raydist.forget import runs
from raydist.records import Report
from raydist.search import Query
from raydist.store import commit, erase, fulltext, lease, read, schema
from raydist.store import index as vector_index
from raydist.train.tensorboard import Board, Retrieved

SECRET = "v/v001.mp4"
WORDS = "the zebra of our neighbour"


@dataclass(frozen=True)
class Made:
    """An archive with captions, vectors, a cut-off and a full-text index."""

    archive: Path
    folder: Path
    model: Path

    @property
    def config(self) -> Config:
        return configure(self.archive, self.model)


@pytest.fixture(scope="module")
def template(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("forget")
    folder, model = videos(top / "v", 4), write_viclip(top / "small")
    scanned(top / "archive", folder)
    made(top / "archive", model)
    lines = [
        f"v/v00{number}.mp4,{second},{second + 1},film {number} at {second}"
        for number in (0, 2, 3)
        for second in range(3)
    ]
    lines += [f"{SECRET},{second},{second + 1},{WORDS}" for second in range(3)]
    (top / "captions.csv").write_text("\n".join(["path,start,end,caption", *lines]) + "\n")
    caption.run(configure(top / "archive", model), caption.Request(file=str(top / "captions.csv")))
    fulltext.refresh(str(top / "archive"))
    return Made(top / "archive", folder, model)


@pytest.fixture
def once(template: Made, tmp_path: Path) -> Made:
    return Made(shutil.copytree(template.archive, tmp_path / "archive"), template.folder, template.model)


def forgotten(config: Config, *names: str) -> Report:
    return forget.run(config, forget.plan(config, names))


def traces_of(archive: Path, video: str, vectors: list[bytes] = []) -> set[str]:  # noqa: B006  # never written to
    """Files that hold the video's name, a clip's key or one of the vectors."""
    names = [video.encode(), WORDS.encode(), *vectors]
    names += [np.int64(clip_key(f"{video}#t={second},{second + 1}")).tobytes() for second in range(3)]
    found = set()
    for file in archive.rglob("*"):
        if file.is_file() and any(name in file.read_bytes() for name in names):
            found.add(str(file.relative_to(archive)))
    return found


def vectors_of(archive: Path, video: str) -> list[bytes]:
    (key,) = read.model_keys(str(archive))
    found = [row["vector"] for row in rows(archive, f"embeddings_{key}") if row["video_id"] == video]
    assert found
    return [np.array(vector, np.float16).tobytes() for vector in found]


def test_no_byte_of_the_video_is_left_in_the_archive(once: Made) -> None:
    vectors = vectors_of(once.archive, SECRET)
    # Rows that an earlier scan or a new vector left behind in old versions are bytes too.
    commit.delete(str(once.archive), "signatures", f"clip_key = {clip_key(f'{SECRET}#t=1,2')}")
    before = traces_of(once.archive, SECRET, vectors)
    assert {name.partition(".lance")[0] for name in before} >= {"videos", "clips", "captions", "signatures"}
    result = forgotten(once.config, SECRET)
    assert traces_of(once.archive, SECRET, vectors) == set()
    assert result.counts["videos"] == 1
    assert result.counts["clips"] == 3
    assert SECRET not in json.dumps(rendering.as_json(result))


def test_answers_that_wait_for_a_commit_go_too_even_of_clips_that_vanished(once: Made) -> None:
    clips = [f"{SECRET}#t=0,1", f"{SECRET}#t=100,101", "v/v000.mp4#t=0,1"]
    for clip in clips:
        row = dict.fromkeys(ANSWERED.names) | {"video_id": clip.partition("#")[0], "captions": [WORDS]}
        answers.keep(str(once.archive), {**row, "clip_id": clip, "clip_key": clip_key(clip)})
    (once.archive / answers.FOLDER / ".0.json.killed").write_text(WORDS)
    forgotten(once.config, SECRET)
    assert traces_of(once.archive, SECRET) == {answers.name_of(clip_key(clips[2]))}  # which has the words, too
    assert [row["clip_id"] for row in answers.all_kept(str(once.archive))] == clips[2:]


def test_the_other_videos_stay_as_they_were(once: Made) -> None:
    tables = [name for name in read.table_names(str(once.archive)) if name != "forgotten"]
    before = {name: rows(once.archive, name) for name in tables}
    forgotten(once.config, SECRET)
    keys = {clip_key(f"{SECRET}#t={second},{second + 1}") for second in range(3)}
    for name in tables:
        kept = [row for row in before[name] if row.get("video_id") != SECRET and row.get("clip_key") not in keys]
        assert rows(once.archive, name) == kept, name
    hits = search.run(configure(once.archive, "", "search.top=20", "search.moment_s=0"), [Query(words="a film")])
    assert hits.num_rows == 9
    assert SECRET not in hits["video_id"].to_pylist()


def test_full_text_search_works_again_and_finds_nothing_of_it(once: Made) -> None:
    config = configure(once.archive, "", "search.hybrid=true", "search.min_score=0.999")
    assert search.run(config, [Query(words="zebra")]).num_rows
    forgotten(once.config, SECRET)
    assert search.run(config, [Query(words="zebra")]).num_rows == 0
    assert search.run(config, [Query(words="film")]).num_rows


def test_the_index_is_built_anew_without_it(once: Made) -> None:
    vectors = vectors_of(once.archive, SECRET)
    (key,) = read.model_keys(str(once.archive))
    index.run(once.config, rebuild=True)
    assert [name for name in traces_of(once.archive, SECRET, vectors) if "_indices" in name]
    forgotten(once.config, SECRET)
    assert traces_of(once.archive, SECRET, vectors) == set()
    built = vector_index.find(read.need_table(str(once.archive), f"embeddings_{key}"))
    assert built is not None
    assert built.rows == 9


def test_scan_leaves_it_alone_under_any_name(once: Made, tmp_path: Path) -> None:
    forgotten(once.config, SECRET)
    found = scan.run(configure(once.archive), scan.Request(inputs=(str(once.folder),)))
    assert found.counts["clips"] == 0
    assert found.counts["skipped"] == 1
    assert any("raydist forget" in note for note in found.notes)
    (tmp_path / "other").mkdir()
    shutil.copy(once.folder / "v001.mp4", tmp_path / "other" / "renamed.mp4")
    videos(tmp_path / "other", 1, first=7)
    found = scan.run(configure(once.archive), scan.Request(inputs=(str(tmp_path / "other"),)))
    assert found.counts["skipped"] == 1
    names = {row["video_id"] for row in rows(once.archive, "videos")}
    assert "other/v007.mp4" in names
    assert not any("renamed" in name or name == SECRET for name in names)
    assert traces_of(once.archive, "other/renamed.mp4") == set()


def test_another_content_under_its_name_stays_out_too(once: Made, tmp_path: Path) -> None:
    forgotten(once.config, SECRET)
    folder = shutil.copytree(once.folder, tmp_path / "v")
    encode(folder / "v001.mp4", count=20, rate=10, seed=99)
    config = configure(once.archive, "", f"roots.v={folder}")
    assert scan.run(config, scan.Request(inputs=(str(folder),))).counts["clips"] == 0


def test_a_copy_of_its_bytes_goes_with_it(once: Made, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    shutil.copy(once.folder / "v001.mp4", tmp_path / "more" / "twin.mp4")
    scanned(once.archive, tmp_path / "more")
    plan = forget.plan(once.config, [SECRET])
    assert plan.beside == ("more/twin.mp4",)
    assert "more/twin.mp4" in forget.render(plan)
    forget.run(once.config, plan)
    assert {row["video_id"] for row in rows(once.archive, "videos")} == {f"v/v00{number}.mp4" for number in (0, 2, 3)}


def test_a_file_whose_name_begins_like_its_clips_stays(once: Made, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    name = "v001.mp4#t=0,1.mp4"
    encode(tmp_path / "more" / name, count=20, rate=10, seed=50)
    encode(tmp_path / "more" / "v001.mp4", count=20, rate=10, seed=51)
    scanned(once.archive, tmp_path / "more")
    forgotten(once.config, "more/v001.mp4")
    clips = [row["clip_id"] for row in rows(once.archive, "clips") if row["video_id"].startswith("more/")]
    assert sorted(clips) == [f"more/{name}#t=0,1", f"more/{name}#t=1,2"]


def test_pieces_cut_from_it_go_with_it_and_stay_out(tmp_path: Path, cluster: None) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    encode(folder / "talk.mp4", count=40, rate=10, seed=1)
    for part in range(2):
        encode(folder / f"talk_{part}.mp4", count=15, rate=10, seed=10 + part)
    encode(folder / "other_0.mp4", count=10, rate=10, seed=30)
    config = configure(tmp_path / "archive", "", "scan.naming={video}_{index}", "scan.clip_seconds=2")
    scan.run(config, scan.Request(inputs=(str(folder),)))
    plan = forget.plan(config, ["talk.mp4"])
    assert plan.asked == ("v/talk.mp4",)
    assert plan.beside == ("v/talk_0.mp4", "v/talk_1.mp4")
    forget.run(config, plan)
    encode(folder / "talk_5.mp4", count=12, rate=10, seed=20)
    found = scan.run(config, scan.Request(inputs=(str(folder),)))
    assert found.counts["skipped"] == 4
    assert {row["video_id"] for row in rows(tmp_path / "archive", "videos")} == {"v/other_0.mp4"}


@pytest.fixture
def tables(once: Made) -> Made:
    """With what dedup writes."""
    location, (key,) = str(once.archive), read.model_keys(str(once.archive))
    clips = {row["clip_id"]: row for row in rows(once.archive, "clips")}
    a, b, c = (clips[f"v/v00{number}.mp4#t=0,1"] for number in (0, 1, 2))

    def pair(one: dict[str, Any], other: dict[str, Any], archive: str = "") -> dict[str, Any]:
        sides = {"a": one, "b": other}
        found: dict[str, Any] = {side: row["clip_key"] for side, row in sides.items()}
        for side, row in sides.items():
            found |= {f"{side}_id": row["clip_id"], f"{side}_fingerprint": row["fingerprint"]}
            found[f"{side}_video"] = row["video_id"]
        return {**found, "archive_b": archive}

    def add(table: str, columns: pa.Schema, found: list[dict[str, Any]]) -> None:
        whole = [{name: row.get(name) for name in columns.names} for row in found]
        commit.append(location, table, pa.Table.from_pylist(whole, schema=columns), columns)

    add(f"duplicates_{key}", schema.PAIRS, [pair(a, b), pair(a, c), pair(a, b, "/elsewhere"), pair(b, c)])
    grouped = [(a, 1, a), (b, 1, a), (c, 2, c), (clips["v/v003.mp4#t=0,1"], 2, c)]
    add(
        f"groups_{key}",
        schema.GROUPED,
        [
            {**{name: row[name] for name in ("clip_key", "clip_id", "fingerprint", "video_id")}}
            | {"group": group, "kept_by": kept["clip_key"], "keep": row is kept, "archive_b": ""}
            for row, group, kept in grouped
        ],
    )
    add(f"overlaps_{key}", schema.VIDEO_OVERLAPS, [
        {"a_video": "v/v000.mp4", "b_video": SECRET, "archive_b": ""},
        {"a_video": "v/v000.mp4", "b_video": "v/v002.mp4", "archive_b": ""},
    ])  # fmt: skip
    add("decisions", schema.DECISIONS, [
        {"a": "v/v000.mp4#t=0,1", "b": f"{SECRET}#t=0,1", "verdict": "different", "archive_b": ""},
        {"clip": SECRET, "keep": True},
        {"a": "v/v000.mp4", "b": "v/v002.mp4", "verdict": "duplicate", "archive_b": ""},
    ])  # fmt: skip
    return once


def test_what_dedup_knew_of_it_goes_and_the_rest_stays(tables: Made) -> None:
    (key,) = read.model_keys(str(tables.archive))
    forgotten(tables.config, SECRET)
    pairs = [(row["a_video"], row["b_video"], row["archive_b"]) for row in rows(tables.archive, f"duplicates_{key}")]
    # A clip of another archive may bear the same name: that pair is not about the forgotten video.
    assert sorted(pairs) == [("v/v000.mp4", SECRET, "/elsewhere"), ("v/v000.mp4", "v/v002.mp4", "")]
    assert {row["group"] for row in rows(tables.archive, f"groups_{key}")} == {2}
    assert [row["b_video"] for row in rows(tables.archive, f"overlaps_{key}")] == ["v/v002.mp4"]
    assert [row["verdict"] for row in rows(tables.archive, "decisions")] == ["duplicate"]


def a_run(archive: Path, name: str, trained: list[str], watched: list[str]) -> Path:
    """What a training run leaves, with pictures in its TensorBoard."""
    folder = archive / "runs" / name
    folder.mkdir(parents=True)
    clips = {row["video_id"]: row for row in rows(archive, "clips")}
    for file, names in (("trained", trained), ("watched", watched)):
        table = pa.Table.from_pylist([clips[video] for video in names], schema=schema.CLIPS)
        pq.write_table(table, folder / f"{file}.parquet")
    board = Board(folder / "tensorboard")
    board.step(1, loss=2.0, learning_rate=1e-4, temperature=0.1, samples_per_s=1, data_wait=0, gradient_norm=1)
    strips = [np.zeros((8, 16, 16, 3), np.uint8)]
    board.confirmation(1, [Retrieved(caption=WORDS, strips=strips, right=[True], scores=[0.5], rank=1)])
    scores = metrics.Retrieval(queries=2, r1=50.0, r5=100.0, r10=100.0, median_rank=1.0)
    board.evaluation(1, loss=1.5, text_to_video=scores, video_to_text=scores)
    board.close()
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def tags_of(folder: Path) -> set[str]:
    (file,) = folder.glob("events.out.tfevents.*")
    return {value.tag for event in EventFileLoader(str(file)).Load() for value in event.summary.value}


def test_what_runs_kept_of_it_goes_and_their_adapters_are_named(once: Made) -> None:
    shown = a_run(once.archive, "shown", ["v/v000.mp4"], [SECRET, "v/v002.mp4"])
    learnt = a_run(once.archive, "learnt", [SECRET, "v/v003.mp4"], ["v/v000.mp4"])
    page = once.archive / "runs" / "eval-1"
    page.mkdir()
    (page / "report.html").write_text(f"<p>a page with {WORDS}</p>")
    sheets_of = {name: once.archive / f"{name}.png" for name in ("secret", "other")}
    for name, clip in (("secret", f"{SECRET}#t=0,1"), ("other", "v/v000.mp4#t=0,1")):
        hit = sheets.Hit(clip_id=clip, score=0.5, start_s=0, end_s=1)
        sheets_of[name].write_bytes(sheets.picture_sheet("hits", [sheets.Row(query="a film", hits=[hit])]))
    (page / "queries.csv").write_text(f'query,right\n"{WORDS}","{SECRET}#t=0,1"\nfilm,"v/v000.mp4#t=0,1"\n')
    worse = [{"query": "film", "right": ["v/v000.mp4#t=0,1"]}, {"query": WORDS, "right": [f"{SECRET}#t=0,1"]}]
    document = {"details": {"got_worse": worse, "unread": [f"{SECRET}#t=0,1"], "path": str(once.folder / "v001.mp4")}}
    (page / "report.json").write_text(json.dumps(document))
    result = forgotten(once.config, SECRET)
    assert not (page / "report.html").exists()
    assert [name for name, file in sheets_of.items() if file.exists()] == ["other"]
    assert (page / "queries.csv").read_text().splitlines() == [
        "query,right",
        '"film","v/v000.mp4#t=0,1"'.replace('"film"', "film"),
    ]
    details = json.loads((page / "report.json").read_text())["details"]
    assert details == {"got_worse": worse[:1], "unread": [], "path": "(forgotten)"}
    assert pq.read_table(shown / "watched.parquet")["video_id"].to_pylist() == ["v/v002.mp4"]
    assert pq.read_table(learnt / "trained.parquet")["video_id"].to_pylist() == ["v/v003.mp4"]
    assert "loss/train" in tags_of(shown / "tensorboard")
    assert "confirmation/retrieved" not in tags_of(shown / "tensorboard")
    assert not any(tag.startswith("confirmation/captions") for tag in tags_of(shown / "tensorboard"))
    assert "confirmation/retrieved" in tags_of(learnt / "tensorboard")
    assert result.details["adapters"] == ["learnt"]
    assert (learnt / "adapter" / "adapter_model.safetensors").exists()
    assert {name for name in traces_of(once.archive, SECRET) if "learnt/tensorboard" not in name} == set()


def test_exports_that_are_out_of_reach_are_named(once: Made, tmp_path: Path) -> None:
    export.embeddings(once.config, str(tmp_path / "vectors.parquet"))
    plan = forget.plan(once.config, [SECRET])
    assert plan.exports == (str(tmp_path / "vectors.parquet"),)
    assert str(tmp_path / "vectors.parquet") in forget.render(plan)
    export.embeddings(once.config, str(tmp_path / "vectors.npy"))
    names = {str(tmp_path / "vectors.npy"), str(tmp_path / "vectors.csv")}
    assert names < {*forget.plan(once.config, [SECRET]).exports}


@pytest.mark.parametrize("place", ["vectors.parquet", "runs/vectors.npy"])
def test_exports_into_the_archive_itself_are_named_too(once: Made, place: str) -> None:
    export.embeddings(once.config, str(once.archive / place))
    assert str(once.archive / place) in forget.plan(once.config, [SECRET]).exports


@pytest.mark.parametrize("written", ["v001.mp4", "./v001.mp4", SECRET])
def test_a_line_of_a_list_that_a_report_shows_goes(once: Made, tmp_path: Path, written: str) -> None:
    lines = ["path,start,end,caption", "v/v000.mp4,0,1,a film", f"{written},,,it says not when"]
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n")
    result = caption.run(once.config, caption.Request(file=str(tmp_path / "captions.csv")))
    assert "v001.mp4" in str(result.notes)
    forgotten(once.config, SECRET)
    assert "v001.mp4" not in (once.archive / "runs" / result.run / "report.json").read_text()


@pytest.mark.parametrize(
    "name", ["50 % off.mp4", 'say "hi".mp4', "o'neil.mp4", "a\\b.mp4", "äöü.mp4", 'it\'s "it".mp4']
)
def test_a_name_is_known_however_it_is_written(name: str) -> None:
    video = f"v/{naming.encode_path(name.encode())}"
    traces = runs.Traces(erase.Target(video_ids=[video], clip_ids=[], keys=[]))
    forms = [
        name,
        video,
        f"v/{name}",
        repr(name),
        json.dumps(f"{video!r} fails"),
        json.dumps(f"v/{name}"),
        quote(video),
    ]
    assert [form for form in forms if not traces.are_in(f"such as {form}, and more")] == []
    assert not traces.are_in(f"w/{name} x{name} {name}.txt")


@pytest.mark.parametrize("by", ["id", "end", "stem", "path"])
def test_forgetting_again_finishes_what_was_cut_short(once: Made, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    plan = forget.plan(once.config, [SECRET])

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erase, "scour", dies)
        with pytest.raises(KeyboardInterrupt):
            forget.run(once.config, plan)
    assert traces_of(once.archive, SECRET)
    name = {"id": SECRET, "end": "v001.mp4", "stem": "v001", "path": str(once.folder / "v001.mp4")}[by]
    assert forgotten(once.config, name).counts["clips"] == 0
    assert traces_of(once.archive, SECRET) == set()
    with pytest.raises(UsageError, match="no video of the archive"):
        forget.plan(once.config, ["w/v001.mp4"])


def test_what_a_killed_dedup_left_goes_too(tmp_path: Path) -> None:
    left = tmp_path / "runs" / "dedup-1" / "join" / "shards" / "a-0"
    left.mkdir(parents=True)
    (left / "raw.npy").write_bytes(b"vectors")
    (tmp_path / "runs" / "dedup-2").mkdir()
    (tmp_path / "runs" / "dedup-2" / "notes.txt").write_text("stays")
    traces = runs.Traces(erase.Target(video_ids=["a.mp4"], clip_ids=[], keys=[]))
    runs.redact(str(tmp_path), traces)
    assert sorted(path.name for path in (tmp_path / "runs").rglob("*")) == ["dedup-2", "notes.txt"]


def test_old_versions_go_also_where_the_writers_clock_was_ahead(tmp_path: Path) -> None:
    columns = pa.schema([("video_id", pa.string())])
    for name in "ab":
        commit.append(str(tmp_path), "videos", pa.table({"video_id": [name]}, columns), columns)
    commit.delete(str(tmp_path), "videos", "video_id = 'a'")
    table = tmp_path / "videos.lance"
    ahead = time.time() + 3600
    (table / "data" / "stray.lance").write_bytes(b"of a writer that was killed")
    os.utime(table / "data" / "stray.lance", (ahead, ahead))
    erase.scour(str(tmp_path), "videos")
    dataset = lance.dataset(str(table))
    assert len(dataset.versions()) == 1
    assert dataset.to_table()["video_id"].to_pylist() == ["b"]
    assert not (table / "data" / "stray.lance").exists()


def test_old_versions_that_stay_are_told(tmp_path: Path) -> None:
    columns = pa.schema([("video_id", pa.string())])
    commit.append(str(tmp_path), "videos", pa.table({"video_id": ["a"]}, columns), columns)
    dataset = lance.dataset(str(tmp_path / "videos.lance"))
    dataset.tags.create("mine", dataset.version)
    commit.delete(str(tmp_path), "videos", "video_id = 'a'")
    with pytest.raises(StoreError, match=r"old versions of table 'videos'.*tags"):
        erase.scour(str(tmp_path), "videos")


def test_it_does_not_begin_while_others_work_on_the_archive(once: Made) -> None:
    plan = forget.plan(once.config, [SECRET])
    with lease.Lease(str(once.archive), "embed"), fails_with(StoreError, "raydist embed", "wait for it"):
        forget.run(once.config, plan)
    assert traces_of(once.archive, SECRET)
    assert not read.count_rows(str(once.archive), "forgotten")


def test_the_command_line_asks_first(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["forget", str(once.folder / "v001.mp4"), "--archive", str(once.archive)]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    talk = capsys.readouterr().err
    assert "--yes" in talk
    assert SECRET in talk
    assert "3 clips" in talk
    assert traces_of(once.archive, SECRET)
    cli.main([*words, "--yes", "--json"])
    assert json.loads(capsys.readouterr().out)["clips"] == 3
    assert traces_of(once.archive, SECRET) == set()


def test_a_name_that_is_none_is_told(once: Made) -> None:
    with fails_with(UsageError, "v/v0O1.mp4", "did you mean"):
        forget.plan(once.config, ["v/v0O1.mp4"])
    with pytest.raises(UsageError, match="nothing to forget"):
        forget.plan(once.config, [])
