"""Fast sampling: key frames where an interval has one, frames nearby elsewhere, and never worse than exact sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import X264, X265, encode, full_decode, join

from raydist.clips.container import open_video, read_head
from raydist.clips.decode import decode_clip, decode_spans
from raydist.clips.fast import FastReader
from raydist.clips.picture import Converter
from raydist.clips.sampling import cheap_reach, choose_cheap, intervals
from raydist.clips.source import open_source
from raydist.records import DecodedClip, Limits, Span

WHOLE = Span(start_ms=0, end_ms=12_000)

KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "short groups": (".mp4", {"options": {**X264, "g": "12"}}),
    "long groups": (".mp4", {"options": {**X264, "g": "100"}}),
    "one group": (".mp4", {"options": {**X264, "g": "999"}}),
    "matroska": (".mkv", {"options": {**X264, "g": "40"}}),
    "transport stream, no index": (".ts", {"options": {**X264, "g": "40"}}),
    "open groups": (".mp4", {"options": {**X264, "g": "30", "x264-params": "open-gop=1"}}),
    "mpeg4 with B-frames": (".mp4", {"codec": "mpeg4", "options": {"g": "24", "bf": "2"}}),
    "hevc": (".mp4", {"codec": "libx265", "options": X265}),
}


@pytest.fixture(scope="module", params=KINDS)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    suffix, options = KINDS[request.param]
    path = tmp_path_factory.mktemp("fast") / f"a{suffix}"
    return encode(path, count=300, **options)  # type: ignore[arg-type]


def decoded(path: Path, sampling: str, span: Span = WHOLE) -> DecodedClip:
    (clip,) = decode_spans(str(path), [span], size_px=None, sampling=sampling)
    return clip


def test_its_frames_are_frames_of_the_file_at_the_times_it_says(video: Path) -> None:
    clip = decoded(video, "fast")
    frames = sorted(full_decode(video), key=lambda frame: frame.pts)
    convert = Converter(None, "viclip")
    shown = {40 * rank: convert(frame) for rank, frame in enumerate(frames)}
    assert clip.frames is not None
    for pixels, time_ms in zip(clip.frames, clip.frame_times_ms, strict=True):
        picture = shown[time_ms]
        assert picture is not None
        assert np.array_equal(pixels, picture.pixels)


def test_frames_of_any_span_are_frames_of_the_file_within_it(video: Path) -> None:
    frames = sorted(full_decode(video), key=lambda frame: frame.pts)
    convert = Converter(32, "viclip")
    spans = [Span(start_ms=start, end_ms=start + 3000) for start in range(0, 9000, 700)]
    clips = list(decode_spans(str(video), spans, size_px=32, sampling="fast"))
    for span, clip in zip(spans, clips, strict=True):
        assert clip.frames is not None
        for pixels, time_ms in zip(clip.frames, clip.frame_times_ms, strict=True):
            assert span.start_ms <= time_ms < span.end_ms
            picture = convert(frames[time_ms // 40])
            assert picture is not None
            assert np.array_equal(pixels, picture.pixels), (span, time_ms)


def test_in_a_long_file_of_many_key_frames_the_offsets_are_from_the_exact_frames(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    times = np.cumsum(random.choice([128, 5120], 600, p=[0.7, 0.3])).tolist()
    path = encode(tmp_path / "a.mp4", count=600, times=times, options={**X264, "g": "3", "bf": "0"})
    span = Span(start_ms=20_000, end_ms=60_000)
    fast, exact = decoded(path, "fast", span), decoded(path, "exact", span)
    away = [abs(a - b) for a, b in zip(fast.frame_times_ms, exact.frame_times_ms, strict=True)]
    assert all(abs(said - is_) <= 10 for said, is_ in zip(fast.offsets_ms, away, strict=True))


def test_each_frame_stays_within_an_interval_of_its_exact_place(video: Path) -> None:
    fast, exact = decoded(video, "fast"), decoded(video, "exact")
    assert list(fast.frame_times_ms) == sorted(set(fast.frame_times_ms))
    away = [abs(a - b) for a, b in zip(fast.frame_times_ms, exact.frame_times_ms, strict=True)]
    assert max(away) <= 12_000 / 8
    assert all(abs(said - is_) <= 40 for said, is_ in zip(fast.offsets_ms, away, strict=True))
    assert set(exact.offsets_ms) == {0}


def test_an_interval_with_key_frames_gives_one_of_them(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=300, options={**X264, "g": "25"})
    frames = sorted(full_decode(path), key=lambda frame: frame.pts)
    keys = {40 * rank for rank, frame in enumerate(frames) if frame.key_frame}
    assert set(decoded(path, "fast").frame_times_ms) <= keys


def test_a_short_span_gets_the_exact_frames(video: Path) -> None:
    span = Span(start_ms=2000, end_ms=2600)
    fast, exact = decoded(video, "fast", span), decoded(video, "exact", span)
    assert fast.frames is not None
    assert exact.frames is not None
    assert np.array_equal(fast.frames, exact.frames)
    assert fast.frame_times_ms == exact.frame_times_ms


def test_only_chosen_packets_are_read_where_the_container_has_an_index(tmp_path: Path) -> None:
    part = encode(tmp_path / "part.mp4", count=300, options={**X264, "g": "25"})
    path = join([part] * 4, tmp_path / "a.mp4")
    with open_source(str(path)) as source, open_video(source, Limits(), quick=True) as opened:
        reader = FastReader(opened, read_head(opened), Converter(32, "viclip"))
        before = opened.packets_read
        reader.read(Span(start_ms=0, end_ms=48_000), 8)
        assert opened.packets_read - before <= 8


def test_a_file_that_is_opened_anew_on_the_way_is_read_on(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.ts", count=300, options={**X264, "g": "40"})
    spans = [Span(start_ms=start, end_ms=start + 3000) for start in (0, 3000, 0, 6000, 0)]
    clips = list(decode_spans(str(path), spans, size_px=32, sampling="fast"))
    assert [clip.reason for clip in clips] == [""] * 5
    assert np.array_equal(clips[0].frames, clips[2].frames)


def test_an_open_end_is_the_end_of_the_file(video: Path) -> None:
    assert decode_clip(video, 3, None, sampling="fast", size=32).shape == (8, 32, 32, 3)


def test_a_damaged_file_gives_as_many_frames_as_exactly(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=300, options={**X264, "g": "25"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(bytes(data))
    fast, exact = decoded(path, "fast"), decoded(path, "exact")
    assert fast.reason == exact.reason == ""
    assert fast.filled_frames <= exact.filled_frames


@given(
    frames=st.lists(st.integers(1, 50), min_size=30, max_size=400),
    gap=st.integers(1, 120),
    wanted=st.integers(1, 12),
)
def test_any_spacing_of_key_frames_gives_rising_frames_near_their_intervals(
    frames: list[int], gap: int, wanted: int
) -> None:
    ticks = np.cumsum(frames).tolist()
    keys = ticks[::gap]
    spans = intervals(ticks[0], ticks[-1] + 1, wanted)
    reach = cheap_reach(keys, spans)
    assert reach is not None
    assert set(reach) <= set(keys)
    within = [t for t in ticks if t <= reach.get(max(k for k in keys if k <= t), -1)]
    chosen = choose_cheap(within, keys, spans)
    for tick, (low, high) in zip(chosen or [], spans if chosen else [], strict=True):
        assert abs(2 * tick - low - high) <= 2 * (high - low)
        assert tick in keys or not any(low <= key < high for key in keys)
    assert chosen is None or chosen == sorted(set(chosen))
