"""Small pictures of clips: decoded once, stored, and found again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from archives import configure, encode, rows, scanned, videos

from raydist import runtime
from raydist.clips.decode import decode_clip
from raydist.config import Config
from raydist.dedup import traces
from raydist.dedup.traces import SIDE, Clip
from raydist.store import roots

pytestmark = pytest.mark.ray


def clips_of(config: Config) -> list[Clip]:
    location = config.require_archive()
    keys = [row["clip_key"] for row in rows(Path(location), "clips")]
    return list(traces.clips_of(location, keys, roots.places(location, {})).values())


def ensured(config: Config, clips: list[Clip]) -> dict[traces.Key, str]:
    with runtime.session(config.ray) as resources:
        return traces.ensure(config, clips, resources)


def test_a_trace_holds_two_grey_pictures_a_second_at_their_times(tmp_path: Path, cluster: None) -> None:
    folder, archive = tmp_path / "in", tmp_path / "archive"
    folder.mkdir()
    encode(folder / "a.mp4", count=120, rate=10)
    config = configure(archive, "", "scan.clip_seconds=5")
    scanned_with(config, folder)
    clips = clips_of(config)
    assert ensured(config, clips) == {}
    found = traces.load(str(archive), clips)
    assert {key: len(trace.times_s) for key, trace in found.items()} == {
        clip.key: (8 if clip.start_ms == 10_000 else 10) for clip in clips
    }
    middle = next(clip for clip in clips if clip.start_ms == 5000)
    trace = found[middle.key]
    assert trace.pictures_TSS.shape == (10, SIDE, SIDE)
    assert trace.times_s == pytest.approx(np.arange(5.2, 10, 0.5), abs=0.11)
    frames = decode_clip(str(folder / "a.mp4"), 5, 10, frames=10, size=SIDE, resize="squash-bilinear")
    assert np.abs(frames.mean(axis=-1) - trace.pictures_TSS).mean() < 12


def scanned_with(config: Config, folder: Path) -> None:
    from raydist import scan

    scan.run(config, scan.Request(inputs=(str(folder),)))


def test_a_clip_that_has_a_trace_is_not_decoded_again(tmp_path: Path, cluster: None) -> None:
    archive, folder = tmp_path / "archive", videos(tmp_path / "in", 2, seconds=2)
    scanned(archive, folder)
    config = configure(archive)
    clips = clips_of(config)
    assert ensured(config, clips[:3]) == {}
    shutil.rmtree(folder)  # nothing could be decoded any more
    assert ensured(config, clips[:3]) == {}
    assert len(rows(archive, "traces")) == 3
    assert ensured(config, clips) == {clips[3].key: "missing"}
    assert len(rows(archive, "traces")) == 3


def test_what_does_not_decode_is_a_failure_and_is_not_tried_again(tmp_path: Path, cluster: None) -> None:
    archive, folder = tmp_path / "archive", videos(tmp_path / "in", 2, seconds=1)
    scanned(archive, folder)
    config = configure(archive)
    clips = clips_of(config)
    gone = next(clip for clip in clips if clip.path == "v000.mp4")
    (folder / "v000.mp4").write_bytes(b"no video at all" * 1000)
    for _ in range(2):
        assert ensured(config, clips) == {gone.key: "changed"}
    (row,) = [row for row in rows(archive, "failures") if row["stage"] == "dedup"]
    assert (row["clip_key"], row["video_id"], row["reason"]) == (gone.clip_key, gone.video_id, "changed")
    assert set(traces.load(str(archive), clips)) == {clip.key for clip in clips} - {gone.key}


def test_clips_of_another_archive_get_their_traces_here(tmp_path: Path, cluster: None) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    scanned(here, videos(tmp_path / "one" / "in", 1, seconds=1))
    scanned(there, videos(tmp_path / "two" / "in", 1, seconds=1, first=7))
    (tmp_path / "two" / "in" / "v007.mp4").rename(tmp_path / "two" / "in" / "v000.mp4")
    scanned(there, tmp_path / "two" / "in")
    config, others = configure(here), clips_of(configure(there))
    assert ensured(config, [*clips_of(config), *others]) == {}
    mine, theirs = traces.load(str(here), clips_of(config)), traces.load(str(here), others)
    assert len(mine) == len(theirs) == 1
    assert not rows(there, "traces")
    (one,), (other,) = mine.values(), theirs.values()
    assert np.abs(one.pictures_TSS.astype(int) - other.pictures_TSS).mean() > 10


def test_a_short_clip_has_eight_pictures_and_a_day_has_a_bounded_number() -> None:
    assert traces.pictures_of(0, 100) == traces.LEAST == 8
    assert traces.pictures_of(0, 30_000) == 60
    assert traces.pictures_of(0, 86_400_000) == traces.MOST
