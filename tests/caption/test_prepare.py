"""What is made ready to be sent of a clip is of its span: the pictures of that span, compared by pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from footage import ALIKE, Source, check, join_real, spans_of
from numpy.typing import NDArray
from PIL import Image
from videos import X264, encode, join, rotate

from raydist.caption.prepare import Preparer, Sending
from raydist.caption.tables import PREPARED
from raydist.clips.decode import probe
from raydist.clips.sampling import middle_ranks
from raydist.clips.units import units
from raydist.records import Cut, Limits, Span

FRAMES = Sending(send="frames", frames=8, frame_px=384, max_bytes=4 << 20)
CLIP = replace(FRAMES, send="clip")
LONG_GOP = {**X264, "g": "250", "keyint_min": "250", "sc_threshold": "0"}


def prepare(
    path: Path, spans: Sequence[Span], sending: Sending = FRAMES, fingerprint: str = ""
) -> list[dict[str, Any]]:
    """The rows of one file's clips, through the actor."""
    clips = [
        {
            "clip_key": number,
            "clip_id": f"v/{path.name}#{number}",
            "video_id": f"v/{path.name}",
            "fingerprint": f"{number:032x}",
            "start_ms": span.start_ms,
            "end_ms": span.end_ms,
            "split": "train",
            "has_signature": False,
        }
        for number, span in enumerate(spans)
    ]
    files = {f"v/{path.name}": {"root": "v", "path": path.name, "file_fingerprint": fingerprint}}
    preparer = Preparer({"v": str(path.parent)}, sending, Limits())
    rows: list[dict[str, Any]] = []
    for unit in units(clips, files).to_batches(max_chunksize=1):
        for table in preparer(unit):
            assert table.schema.equals(PREPARED)
            rows += table.to_pylist()
    rows.sort(key=lambda row: row["clip_key"])
    assert [(row["clip_id"], row["fingerprint"]) for row in rows] == [(c["clip_id"], c["fingerprint"]) for c in clips]
    return rows


def opened(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        return np.asarray(picture)


def look(path: Path, step_ms: int, noise: float = 0.0) -> None:
    """Prepare a whole file both ways: frames and cut clips show their spans and nothing else."""
    source = Source(path)
    spans = spans_of(probe(str(path)).duration_ms, step_ms)
    for span, row in zip(spans, prepare(path, spans), strict=True):
        inside = source.inside(span)
        wanted = sorted({inside[rank] for rank in middle_ranks(len(inside), FRAMES.frames)})
        assert (row["reason"], row["clip"]) == ("", b"")
        assert row["duration_s"] == (span.end_ms - span.start_ms) / 1000
        for place, data in zip(wanted, row["frames"], strict=True):
            picture = opened(data)
            assert picture.shape == (row["height_px"], row["width_px"], 3)
            off = source.distances(picture)
            assert off[place] < ALIKE
            assert off[place] <= off.min() + noise
    for span, row in zip(spans, prepare(path, spans, CLIP), strict=True):
        assert row["frames"] == []
        made = Cut(span=span, data=row["clip"], width_px=row["width_px"], height_px=row["height_px"])
        check(source, replace(made, reason=row["reason"]), noise=noise, may_be_copied=True)


def test_of_long_groups_of_pictures_the_pictures_are_those_of_the_span(tmp_path: Path) -> None:
    """40 s of H.264, joined from several encodes with a key frame each."""
    parts = [encode(tmp_path / f"{seed}.mp4", count=250, options=LONG_GOP, seed=seed) for seed in range(4)]
    look(join(parts, tmp_path / "long.mp4"), 7_300)


def test_of_frames_of_changing_rate_the_pictures_are_those_of_the_span(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(3).integers(100, 2_500, 300)).tolist()
    look(encode(tmp_path / "vfr.mp4", count=300, times=times, options=LONG_GOP), 4_100)


@pytest.mark.parametrize("name", ["late.mkv", "late.ts"])
def test_of_a_file_that_starts_late_the_pictures_are_those_of_the_span(tmp_path: Path, name: str) -> None:
    times = [(95 * 25 + number) * 512 for number in range(150)]
    path = encode(tmp_path / name, count=150, times=times)
    assert probe(str(path)).start_offset_s > 90
    look(path, 1_700)


def test_of_a_turned_file_the_pictures_are_upright(tmp_path: Path) -> None:
    path = rotate(encode(tmp_path / "a.mp4", count=100), tmp_path / "turned.mp4")
    look(path, 1_700)
    (row,) = prepare(path, [Span(start_ms=0, end_ms=4000)])
    assert (row["width_px"], row["height_px"]) == (64, 96)


def test_of_a_gif_the_pictures_are_those_of_the_span(tmp_path: Path) -> None:
    look(encode(tmp_path / "a.gif", count=40, codec="gif", options={}, rate=10), 1_500)


def test_of_a_long_file_joined_from_real_ones_the_pictures_are_those_of_the_span(shared: Path, tmp_path: Path) -> None:
    real = shared / "realvideo" / "files"
    if not real.is_dir():
        pytest.skip("no real video files beside the checkout")
    alike = [real / f"{name}.mp4" for name in ("s017", "s018", "s019", "s062")]
    look(join_real(alike, tmp_path / "alike.mp4"), 2_000, noise=0.5)
    mixed = [real / f"{name}.mp4" for name in ("s055", "s101", "s144", "s150", "s154")]
    look(join_real(mixed, tmp_path / "mixed.ts"), 4_700, noise=1.0)


def test_pictures_are_as_large_as_asked_and_none_is_sent_twice(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=50, size=(320, 180))
    (row,) = prepare(path, [Span(start_ms=0, end_ms=200)], replace(FRAMES, frame_px=160))
    assert (row["width_px"], row["height_px"]) == (160, 90)
    assert len(row["frames"]) == 5  # of the eight that were asked for: there are no more
    assert row["prepare_s"] > 0


def test_pictures_that_are_too_large_together_lose_quality_then_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=50, size=(320, 180))
    span = Span(start_ms=0, end_ms=2000)
    (good,) = prepare(path, [span])
    size = sum(map(len, good["frames"]))
    (poor,) = prepare(path, [span], replace(FRAMES, max_bytes=size - 1))
    assert sum(map(len, poor["frames"])) < size
    assert len(poor["frames"]) == 8
    for sending in (replace(FRAMES, max_bytes=1000), replace(CLIP, max_bytes=1000)):
        (refused,) = prepare(path, [span], sending)
        assert (refused["reason"], refused["frames"], refused["clip"]) == ("too_big", [], b"")
        assert "1,000" in refused["detail"]


@pytest.mark.parametrize("sending", [FRAMES, CLIP])
def test_a_clip_that_cannot_be_made_ready_has_a_reason(tmp_path: Path, sending: Sending) -> None:
    spans = spans_of(3000, 1000)
    missing = prepare(tmp_path / "none.mp4", spans, sending)
    assert [row["reason"] for row in missing] == ["missing"] * 3
    path = encode(tmp_path / "a.mp4", count=50)
    assert [row["reason"] for row in prepare(path, spans, sending)] == ["", "", "no_frames"]
    assert [row["reason"] for row in prepare(path, spans, sending, "0" * 32)] == ["changed"] * 3
