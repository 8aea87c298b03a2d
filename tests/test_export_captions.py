"""export captions: pairs and shards of WebDataset that hold what the archive holds, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import configure, fails_with, rows, scanned, videos
from PIL import Image

import raydist
from raydist import caption, cli, export, scan
from raydist.config import Config
from raydist.errors import ArchiveError, StoreError, UsageError
from raydist.rendering import too_many_failed
from raydist.store import commit, schema

PAIR = [
    *("clip_id", "clip_key", "video_id", "path", "start_s", "end_s", "split"),
    *("number", "caption", "origin", "prompt_hash", "cut", "fingerprint"),
]


@dataclass(frozen=True)
class Made:
    """An archive of three videos of three clips each; seven of the clips have captions, one has two."""

    archive: Path
    folder: Path

    def captions(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for row in sorted(rows(self.archive, "captions"), key=lambda row: (row["origin"], row["number"])):
            found[row["clip_id"]].append(row["caption"])
        return dict(found)

    def config(self, *changes: str) -> Config:
        return configure(self.archive, "", "caption.frame_px=64", *changes)


def bring(archive: Path, folder: Path, text: str) -> None:
    file = folder / "captions.csv"
    file.write_text(text, encoding="utf-8")
    caption.run(configure(archive), caption.Request(file=str(file)))


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("pairs")
    folder = videos(top / "v", 3)
    scanned(top / "archive", folder)
    lines = [f"v{number:03}.mp4,{second},a thing {number} at {second}" for number in range(3) for second in range(3)]
    text = "\n".join(["path,start,caption", *lines[:7], "v000.mp4,0,\u201cune autre chose\u201d \u2014 caf\u00e9"])
    bring(top / "archive", top, text + "\n")
    return Made(top / "archive", folder)


def members(folder: Path) -> dict[str, dict[str, bytes]]:
    """Sample -> what follows its name's first dot -> content, of all shards."""
    found: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.iterdir()):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                data = tar.extractfile(member)
                assert data is not None
                assert kind not in found.setdefault(key, {})
                found[key][kind] = data.read()
    return found


def test_parquet_holds_a_row_a_caption(once: Made, tmp_path: Path) -> None:
    report = export.captions(once.config(), str(tmp_path / "out.parquet"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == PAIR
    assert (report.counts["clips"], report.counts["captions"], table.num_rows) == (7, 8, 8)
    clips = {row["clip_id"]: row for row in rows(once.archive, "clips")}
    found = defaultdict(list)
    for row in table.to_pylist():
        found[row["clip_id"]].append(row["caption"])
        assert all(row[name] == clips[row["clip_id"]][name] for name in ("clip_key", "start_s", "split", "fingerprint"))
        assert Path(row["path"]).is_file()
        assert (row["origin"], row["prompt_hash"], row["cut"]) == ("sidecar", "", False)
    assert dict(found) == once.captions()


def test_jsonl_holds_the_same_and_comes_back_as_it_went(once: Made, tmp_path: Path) -> None:
    raydist.open(str(once.archive)).export_captions(str(tmp_path / "out.jsonl"))
    export.captions(once.config(), str(tmp_path / "out.parquet"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert "caf\u00e9" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    scanned(tmp_path / "archive", once.folder)
    caption.run(configure(tmp_path / "archive"), caption.Request(file=str(tmp_path / "out.jsonl")))
    assert Made(tmp_path / "archive", once.folder).captions() == once.captions()


def test_shards_hold_the_clips_and_come_back_as_they_went(once: Made, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    report = export.captions(once.config(), str(out), shard_clips=3)
    assert sorted(file.name for file in out.iterdir()) == ["000000.tar", "000001.tar", "000002.tar"]
    assert report.counts == {
        "clips": 7,
        "captions": 8,
        "shards": 3,
        "bytes": sum(file.stat().st_size for file in out.iterdir()),
        "left_out": 0,
    }
    samples = members(out)
    clips = {row["clip_id"]: row for row in rows(once.archive, "clips")}
    assert min(row["clip_key"] for row in clips.values()) < 0  # keys are hashes: half of them are
    found = {}
    for key, sample in samples.items():
        about = json.loads(sample["json"])
        clip = clips[about["clip_id"]]
        assert sorted(sample) == ["json", "mp4", "txt"]
        assert key == f"{clip['clip_key'] % 2**64:016x}"
        assert all(about[name] == clip[name] for name in ("video_id", "start_s", "end_s", "split", "fingerprint"))
        assert about["duration_s"] == 1
        found[about["clip_id"]] = [each["caption"] for each in about["captions"]]
        assert sample["txt"].decode() == found[about["clip_id"]][0]
        assert [each["number"] for each in about["captions"]] == list(range(len(about["captions"])))
        with av.open(io.BytesIO(sample["mp4"])) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == 10
        assert max(frames[0].width, frames[0].height) == 64
    assert found == once.captions()
    scanned(tmp_path / "archive", once.folder)
    caption.run(configure(tmp_path / "archive"), caption.Request(file=str(out)))
    assert Made(tmp_path / "archive", once.folder).captions() == once.captions()


def test_shards_load_with_webdataset(once: Made, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    export.captions(once.config(), str(tmp_path / "shards"), shard_clips=4, media="frames")
    shards = sorted(str(file) for file in (tmp_path / "shards").iterdir())
    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
    samples = list(dataset)
    assert len(samples) == 7
    for sample in samples:
        assert sample["txt"] in once.captions()[sample["json"]["clip_id"]]
        pictures = [sample[f"{number}.jpg"] for number in range(8)]
        assert {picture.size for picture in pictures} == {(64, 43)}
        assert all(isinstance(picture, Image.Image) for picture in pictures)


def test_captions_alone_need_no_video(once: Made, tmp_path: Path) -> None:
    report = export.captions(once.config("roots.v=/nowhere"), str(tmp_path / "shards"), media="none")
    samples = members(tmp_path / "shards")
    assert {tuple(sorted(sample)) for sample in samples.values()} == {("json", "txt")}
    assert report.counts["clips"] == len(samples) == 7


def test_only_what_is_asked_for_is_written(once: Made, tmp_path: Path) -> None:
    where = "start_s >= 1 AND codec = 'h264'"
    export.captions(once.config(), str(tmp_path / "a.PARQUET"), where=where)
    assert set(pq.read_table(tmp_path / "a.PARQUET")["start_s"].to_pylist()) == {1.0, 2.0}
    splits = {row["split"] for row in rows(once.archive, "clips")}
    counts = [
        export.captions(once.config(), str(tmp_path / f"{split}.parquet"), split=split).counts["captions"]
        for split in sorted(splits)
    ]
    assert sum(counts) == 8
    report = export.captions(once.config(), str(tmp_path / "none"), where="start_s > 100")
    assert report.counts["clips"] == 0
    assert any("--where" in note for note in report.notes)
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"split": "trian"}, UsageError, ("trian", "train, val, test")),
        ({"media": "mp4"}, UsageError, ("mp4", "clip, frames, none")),
        ({"origin": "gemini"}, UsageError, ("gemini", "sidecar")),
        ({"where": "speed > 3"}, StoreError, ("speed", "start_s")),
        ({"where": "start_s > 1) OR (1 = 1"}, StoreError, (r"\)",)),
        ({"shard_clips": 0}, UsageError, ("--shard-clips 0",)),
    ],
)
def test_what_is_none_is_refused_and_leaves_nothing(
    once: Made, tmp_path: Path, given: dict[str, Any], error: type[Exception], words: tuple[str, ...]
) -> None:
    with fails_with(error, *words):
        export.captions(once.config(), str(tmp_path / "out"), **given)
    assert not list(tmp_path.iterdir())


def test_nothing_that_is_there_is_overwritten(once: Made, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "out.jsonl").write_text("mine")
    for name, words in (("full", "not empty"), ("out.jsonl", "there already"), ("full/mine", "is a file")):
        with fails_with(UsageError, words):
            export.captions(once.config(), str(tmp_path / name))
    with fails_with(UsageError, "does not exist"):
        export.captions(once.config(), str(tmp_path / "no" / "out.parquet"))
    with fails_with(UsageError, "pairs.csv", ".parquet or .jsonl"):
        export.captions(once.config(), str(tmp_path / "pairs.csv"))
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "out.jsonl").read_text() == "mine"


def test_stale_captions_and_other_origins_are_left_out(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    changed = rows(archive, "captions")[0]
    new = {**changed, "caption": "what a model said", "origin": "a-model", "prompt_hash": "0" * 16, "cut": True}
    commit.delete(str(archive), "captions", f"clip_key = {changed['clip_key']}")
    stale = {**changed, "fingerprint": "of an earlier file"}
    table = pa.Table.from_pylist([stale, new], schema.CAPTIONS)
    commit.append(str(archive), "captions", table, schema.CAPTIONS)
    made = Made(archive, once.folder)
    report = export.captions(made.config(), str(tmp_path / "all.parquet"))
    texts = {row["clip_id"]: row for row in pq.read_table(tmp_path / "all.parquet").to_pylist()}
    assert texts[changed["clip_id"]]["caption"] == "what a model said"
    assert texts[changed["clip_id"]]["cut"] is True
    assert any("--keep" in note and note.startswith("1 ") for note in report.notes)
    export.captions(made.config(), str(tmp_path / "one.parquet"), origin="a-model")
    assert pq.read_table(tmp_path / "one.parquet")["caption"].to_pylist() == ["what a model said"]


def test_clips_that_cannot_be_cut_are_left_out_and_counted(once: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(once.folder, tmp_path / "v")
    (folder / "v000.mp4").unlink()
    (folder / "v001.mp4").write_bytes(b"no video")
    report = export.captions(once.config(f"roots.v={folder}"), str(tmp_path / "shards"))
    assert report.failures == {"missing": 3, "changed": 3}
    assert (report.counts["clips"], report.counts["left_out"]) == (1, 6)
    assert (too_many_failed(report, 0.8), too_many_failed(report, 0.9)) == (True, False)
    assert len(members(tmp_path / "shards")) == 1


def test_an_archive_without_captions_says_what_to_do(once: Made, tmp_path: Path) -> None:
    scanned(tmp_path / "bare", once.folder)
    with fails_with(ArchiveError, "raydist caption"):
        export.captions(configure(tmp_path / "bare"), str(tmp_path / "out.parquet"))


@pytest.mark.parametrize(("out", "limit"), [("shards", 1 << 16), ("out.jsonl", 1 << 16), ("out.parquet", 1 << 10)])
def test_a_full_disk_is_an_error_that_leaves_nothing(once: Made, tmp_path: Path, out: str, limit: int) -> None:
    archive, place = shutil.copytree(once.archive, tmp_path / "archive"), tmp_path / "disk"
    bring(archive, tmp_path, "path,start,caption\nv000.mp4,0," + "word " * 20_000 + "\n")
    place.mkdir()
    words = ["export", "captions", "--archive", str(archive), "--out", str(place / out)]
    words += ["--media", "none"] * (out == "shards")
    code = f"""
import resource, sys
from raydist import cli
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
cli.main(sys.argv[1:])
"""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "nothing is left of it" in done.stderr
    assert not list(place.iterdir())


def test_the_command_line_reports_and_leaves_a_record_that_forget_knows(
    once: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    words = ["export", "captions", "--archive", str(once.archive), "--out", str(out), "--origin", "sidecar", "--json"]
    cli.main(words)
    line = json.loads(capsys.readouterr().out)
    assert (line["clips"], line["captions"], line["bytes"]) == (7, 8, out.stat().st_size)
    records = [json.loads(file.read_text()) for file in once.archive.glob("runs/export-*/report.json")]
    assert [record["details"]["origin"] for record in records if record["details"]["file"] == str(out)] == ["sidecar"]


def test_options_of_shards_are_refused_for_a_file_of_pairs(
    once: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (["--media", "frames"], ["--shard-clips", "5"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["export", "captions", "--archive", str(once.archive), "--out", str(tmp_path / "a.jsonl"), *more])
        assert ended.value.code == 2
        assert "are of shards" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_captions_of_real_videos_go_out_and_come_back(shared: Path, tmp_path: Path, cluster: None) -> None:
    manifest = shared / "realvideo" / "manifest.csv"
    if not manifest.is_file():
        pytest.skip("no real video files beside the checkout")
    with manifest.open(newline="", encoding="utf-8") as file:
        wanted = {row["file"]: row["caption"].strip() for row in csv.DictReader(file) if row["caption"].strip()}
    changes = ("scan.clip_seconds=30", "scan.min_clip_seconds=0", "caption.frame_px=96")
    folder = shared / "realvideo" / "files"

    def archive(name: str, listed: Path) -> dict[str, str]:
        config = configure(tmp_path / name, "", *changes)
        scan.run(config, scan.Request(inputs=(str(folder),)))
        caption.run(config, caption.Request(file=str(listed)))
        return {row["clip_id"]: row["caption"] for row in rows(tmp_path / name, "captions")}

    first = archive("first", manifest)
    assert len(first) == len(wanted) == 60
    assert {clip.partition("#")[0]: text for clip, text in first.items()} == wanted
    config = configure(tmp_path / "first", "", *changes)
    report = export.captions(config, str(tmp_path / "shards"), shard_clips=25)
    assert report.counts["clips"] == 60
    assert report.failures == {}
    for sample in members(tmp_path / "shards").values():
        with av.open(io.BytesIO(sample["mp4"])) as container:
            assert next(container.decode(video=0), None) is not None
    for name in ("pairs.jsonl", "pairs.parquet"):
        export.captions(config, str(tmp_path / name))
        assert archive(f"of {name}", tmp_path / name) == first
    assert archive("of shards", tmp_path / "shards") == first
