"""Building the frame cache from real videos with real Ray: every clip once, whatever happens between."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import encode, fails_with, made, rows, scanned, write_viclip
from framed import BYTES, GEOMETRY, by_hand, captioned, describe, reader, settings

from raydist import load_encoder
from raydist.clips.decoder import Geometry
from raydist.errors import ResourceError
from raydist.frames.build import Built, ensure, estimate
from raydist.frames.pixels import table_of
from raydist.store import frames, lease, read
from raydist.store.pairs import captioned_clips

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.ray]

TABLE = "frames_viclip_32_exact_8_raw"


@dataclass(frozen=True)
class Made:
    """An archive whose cache was built once."""

    archive: Path
    built: Built


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six good files of three clips, and one that fails."""
    archive = captioned(tmp_path_factory.mktemp("once"), 7)
    spoil(archive.parent / "v" / "v003.mp4")
    return Made(archive, build(archive))


def spoil(path: Path) -> None:
    """Overwrite the pictures of a file, but leave its index, its first and last bytes and its time as they are."""
    stamp, data = path.stat(), bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") if data.index(b"moov") > begin else len(data)
    data[begin : end - 4] = bytes(end - 4 - begin)
    path.write_bytes(bytes(data))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def build(archive: Path, *changes: str, **options: Any) -> Built:
    pairs = captioned_clips(str(archive), None)
    return ensure(settings(archive, *changes), pairs, GEOMETRY, **options)


def keys(archive: Path, table: str = TABLE) -> list[tuple[int, str]]:
    batches = read.scan_batches(str(archive), table, ["clip_key", "fingerprint"])
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def test_every_clip_is_cached_once_or_fails_with_its_reason(once: Made) -> None:
    clips = rows(once.archive, "clips")
    bad = {clip["clip_key"] for clip in clips if clip["video_id"] == "v/v003.mp4"}
    good = {(clip["clip_key"], clip["fingerprint"]) for clip in clips if clip["clip_key"] not in bad}
    assert (once.built.clips, once.built.decoded, set(once.built.failed)) == (21, 18, bad)
    assert Counter(keys(once.archive)) == Counter(good)
    recorded = [row for row in rows(once.archive, "failures") if row["stage"] == "train" and row["model_key"] == ""]
    assert {row["clip_key"]: row["reason"] for row in recorded} == once.built.failed
    assert len(recorded) == 3
    pairs = captioned_clips(str(once.archive), None)
    assert set(once.built.without_failed(pairs)["clip_key"].to_pylist()) == {key for key, _ in good}


def test_the_frames_are_the_recipes_and_their_vectors_those_of_embed(once: Made, tmp_path: Path) -> None:
    pairs = once.built.without_failed(captioned_clips(str(once.archive), None))
    shutil.move(once.archive.parent / "v", tmp_path / "away")  # nothing but the cache to read from
    frames_BTHWC, good_B = reader(once.archive).read(pairs)
    shutil.move(tmp_path / "away", once.archive.parent / "v")
    assert good_B.all()
    np.testing.assert_array_equal(frames_BTHWC, by_hand(once.archive, pairs))


def test_the_signatures_are_those_that_embed_would_write(once: Made, tmp_path: Path) -> None:
    assert len(rows(once.archive, "signatures")) == 18
    shutil.copytree(once.archive, tmp_path / "archive")
    for table in ("signatures", "failures", TABLE):
        shutil.rmtree(tmp_path / "archive" / f"{table}.lance")
    made(tmp_path / "archive", write_viclip(tmp_path / "small"))
    compared = ("clip_key", "fingerprint", "frame_hashes", "frame_times_s", "hash_version")
    here, there = (
        [{name: row[name] for name in compared} for row in rows(archive, "signatures")]
        for archive in (once.archive, tmp_path / "archive")
    )
    assert here == there


def test_a_second_build_decodes_nothing_and_starts_no_run(once: Made) -> None:
    files = {path: path.stat().st_mtime_ns for path in (once.archive / f"{TABLE}.lance").rglob("*") if path.is_file()}
    runs = set((once.archive / "runs").glob("*"))
    again = build(once.archive, stage="eval")
    assert (again.decoded, again.failed) == (0, once.built.failed)
    now = {path: path.stat().st_mtime_ns for path in (once.archive / f"{TABLE}.lance").rglob("*") if path.is_file()}
    assert now == files
    assert set((once.archive / "runs").glob("*")) == runs
    assert not any(folder.name.startswith("frames-") for folder in runs)
    assert not list((once.archive / "writers").glob("*"))


def test_a_build_with_nothing_to_do_sweeps_up_after_one_that_was_killed_at_its_very_end(once: Made) -> None:
    left = once.archive / "runs" / "frames-killed" / "manifest"
    left.mkdir(parents=True)
    (left / "part-000000.parquet").write_bytes(b"")
    pairs = captioned_clips(str(once.archive), None)
    assert ensure(settings(once.archive), pairs, GEOMETRY).decoded == 0
    assert not left.exists()


def test_the_size_is_said_first_and_is_that_on_the_disk(once: Made, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = captioned_clips(str(once.archive), "train")
    ensure(settings(once.archive), pairs, GEOMETRY)
    assert f"frame cache: {pairs.num_rows} clips" in capsys.readouterr().err
    good = once.built.without_failed(captioned_clips(str(once.archive), None))
    assert estimate(good, GEOMETRY) == pytest.approx(frames.bytes_on_disk(str(once.archive), TABLE), rel=0.1)
    assert estimate(good, GEOMETRY) >= 18 * BYTES


def test_a_cache_over_its_bound_is_refused_with_the_choices(once: Made) -> None:
    pairs = captioned_clips(str(once.archive), None)
    config = settings(once.archive, "train.cache_gb=0.0004")
    with fails_with(ResourceError, "0.5 MB", "train.cache=jpeg", "train.cache=none", "train.cache_gb=0.1", "0.4 MB"):
        ensure(config, pairs, GEOMETRY)
    with fails_with(ResourceError, "train.jitter=false"):
        ensure(config, pairs, GEOMETRY, candidates=3)
    assert ensure(config, pairs, GEOMETRY, encoding="none").failed == once.built.failed


def test_no_clips_are_no_cache(once: Made) -> None:
    none = captioned_clips(str(once.archive), None).slice(0, 0)
    built = ensure(settings(once.archive), none, Geometry(frames=8, sampling="exact", size_px=40, resize="viclip"))
    assert (built.clips, built.decoded, built.failed, built.without_failed(none).num_rows) == (0, 0, {}, 0)


def test_a_clip_that_failed_is_tried_again_when_asked_for(tmp_path: Path) -> None:
    archive = captioned(tmp_path, 2, seconds=1)
    path = tmp_path / "v" / "v001.mp4"
    whole, stamp = path.read_bytes(), path.stat()
    spoil(path)
    assert len(build(archive).failed) == 1
    path.write_bytes(whole)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert len(build(archive).failed) == 1
    assert build(archive, retry_failed=True).failed == {}
    assert (len(keys(archive)), build(archive).failed) == (2, {})


def test_a_changed_file_is_decoded_anew_and_its_old_frames_go(tmp_path: Path) -> None:
    archive = captioned(tmp_path, 3, seconds=2)
    build(archive)
    before = keys(archive)
    encode(tmp_path / "v" / "v001.mp4", count=20, rate=10, seed=99)
    assert reader(archive).read(captioned_clips(str(archive), None))[1].all()  # nobody knows yet: the cache has them
    scanned(archive, tmp_path / "v")
    assert len(keys(archive)) == 4
    describe(archive)
    built = build(archive)
    assert built.decoded == 2
    assert len(set(before) & set(keys(archive))) == 4
    pairs = captioned_clips(str(archive), None)
    np.testing.assert_array_equal(reader(archive).read(pairs)[0], by_hand(archive, pairs))


def test_a_file_that_changed_and_was_not_scanned_yet_is_not_cached(tmp_path: Path) -> None:
    archive = captioned(tmp_path, 2, seconds=1)
    encode(tmp_path / "v" / "v001.mp4", count=10, rate=10, seed=99)
    assert list(build(archive).failed.values()) == ["changed"]
    assert len(keys(archive)) == 1


def test_jpeg_is_smaller_and_close(once: Made) -> None:
    geometry = Geometry(frames=8, sampling="exact", size_px=64, resize="viclip")
    pairs = captioned_clips(str(once.archive), None)
    built = ensure(settings(once.archive), pairs, geometry, encoding="jpeg")
    good = built.without_failed(pairs)
    table = table_of(geometry, "jpeg", 1)
    assert frames.bytes_on_disk(str(once.archive), table) < 0.5 * good.num_rows * 4 * BYTES
    found, ok = reader(once.archive, geometry=geometry, encoding="jpeg").read(good)
    assert ok.all()
    off = np.abs(found.astype(int) - by_hand(once.archive, good, size=64))
    assert off.mean() < 2.5
    here, _ = reader(once.archive.parent / "none", files=once.archive, geometry=geometry, encoding="jpeg").read(good)
    np.testing.assert_array_equal(found, here)


def test_other_geometries_make_room_the_longest_unused_first(tmp_path: Path) -> None:
    archive = captioned(tmp_path, 2, seconds=1)
    pairs = captioned_clips(str(archive), None)
    old, used, new = (Geometry(frames=8, sampling="exact", size_px=side, resize="clip") for side in (32, 40, 48))
    for geometry in (used, old, used):
        ensure(settings(archive), pairs, geometry)
    there = sum(frames.bytes_on_disk(str(archive), name) for name in frames.tables(str(archive)))
    bound = (there + 2 * 8 * 48 * 48 * 3 + 2000 - 1000) / 1e9  # some 1000 bytes too few for all three
    with lease.Lease(str(archive), "embed"):
        ensure(settings(archive), pairs, used)  # nothing to do, nobody in the way
    ensure(settings(archive, f"train.cache_gb={bound}"), pairs, new)
    assert set(frames.tables(str(archive))) == {table_of(used, "raw", 1), table_of(new, "raw", 1)}


def test_a_table_full_of_other_clips_is_begun_anew(tmp_path: Path) -> None:
    archive = captioned(tmp_path, 6, seconds=1)
    pairs = captioned_clips(str(archive), None)
    ensure(settings(archive), pairs.slice(0, 4), GEOMETRY)
    bound = frames.bytes_on_disk(str(archive), TABLE) / 1e9
    assert ensure(settings(archive, f"train.cache_gb={bound}"), pairs.slice(3, 3), GEOMETRY).decoded == 3
    assert sorted(key for key, _ in keys(archive)) == pairs["clip_key"].to_pylist()[3:]


def test_the_cached_vectors_agree_with_embeds(once: Made, tmp_path: Path) -> None:
    model = write_viclip(tmp_path / "small")
    shutil.copytree(once.archive, tmp_path / "archive")
    made(tmp_path / "archive", model)
    (key,) = read.model_keys(str(tmp_path / "archive"))
    stored = {row["clip_key"]: row["vector"] for row in rows(tmp_path / "archive", f"embeddings_{key}")}
    pairs = once.built.without_failed(captioned_clips(str(once.archive), None))
    vectors = load_encoder(str(model)).encode_frames(reader(once.archive).read(pairs)[0])
    for clip, vector in zip(pairs["clip_key"].to_pylist(), vectors, strict=True):
        np.testing.assert_allclose(stored[clip], vector, atol=1e-3)  # a step of float16, other batches


def test_where_nothing_is_cached_clips_are_decoded_once_for_their_signatures(cluster: None, tmp_path: Path) -> None:
    archive = captioned(tmp_path, files=2)
    pairs = captioned_clips(str(archive), None)
    built = ensure(settings(archive), pairs, GEOMETRY, encoding="none")
    assert (built.decoded, built.table) == (pairs.num_rows, "")
    assert len(rows(archive, "signatures")) == pairs.num_rows
    assert ensure(settings(archive), pairs, GEOMETRY, encoding="none").decoded == 0
    assert not [table for table in read.table_names(str(archive)) if table.startswith("frames_")]
