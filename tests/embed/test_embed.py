"""Embedding real archives with real Ray: every clip comes out as a row or a failure, once, whatever happens between."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from archives import (
    as_stored,
    configure,
    embeddings,
    encode,
    fails_with,
    made,
    rows,
    scanned,
    videos,
    write_viclip,
)
from hypothesis import given
from hypothesis import strategies as st
from test_workers import broken

import raydist
from raydist import choice, cli, embed, load_encoder, runtime, search, status
from raydist.clips.decode import decode_clip
from raydist.embed.graph import BATCH_CPU
from raydist.errors import ArchiveError, ModelError, ResourceError, StoreError, UsageError
from raydist.models.registry import describe
from raydist.records import Report
from raydist.store import commit, read, schema

pytestmark = pytest.mark.usefixtures("cluster")


@dataclass(frozen=True)
class Made:
    """An archive that was embedded once."""

    folder: Path
    archive: Path
    model: Path
    report: Report


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_viclip(tmp_path_factory.mktemp("models") / "small")


def spoil(path: Path) -> None:
    """Overwrite the pictures of a file; its index stays whole."""
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") if data.index(b"moov") > begin else len(data)
    data[begin : end - 4] = bytes(end - 4 - begin)
    path.write_bytes(bytes(data))


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory, model: Path) -> Made:
    """Eight good files of three clips, a slow one, and two that fail."""
    top = tmp_path_factory.mktemp("once")
    folder = videos(top / "v", 8)
    encode(folder / "slow.mp4", count=5, rate=5, seed=50)
    videos(folder, 1, first=90)
    scanned(top / "archive", folder)
    spoiled = folder / "v090.mp4"
    stamp = spoiled.stat()
    spoil(spoiled)
    os.utime(spoiled, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return Made(folder, top / "archive", model, made(top / "archive", model))


def books(archive: Path) -> dict[str, Any]:
    """What status says of the archive's only model; the sum is checked on the way."""
    found = status.run(configure(archive))
    (of_model,) = found["embeddings"].values()
    assert found["clips"] == sum(of_model.values())
    return dict(of_model)


def state(archive: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables that embed writes, bit for bit."""
    names = read.table_names(str(archive))
    return {name: rows(archive, name) for name in names if name not in ("videos", "clips", "roots")}


def test_every_clip_comes_out_as_a_row_or_a_failure(once: Made) -> None:
    clips = {row["clip_id"] for row in rows(once.archive, "clips")}
    failed = {row["clip_key"] for row in rows(once.archive, "failures")}
    assert len(clips) == 28
    assert set(embeddings(once.archive)) == {name for name in clips if not name.startswith("v/v090")}
    assert failed == {row["clip_key"] for row in rows(once.archive, "clips") if row["video_id"] == "v/v090.mp4"}
    assert books(once.archive) == {"rows": 25, "failed": 3, "pending": 0}


def test_the_report_says_what_was_done(once: Made) -> None:
    report = once.report
    assert report.counts == {"clips": 28, "rows": 25, "failed": 3}
    assert sum(report.failures.values()) == 3
    assert set(report.shares) == {"decode", "embed"}
    assert all(0 < share <= 1.05 for share in report.shares.values())
    assert report.bound_by == max(report.shares, key=lambda step: report.shares[step])
    assert report.clips_per_s > 0
    kept = json.loads((once.archive / "runs" / report.run / "report.json").read_text())
    assert (kept["clips"], kept["rows"], kept["failed"], kept["failures"]) == (28, 25, 3, dict(report.failures))
    assert kept["shares"] == report.shares
    assert 0 < kept["details"]["start_s"] < report.seconds
    assert not list((once.archive / "runs").glob("*/manifest"))
    assert not list((once.archive / "writers").glob("*"))


def test_filled_frames_are_counted(once: Made) -> None:
    found = embeddings(once.archive)
    assert found["v/slow.mp4#t=0,1"]["filled_frames"] == 3
    assert sum(row["filled_frames"] for row in found.values()) == once.report.details["filled_frames"] == 3
    assert any("3 frames filled, in 1 clips" in note for note in once.report.notes)


def test_vectors_are_those_of_decoding_and_encoding_by_hand(once: Made) -> None:
    encoder = load_encoder(str(once.model))
    found = embeddings(once.archive)
    for number in (0, 7):
        frames = decode_clip(once.folder / f"v{number:03}.mp4", 1, 2, size=32)
        expected = as_stored(encoder.encode_frames(frames[None])[0])
        vector = np.array(found[f"v/v{number:03}.mp4#t=1,2"]["vector"], np.float32)
        np.testing.assert_allclose(vector, expected, atol=5e-4)  # a step of float16: batches add up in another order
        assert np.linalg.norm(vector) == pytest.approx(1, abs=2e-3)


def test_rows_carry_what_searches_filter_on(once: Made) -> None:
    clips = {row["clip_id"]: row for row in rows(once.archive, "clips")}
    for name, row in embeddings(once.archive).items():
        shared = ("clip_key", "fingerprint", "video_id", "start_s", "end_s", "split")
        assert [row[column] for column in shared] == [clips[name][column] for column in shared]
        assert row["duration_s"] == pytest.approx(clips[name]["duration_s"])


def test_each_embedded_clip_has_one_signature_from_before_its_vector(once: Made) -> None:
    signed = rows(once.archive, "signatures")
    assert Counter(row["clip_key"] for row in signed) == Counter(
        row["clip_key"] for row in embeddings(once.archive).values()
    )
    for row in signed:
        assert len(row["frame_hashes"]) == len(row["frame_times_s"]) == 8
    table = f"embeddings_{once.report.details['model_key']}"
    written = {
        name: (once.archive / f"{name}.lance" / "_versions").stat().st_mtime_ns for name in (table, "signatures")
    }
    assert written["signatures"] <= written[table]


def test_batches_are_full_across_videos(once: Made) -> None:
    """All clips of a batch end at one moment; 28 clips of 10 files make two batches, not ten."""
    moments = Counter(row["at"] for row in embeddings(once.archive).values())
    assert len(moments) <= 2
    assert BATCH_CPU > 3


def test_a_second_run_writes_nothing(once: Made) -> None:
    before = state(once.archive)
    versions = sorted(path.name for path in once.archive.glob("*.lance/_versions/*"))
    report = made(once.archive, once.model)
    assert report.counts == {"clips": 0, "rows": 0, "failed": 0}
    assert any("nothing to do" in note and "--retry-failed" in note for note in report.notes)
    assert state(once.archive) == before
    assert sorted(path.name for path in once.archive.glob("*.lance/_versions/*")) == versions


def test_a_second_model_has_its_own_table_and_signs_nothing_again(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    before = state(archive)
    report = made(archive, write_viclip(tmp_path / "other", seed=1))
    assert report.counts == {"clips": 28, "rows": 25, "failed": 3}
    after = state(archive)
    assert after["signatures"] == before["signatures"]
    first, second = once.report.details["model_key"], report.details["model_key"]
    assert after[f"embeddings_{first}"] == before[f"embeddings_{first}"]
    one, other = embeddings(archive, first), embeddings(archive, second)
    assert one.keys() == other.keys()
    assert not any(one[name]["vector"] == other[name]["vector"] for name in one)
    assert status.run(configure(archive))["embeddings"] == {
        key: {"rows": 25, "failed": 3, "pending": 0} for key in (first, second)
    }
    with fails_with(StoreError, first, second, "--model"):
        made(archive, "")


def test_fast_sampling_has_a_table_of_its_own_and_says_how_far_its_frames_are(once: Made, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(once.archive, archive)
    report = embed.run(configure(archive, once.model, "embed.sampling=fast"))
    assert report.details["model"] == f"{once.model.name}@fast"
    assert report.counts["rows"] == once.report.counts["rows"]
    assert 0 <= report.details["offset_mean_s"] <= report.details["offset_max_s"] <= 1
    assert any("from their exact positions" in note for note in report.notes)
    assert "offset_mean_s" not in once.report.details
    assert embed.run(configure(archive, f"{once.model}@fast")).counts["clips"] == 0
    again = embed.run(configure(archive, report.details["model_key"]))
    assert again.counts["clips"] == 0
    config = configure(archive, report.details["model_key"], "embed.device=cpu")
    assert search.run(config, [search.Query(words="a square")]).num_rows > 0


def test_the_only_model_of_an_archive_needs_no_name(once: Made) -> None:
    assert made(once.archive, "").details["model_key"] == once.report.details["model_key"]
    assert made(once.archive, once.report.details["model_key"]).counts["clips"] == 0


def test_one_name_for_two_models_is_refused_and_both_are_listed(once: Made, tmp_path: Path) -> None:
    imposter = write_viclip(tmp_path / "small", seed=9)
    before = state(once.archive)
    with fails_with(StoreError, once.report.details["model_key"], str(imposter), "small_", "another name"):
        made(once.archive, imposter)
    assert state(once.archive) == before


def test_nothing_to_embed_says_what_to_do_first(tmp_path: Path, model: Path) -> None:
    with fails_with(ArchiveError, "raydist scan"):
        made(tmp_path / "none", model)


def test_a_typo_in_a_models_name_is_told(once: Made) -> None:
    with fails_with(ModelError, "viclip-b61", "viclip-b16"):
        made(once.archive, "viclip-b61")


def test_a_plan_that_does_not_fit_is_refused_at_once(once: Made, tmp_path: Path) -> None:
    archive = shutil.copytree(once.archive, tmp_path / "archive")
    other = write_viclip(tmp_path / "other", seed=1)
    with fails_with(ResourceError, "CPUs", "encoders"):
        made(archive, other, "embed.encoders=40")
    with fails_with(ResourceError, "no GPU", "embed.device=cpu"):
        made(archive, other, "embed.device=cuda")
    assert not list((archive / "runs").glob("*/manifest"))
    assert len(read.model_keys(str(archive))) == 1, "a run that was refused left a table of its model"


def test_clips_whose_file_a_scan_has_not_finished_wait(tmp_path: Path, model: Path) -> None:
    """A scan commits clips first: their file may be missing in `videos`, or stand there as it was before."""
    folder = videos(tmp_path / "v", 3)
    archive = tmp_path / "archive"
    scanned(archive, folder)
    before = {row["video_id"]: row for row in rows(archive, "videos")}
    location = str(archive)
    commit.delete(location, "videos", "video_id = 'v/v000.mp4'")
    older = [{**before["v/v001.mp4"], "file_fingerprint": "0" * 32}]
    table = pa.Table.from_pylist(older, schema=schema.VIDEOS)
    committer = commit.Committer(location, "videos", schema.VIDEOS)
    committer.commit(
        commit.write_fragments(location, "videos", table, schema.VIDEOS), delete_where="video_id = 'v/v001.mp4'"
    )
    report = made(archive, model)
    assert report.counts == {"clips": 3, "rows": 3, "failed": 0}
    assert any("6 clips wait for a scan" in note for note in report.notes)
    os.utime(folder / "v001.mp4", ns=(1, 1))
    scanned(archive, folder)
    assert made(archive, model).counts["rows"] == 6
    assert books(archive) == {"rows": 9, "failed": 0, "pending": 0}


@given(
    cpus=st.floats(0.5, 500),
    gpus=st.integers(0, 16),
    nodes=st.integers(1, 20),
    workers=st.integers(0, 600),
    encoders=st.one_of(st.none(), st.integers(0, 40)),
    use_gpus=st.booleans(),
)
def test_a_plan_fits_or_is_refused(
    cpus: float, gpus: int, nodes: int, workers: int, encoders: int | None, use_gpus: bool
) -> None:
    resources = runtime.Resources(cpus=cpus, gpus=gpus, nodes=nodes)
    try:
        plan = runtime.plan(resources, workers=workers, encoders=encoders, gpus=use_gpus and gpus > 0)
    except ResourceError:
        return
    used = plan.workers * plan.worker_cpus + plan.encoders * runtime.ENCODER_CPUS + runtime.LIGHT_CPUS
    assert used <= cpus + 1e-9
    assert plan.encoders * plan.encoder_gpus <= gpus
    assert plan.workers >= 1
    assert encoders is None or plan.encoders >= 1


def test_failures_are_tried_again_only_when_asked(tmp_path: Path, model: Path) -> None:
    folder, archive = videos(tmp_path / "v", 3), tmp_path / "archive"
    scanned(archive, folder)
    (folder / "v001.mp4").rename(tmp_path / "away.mp4")
    assert made(archive, model).failures == {"missing": 3}
    (tmp_path / "away.mp4").rename(folder / "v001.mp4")
    before = embeddings(archive)
    assert made(archive, model).counts["clips"] == 0
    report = made(archive, model, retry_failed=True)
    assert report.counts == {"clips": 3, "rows": 3, "failed": 0}
    assert books(archive) == {"rows": 9, "failed": 0, "pending": 0}
    after = embeddings(archive)
    assert {name: after[name] for name in before} == before


def test_a_changed_file_costs_its_own_rows_only(tmp_path: Path, model: Path) -> None:
    folder, archive = videos(tmp_path / "v", 4), tmp_path / "archive"
    scanned(archive, folder)
    videos_again = videos(tmp_path / "new", 2, first=70)
    shutil.copy(videos_again / "v070.mp4", folder / "v000.mp4")
    assert made(archive, model).failures == {"changed": 3}
    first = embeddings(archive)
    shutil.copy(videos_again / "v071.mp4", folder / "v001.mp4")
    scanned(archive, folder)
    assert books(archive) == {"rows": 6, "failed": 0, "pending": 6}
    assert made(archive, model).counts == {"clips": 6, "rows": 6, "failed": 0}
    second = embeddings(archive)
    untouched = {name for name in first if name.startswith(("v/v002", "v/v003"))}
    assert len(untouched) == 6
    assert {name: second[name] for name in untouched} == {name: first[name] for name in untouched}
    for name in set(second) - untouched:
        assert name not in first or second[name]["vector"] != first[name]["vector"]
        assert name not in first or second[name]["fingerprint"] != first[name]["fingerprint"]
    signed = Counter((row["clip_key"], row["fingerprint"]) for row in rows(archive, "signatures"))
    assert signed == Counter((row["clip_key"], row["fingerprint"]) for row in second.values())


def test_a_file_that_is_what_it_was_again_is_embedded_when_asked(tmp_path: Path, model: Path) -> None:
    """As after a bare touch while it was read: `changed`, and then the same fingerprint as before."""
    folder, archive = videos(tmp_path / "v", 3), tmp_path / "archive"
    scanned(archive, folder)
    whole = (folder / "v001.mp4").read_bytes()
    shutil.copy(folder / "v002.mp4", folder / "v001.mp4")
    assert made(archive, model).failures == {"changed": 3}
    before = embeddings(archive)
    (folder / "v001.mp4").write_bytes(whole)
    scanned(archive, folder)
    assert made(archive, model).counts["clips"] == 0
    assert made(archive, model, retry_failed=True).counts == {"clips": 3, "rows": 3, "failed": 0}
    after = embeddings(archive)
    assert len(after) == 9
    assert {name: after[name] for name in before} == before


def test_nan_never_reaches_the_table(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "archive"
    scanned(archive, videos(tmp_path / "v", 2))
    bad = broken(model, tmp_path / "nan")
    changes = [word for change in ("scan.clip_seconds=1", "embed.decoders=1") for word in ("--set", change)]
    with pytest.raises(SystemExit, match="1"):
        cli.main(["embed", "--archive", str(archive), "--model", str(bad), "--json", *changes])
    out, talk = capsys.readouterr()
    assert json.loads(out)["failures"] == {"not_finite": 6}
    assert "max_failed" in talk
    assert embeddings(archive) == {}
    assert books(archive) == {"rows": 0, "failed": 6, "pending": 0}


def test_a_name_that_samples_fast_and_a_setting_that_does_not_contradict_each_other(once: Made) -> None:
    with pytest.raises(UsageError, match=r"tiny@fast.*leave one of them out"):
        embed.run(configure(once.archive, "tiny@fast", "embed.sampling=exact"))


def test_a_folder_may_be_called_fast(tmp_path: Path) -> None:
    folder = write_viclip(tmp_path / "mine@fast")
    assert describe(str(folder)).sampling == "exact"
    assert describe(f"{folder}@fast").sampling == "fast"
    assert describe(f"{folder}@fast").name == "mine@fast@fast"


def test_the_only_model_of_an_archive_is_meant_with_fast_sampling_too(once: Made, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(once.archive, archive)
    assert choice.to_embed(str(archive), "", "fast").name == f"{once.model.name}@fast"
    assert choice.to_embed(str(archive), "", None).name == once.model.name
    assert raydist.open(str(archive)).embed().counts["clips"] == 0
