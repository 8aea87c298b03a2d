"""Clips have exactly the frames that decoding the whole file gives, at a cost that does not depend on the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reference import expected, same, spans_of
from videos import VP9, X264, X265, encode, full_decode, join, rotate

from raydist.clips.container import open_video, read_head
from raydist.clips.decode import decode_clip, decode_spans, probe
from raydist.clips.exact import ExactReader
from raydist.clips.picture import Converter
from raydist.clips.source import open_source
from raydist.errors import ClipError, SourceError
from raydist.records import Limits, Span

# Intervals of 10 to 400 ms, in ticks of 1/12800 s
IRREGULAR = np.cumsum(np.random.default_rng(3).integers(128, 5120, 90)).tolist()

KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "h264 with B-frames, long groups": ("mp4", {"count": 260, "options": {**X264, "g": "250"}}),
    "h264, short open groups": ("mkv", {"count": 150, "options": {**X264, "g": "12", "x264-params": "open-gop=1"}}),
    "h264 in a transport stream": ("ts", {"count": 150}),
    "h264 of variable rate": ("mp4", {"count": 90, "times": IRREGULAR}),
    "h264 in flv": ("flv", {"count": 120}),
    "h264 with B-frames in avi": ("avi", {"count": 120}),
    "h264 without a container": ("h264", {"count": 90}),
    "hevc": ("mp4", {"count": 120, "codec": "libx265", "options": X265}),
    "hevc with temporal layers": (
        "mp4",
        {
            "count": 120,
            "codec": "libx265",
            "options": {**X265, "x265-params": X265["x265-params"] + ":temporal-layers=3:b-pyramid=1"},
        },
    ),
    "vp9 with hidden references": ("webm", {"count": 90, "codec": "libvpx-vp9", "options": VP9}),
    "vp8 with hidden references": (
        "webm",
        {
            "count": 90,
            "codec": "libvpx",
            "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "30", "b": "200k"},
        },
    ),
    "av1": (
        "mp4",
        {"count": 60, "codec": "libsvtav1", "options": {"preset": "12", "g": "20", "svtav1-params": "lp=1"}},
    ),
    "mpeg4 in avi": ("avi", {"count": 120, "codec": "mpeg4", "options": {"g": "24"}}),
    "mpeg4 with B-frames in avi": ("avi", {"count": 120, "codec": "mpeg4", "options": {"g": "24", "bf": "2"}}),
    "mpeg2 with B-frames": ("ts", {"count": 100, "codec": "mpeg2video", "options": {"g": "15", "bf": "2"}}),
    "gif": ("gif", {"count": 40, "codec": "gif", "options": {}}),
    "apng": ("apng", {"count": 30, "codec": "apng", "options": {}}),
    "motion jpeg": ("avi", {"count": 40, "codec": "mjpeg", "options": {}}),
}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("decode")

    def cached(kind: str) -> Path:
        suffix, options = KINDS[kind]
        path = folder / f"{kind}.{suffix}"
        return path if path.exists() else encode(path, **options)  # type: ignore[arg-type]

    return cached


@pytest.mark.parametrize("kind", KINDS)
def test_clips_are_bit_for_bit_those_of_a_full_decode(make: Callable[[str], Path], kind: str) -> None:
    path = make(kind)
    spans = spans_of(probe(str(path)).duration_ms)
    counted = kind in ("h264 with B-frames in avi", "mpeg4 with B-frames in avi", "h264 without a container")
    times = [40 * i for i in range(len(full_decode(path)))] if counted else None
    clips = list(decode_spans(str(path), spans, size_px=None))
    wrong = [s for s, c, e in zip(spans, clips, expected(path, spans, times), strict=True) if not same(c, e)]
    assert wrong == []


def test_a_clip_in_a_long_file_costs_what_it_costs_in_a_short_one(tmp_path: Path) -> None:
    parts = [encode(tmp_path / f"{seed}.mp4", count=750, seed=seed) for seed in range(2)]
    long = join(parts * 20, tmp_path / "long.mp4")  # 20 minutes
    alone = read_packets(parts[1], Span(start_ms=0, end_ms=30_000))
    within = [read_packets(long, Span(start_ms=ms, end_ms=ms + 30_000)) for ms in (30_000, 570_000, 1_170_000)]
    assert max(within) <= 1.2 * alone + 60
    (there,) = decode_spans(str(long), [Span(start_ms=570_000, end_ms=600_000)])
    (here,) = decode_spans(str(parts[1]), [Span(start_ms=0, end_ms=30_000)])
    assert np.array_equal(there.frames, here.frames)


def read_packets(path: Path, span: Span) -> int:
    with open_source(str(path)) as source, open_video(source, Limits()) as video:
        reader = ExactReader(video, read_head(video), Converter(32, "viclip"))
        before = video.packets_read
        reader.read(span, 8)
        return video.packets_read - before


def test_a_rotated_video_stands_upright(tmp_path: Path, make: Callable[[str], Path]) -> None:
    plain = make("h264 of variable rate")
    turned = rotate(plain, tmp_path / "turned.mp4")
    assert probe(str(turned)).rotation == 270
    assert np.array_equal(decode_clip(turned, size=None), np.rot90(decode_clip(plain, size=None), -1, axes=(1, 2)))


def test_a_span_of_few_frames_repeats_the_last_and_counts_it(make: Callable[[str], Path]) -> None:
    path = str(make("h264 with B-frames, long groups"))
    (clip,) = decode_spans(path, [Span(start_ms=400, end_ms=520)], size_px=32)
    assert clip.frame_times_ms == (400, 440, 480, 480, 480, 480, 480, 480)
    assert clip.filled_frames == 5
    assert clip.frames is not None
    assert np.array_equal(clip.frames[2], clip.frames[7])
    assert len(clip.frame_hashes) == 8


def test_frames_that_do_not_decode_are_filled_and_counted(tmp_path: Path, make: Callable[[str], Path]) -> None:
    plain = make("motion jpeg")
    data = bytearray(plain.read_bytes())
    starts = [i for i in range(len(data) - 3) if data[i : i + 3] == b"\xff\xd8\xff"]
    for start in starts[:10]:  # 0 to 400 ms
        data[start : start + 600] = bytes(600)
    broken = tmp_path / "broken.avi"
    broken.write_bytes(bytes(data))
    (clip,) = decode_spans(str(broken), [Span(start_ms=0, end_ms=1600)])
    (whole,) = decode_spans(str(plain), [Span(start_ms=0, end_ms=1600)])
    assert clip.filled_frames == 2
    assert clip.frame_times_ms == (480, 480, *whole.frame_times_ms[2:])
    assert clip.frames is not None
    assert whole.frames is not None
    assert np.array_equal(clip.frames[2:], whole.frames[2:])


def test_key_flags_that_lie_give_the_frames_of_a_full_decode(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", count=100, options={**X264, "bf": "0"})
    data = bytearray(path.read_bytes())
    place = 0
    while (place := data.find(b"\xa3", place + 1)) > 0:  # SimpleBlock: size, track 1, time, flags
        for width in (1, 2, 3):
            if data[place + 1] >> (8 - width) == 1 and data[place + 1 + width] == 0x81:
                data[place + 4 + width] |= 0x80
    lying = tmp_path / "lying.mkv"
    lying.write_bytes(bytes(data))
    spans = spans_of(4000)
    clips = decode_spans(str(lying), spans, size_px=None)
    assert all(same(clip, shown) for clip, shown in zip(clips, expected(path, spans), strict=True))


def test_a_span_without_frames_fails_alone(make: Callable[[str], Path]) -> None:
    path = str(make("hevc"))
    spans = [Span(start_ms=a, end_ms=a + 100) for a in (0, 999_000, 1000)]
    assert [clip.reason for clip in decode_spans(path, spans)] == ["", "no_frames", ""]


def test_a_file_that_changed_since_the_scan_is_not_decoded(make: Callable[[str], Path]) -> None:
    path = str(make("hevc"))
    span = Span(start_ms=0, end_ms=500)
    known = probe(path).file_fingerprint
    assert next(decode_spans(path, [span], fingerprint=known)).reason == ""
    with pytest.raises(SourceError, match=r"raydist scan. again") as caught:
        list(decode_spans(path, [span], fingerprint="0" * 32))
    assert caught.value.reason == "changed"


def test_pictures_beyond_the_limit_are_not_decoded(make: Callable[[str], Path]) -> None:
    with pytest.raises(SourceError, match=r"96 x 64.*6,143 pixels") as caught:
        list(decode_spans(str(make("hevc")), [Span(start_ms=0, end_ms=500)], limits=Limits(pixels=96 * 64 - 1)))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(("start_s", "end_s"), [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_an_empty_or_reversed_span_is_refused(make: Callable[[str], Path], start_s: float, end_s: float) -> None:
    with pytest.raises(ClipError, match=r"expected 0 <= start < end"):
        decode_clip(make("hevc"), start_s, end_s)


def test_a_span_behind_the_end_says_how_long_the_file_is(make: Callable[[str], Path]) -> None:
    with pytest.raises(ClipError, match=r"4\.8 s long"):
        decode_clip(make("hevc"), 100.0, 130.0)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"size": 0}, {"resize": "nearest"}])
def test_a_caller_s_mistake_is_a_value_error(make: Callable[[str], Path], wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        decode_clip(make("hevc"), **wrong)  # type: ignore[arg-type]
