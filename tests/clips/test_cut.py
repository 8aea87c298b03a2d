"""A cut holds its span and nothing else: every picture is a frame of the span by time and by pixels, and all of it is
covered, whether packets were copied or pictures encoded anew.
"""

# Shape legend: H height, W width

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from footage import Source, check, join_real, spans_of
from loopback import Loopback
from videos import VP9, X264, X265, encode, join, rotate

from raydist.clips.child import Child
from raydist.clips.cut import cut_spans
from raydist.clips.decode import probe
from raydist.clips.hdr import is_hdr
from raydist.clips.sampling import choose_even
from raydist.records import Cut, Span

LONG_GOP = {**X264, "g": "250", "keyint_min": "250", "sc_threshold": "0"}
SHORT_GOP = {**X264, "g": "50", "keyint_min": "50", "sc_threshold": "0"}


def cut(path: Path, spans: Sequence[Span], **wanted: Any) -> list[Cut]:
    cuts = list(cut_spans(str(path), spans, **{"max_px": 384, "max_bytes": 4 << 20, **wanted}))
    assert [found.span for found in cuts] == list(spans)
    return cuts


@pytest.fixture(scope="module")
def long_gops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 s of H.264 in groups of pictures of 10 s, joined from several encodes."""
    folder = tmp_path_factory.mktemp("long")
    parts = [encode(folder / f"{seed}.mp4", count=250, options=LONG_GOP, seed=seed) for seed in range(4)]
    return join(parts, folder / "long.mp4")


def test_spans_that_do_not_begin_at_key_frames_are_encoded_anew(long_gops: Path) -> None:
    source = Source(long_gops)
    cuts = cut(long_gops, spans_of(probe(str(long_gops)).duration_ms, 7_300))
    assert [found.copied for found in cuts] == [False] * 6
    for found in cuts:
        check(source, found)


def test_spans_that_are_whole_groups_of_pictures_are_copied(long_gops: Path) -> None:
    source = Source(long_gops)
    for step_ms in (10_000, 20_000):
        cuts = cut(long_gops, spans_of(40_000, step_ms))
        assert all(found.copied for found in cuts)
        for found in cuts:
            check(source, found)


ENCODES: dict[str, dict[str, Any]] = {
    "b.mp4": {"options": SHORT_GOP},
    "b.mkv": {"options": SHORT_GOP},
    "plain.mp4": {"options": {**SHORT_GOP, "bf": "0"}},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {
            "preset": "ultrafast",
            "x265-params": "bframes=3:keyint=50:min-keyint=50:open-gop=0:scenecut=0:log-level=none:pools=none",
        },
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {**VP9, "g": "50", "keyint_min": "50"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "10", "g": "50", "svtav1-params": "lp=1"}},
}


@pytest.mark.parametrize("name", ENCODES)
def test_closed_groups_of_every_codec_that_browsers_play_are_copied(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, count=150, **ENCODES[name])
    source = Source(path)
    cuts = cut(path, [*spans_of(6000, 2000), Span(start_ms=1000, end_ms=3000)])
    assert [found.copied for found in cuts] == [True, True, True, False]
    for found in cuts:
        check(source, found)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("open.mp4", {"codec": "libx264", "options": {**SHORT_GOP, "x264-params": "open-gop=1"}}),
        ("open.mkv", {"codec": "libx265", "options": X265 | {"x265-params": X265["x265-params"] + ":open-gop=1"}}),
        ("b.ts", {"options": SHORT_GOP}),
        ("old.avi", {"codec": "mpeg4", "options": {"g": "50"}}),
        ("refresh.mp4", {"options": {**SHORT_GOP, "x264-params": "intra-refresh=1"}}),
    ],
)
def test_what_builds_on_frames_outside_or_plays_nowhere_is_encoded_anew(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    path = encode(tmp_path / name, count=150, **options)
    source = Source(path)
    cuts = cut(path, [Span(start_ms=2000, end_ms=4000), Span(start_ms=3200, end_ms=5200)])
    assert [found.copied for found in cuts] == [False, False]
    for found in cuts:
        check(source, found)


def test_copies_are_no_larger_than_may_be_sent_nor_are_encodes(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=100, size=(320, 240), options={**SHORT_GOP, "crf": "10"})
    source = Source(path)
    span = Span(start_ms=0, end_ms=2000)
    (copied,) = cut(path, [span])
    assert copied.copied
    (smaller,) = cut(path, [span], max_bytes=len(copied.data) - 1)
    assert not smaller.copied
    check(source, smaller)
    (narrow,) = cut(path, [span], max_px=160)
    assert (narrow.copied, narrow.width_px, narrow.height_px) == (False, 160, 120)
    check(source, narrow)
    (tiny,) = cut(path, [span], max_bytes=len(narrow.data) // 2)
    assert len(tiny.data) <= len(narrow.data) // 2
    (refused,) = cut(path, [span], max_bytes=500)
    assert (refused.reason, refused.data) == ("too_big", b"")
    assert "500 bytes" in refused.detail


def test_frames_of_changing_rate_keep_their_times(tmp_path: Path) -> None:
    dice = np.random.default_rng(7)
    times = np.cumsum(dice.integers(100, 2_500, 200)).tolist()
    path = encode(tmp_path / "vfr.mp4", count=200, times=times, options=LONG_GOP)
    source = Source(path)
    length_ms = probe(str(path)).duration_ms
    cuts = cut(path, spans_of(length_ms, 2_700))
    for found in cuts:
        check(source, found)
    (whole,) = cut(path, [Span(start_ms=0, end_ms=length_ms)])
    assert whole.copied
    check(source, whole)


@pytest.mark.parametrize("offset_s", [3, 95])
def test_times_count_from_the_first_frame_where_a_file_starts_late(tmp_path: Path, offset_s: int) -> None:
    times = [(offset_s * 25 + number) * 512 for number in range(150)]
    for name in ("late.mkv", "late.ts"):
        path = encode(tmp_path / name, count=150, times=times, options=SHORT_GOP)
        assert probe(str(path)).start_offset_s >= offset_s
        source = Source(path)
        for found in cut(path, [*spans_of(6000, 2000), Span(start_ms=500, end_ms=1700)]):
            check(source, found)


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_pictures_of_turned_files_are_upright(tmp_path: Path, matrix: tuple[float, float, float, float]) -> None:
    path = rotate(encode(tmp_path / "a.mp4", count=100, options=SHORT_GOP), tmp_path / "turned.mp4", matrix)
    source = Source(path)
    cuts = cut(path, spans_of(4000, 2000))
    assert not any(found.copied for found in cuts)  # a player may not look at how it is to be turned
    for found in cuts:
        assert (found.width_px, found.height_px) == ((96, 64) if matrix[1] == 0 else (64, 96))
        check(source, found)


def test_pixels_that_are_no_squares_are_shown_as_on_a_screen(tmp_path: Path) -> None:
    path = encode(tmp_path / "wide.mp4", count=60, options={**SHORT_GOP, "x264-params": "sar=2/1"})
    (found,) = cut(path, [Span(start_ms=0, end_ms=2000)])
    assert (found.copied, found.width_px, found.height_px) == (False, 96, 32)
    check(Source(path), found)


def test_hdr_is_cut_as_sdr_screens_show_it(tmp_path: Path) -> None:
    said = "transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc"
    path = encode(tmp_path / "hdr.mp4", count=60, options={**SHORT_GOP, "x264-params": said})
    (found,) = cut(path, [Span(start_ms=0, end_ms=2000)])
    assert not found.copied
    check(Source(path), found)
    with av.open(io.BytesIO(found.data)) as container:
        assert not is_hdr(next(container.decode(video=0)).color_trc)


def test_a_gif_is_cut(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.gif", count=40, codec="gif", options={}, rate=10)
    source = Source(path)
    for found in cut(path, spans_of(4000, 1500)):
        assert not found.copied
        check(source, found)


def test_odd_edges_lose_a_line_and_small_pictures_are_not_enlarged(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", count=20, size=(97, 63), codec="ffv1", options={})
    (found,) = cut(path, [Span(start_ms=0, end_ms=800)])
    assert (found.width_px, found.height_px) == (96, 62)


def test_a_span_without_a_frame_has_a_reason(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=50)
    cuts = cut(path, [Span(start_ms=0, end_ms=1000), Span(start_ms=5000, end_ms=6000), Span(start_ms=3, end_ms=9)])
    assert [found.reason for found in cuts] == ["", "no_frames", "no_frames"]


def test_a_file_on_a_server_is_cut_and_fetched_once(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=300, size=(320, 240), options={**SHORT_GOP, "crf": "10"})
    source, spans = Source(path), [Span(start_ms=0, end_ms=2000), Span(start_ms=5000, end_ms=7300)]
    with Loopback({"/a.mp4": path.read_bytes()}) as web:
        cuts = list(cut_spans(f"{web.url}/a.mp4", spans, max_px=384, max_bytes=4 << 20))
        assert sum(found.bytes_read for found in cuts) == web.sent <= 1.2 * path.stat().st_size
    assert [found.copied for found in cuts] == [True, False]
    for found in cuts:
        check(source, found)


def test_a_child_cuts_as_this_process_does_and_says_what_concerns_the_file(long_gops: Path, tmp_path: Path) -> None:
    spans = [Span(start_ms=0, end_ms=10_000), Span(start_ms=3_000, end_ms=6_000), Span(start_ms=90_000, end_ms=91_000)]
    with Child() as child:
        there = list(child.cut(str(long_gops), spans, max_px=64, max_bytes=1 << 20))
        for here, found in zip(cut(long_gops, spans, max_px=64, max_bytes=1 << 20), there, strict=True):
            assert (here.data, here.copied, here.width_px, here.reason) == (
                found.data,
                found.copied,
                found.width_px,
                found.reason,
            )
        missing = child.cut(str(tmp_path / "none.mp4"), spans, max_px=64, max_bytes=1 << 20)
        assert [found.reason for found in missing] == ["missing"] * 3
        changed = child.cut(str(long_gops), spans, max_px=64, max_bytes=1 << 20, fingerprint="0" * 32)
        assert [found.reason for found in changed] == ["changed"] * 3


@pytest.mark.parametrize(
    ("presented", "frames", "chosen"),
    [
        ([3, 4, 5], 3, [3, 4, 5]),
        ([3, 4, 5], 9, [3, 4, 5]),
        (range(10), 4, [0, 3, 5, 8]),
        ([0, 1, 2, 3, 50, 99], 4, [0, 50, 99]),
        ([], 4, []),
    ],
)
def test_pictures_of_a_small_copy_lie_evenly_in_time(presented: list[int], frames: int, chosen: list[int]) -> None:
    assert choose_even(presented, frames) == chosen


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    if not (shared / "realvideo" / "files").is_dir():
        pytest.skip("no real video files beside the checkout")
    return shared / "realvideo" / "files"


def test_long_files_joined_from_real_ones_of_one_encoder_are_cut(real: Path, tmp_path: Path) -> None:
    """Films of 2 s and of 6.867 s with one key frame or few."""
    for names, span_ms in ((["s017", "s018", "s019", "s062"] * 2, 2000), (["s123", "s125"], 6867)):
        path = join_real([real / f"{name}.mp4" for name in names], tmp_path / "joined.mp4")
        source = Source(path)
        films = cut(path, [Span(start_ms=i * span_ms, end_ms=(i + 1) * span_ms) for i in range(len(names))], max_px=720)
        across = cut(path, spans_of(probe(str(path)).duration_ms, 3_100), max_px=240)
        if span_ms == 2000:
            assert all(found.copied for found in films)
        assert not any(found.copied for found in across)
        for found in (*films, *across):
            check(source, found, noise=0.5)


def test_a_long_file_joined_from_real_ones_of_many_sizes_and_rates_is_cut(real: Path, tmp_path: Path) -> None:
    names = ["s055", "s101", "s134", "s144", "s150", "s154", "s057"]
    path = join_real([real / f"{name}.mp4" for name in names], tmp_path / "joined.ts")
    source = Source(path)
    for found in cut(path, spans_of(probe(str(path)).duration_ms, 4_700), max_px=160):
        check(source, found, noise=1.0)
