"""What wanted frames build on: less is decoded, and not a bit changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import expected, same
from videos import X265, encode, full_decode

from raydist.clips import av1
from raydist.clips.bitstream import LeadingPictures, hevc_picture
from raydist.clips.container import open_video, read_head
from raydist.clips.decode import decode_spans, probe
from raydist.clips.exact import ExactReader
from raydist.clips.needed import needs
from raydist.clips.picture import Converter
from raydist.clips.source import open_source
from raydist.records import Limits, Span

SVT = {"preset": "10", "crf": "50", "g": "64", "svtav1-params": "lp=1"}
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "av1": (".mp4", {"codec": "libsvtav1", "options": SVT}),
    "av1 in matroska": (".mkv", {"codec": "libsvtav1", "options": SVT}),
    "av1 with low delay": (".mp4", {"codec": "libsvtav1", "options": {**SVT, "svtav1-params": "lp=1:pred-struct=1"}}),
    "hevc": (".mp4", {"codec": "libx265", "options": X265}),
    "hevc with sub-layers": (
        ".mp4",
        {
            "codec": "libx265",
            "options": {**X265, "x265-params": X265["x265-params"] + ":temporal-layers=3:b-pyramid=1"},
        },
    ),
    "hevc in a transport stream": (".ts", {"codec": "libx265", "options": X265}),
}
SPANS = [Span(start_ms=start, end_ms=end) for start, end in ((0, 8000), (2500, 6100), (4000, 4400), (7900, 8000))]


@pytest.fixture(scope="module", params=KINDS)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    suffix, options = KINDS[request.param]
    return encode(tmp_path_factory.mktemp("needed") / f"a{suffix}", count=200, size=(128, 96), **options)  # type: ignore[arg-type]


def test_the_frames_are_those_of_a_full_decode(video: Path) -> None:
    clips = decode_spans(str(video), SPANS, size_px=None)
    assert [same(clip, shown) for clip, shown in zip(clips, expected(video, SPANS), strict=True)] == [True] * len(SPANS)


def test_less_than_all_packets_up_to_a_frame_are_decoded(video: Path) -> None:
    with open_source(str(video)) as source, open_video(source, Limits(), quick=True) as opened:
        fed: list[int] = []
        decode = opened.decode
        opened.decode = lambda packet: (fed.append(packet.size if packet else 0), decode(packet))[1]  # type: ignore[method-assign]
        reader = ExactReader(opened, read_head(opened), Converter(32, "viclip"))
        stretch, ticks = reader.stretch(Span(start_ms=0, end_ms=8000))
        wanted = ticks[:: len(ticks) // 3]
        assert sorted(reader.pictures(stretch, wanted)) == wanted
    assert stretch.kept is not None
    last = max(place for place, tick in enumerate(stretch.times) if tick in wanted)
    assert sum(fed) < sum(packet.size for packet in stretch.kept[: last + 1])


def test_frames_of_av1_say_what_they_read_and_fill() -> None:
    key = av1.Frame(reads=0, fills=av1.ALL_SLOTS, is_key=True)
    # A sequence header of Main profile without timing, then a shown key frame, as an encoder writes them.
    sequence = bytes([0x0A, 0x0B, 0, 0, 0, 0x4A, 0xAB, 0xBF, 0xC3, 0x77, 0xFF, 0xE7, 0x01])
    found = av1.Reader(None).frames(memoryview(sequence + bytes([0x32, 0x02, 0x10, 0x00])))
    assert [(start, frame) for start, frame in found] == [(len(sequence), key)]


@given(data=st.binary(max_size=200))
def test_any_bytes_are_frames_of_av1_or_refused(data: bytes) -> None:
    reader = av1.Reader(bytes(4) + data)
    try:
        frames = reader.frames(memoryview(data))
    except ValueError:
        return
    assert all(0 <= start < len(data) for start, _ in frames)


def test_a_damaged_header_leads_to_decoding_everything(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=60, size=(128, 96), codec="libsvtav1", options=SVT)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        extradata = stream.codec_context.extradata
    sound, damaged = needs("av1", extradata), needs("av1", extradata)
    assert sound is not None
    assert damaged is not None
    for place, packet in enumerate(packets):
        sound.note(packet)
        damaged.note(av.Packet(bytes(packet)[: packet.size // 2]) if place == 20 else packet)
    kept = sound.of(0, 40, [0, 40])
    assert kept is not None
    assert {0, 40} <= set(kept) < set(range(41))
    assert damaged.of(0, 40, [0, 40]) is None
    assert damaged.of(0, 19, [0, 19]) is not None


def test_pictures_behind_a_broken_link_are_no_frames(tmp_path: Path) -> None:
    options = {**X265, "x265-params": X265["x265-params"] + ":open-gop=1"}
    parts = [encode(tmp_path / f"{n}.mp4", count=90, codec="libx265", options=options, seed=n) for n in range(2)]
    path = join_at_a_broken_link(parts, tmp_path / "a.mp4")
    shown = len(full_decode(path))
    assert probe(str(path)).frames == shown
    spans = [Span(start_ms=start, end_ms=start + 2000) for start in range(0, 4000, 500)]
    clips = decode_spans(str(path), spans, size_px=None)
    assert all(same(clip, frames) for clip, frames in zip(clips, expected(path, spans), strict=True))


def join_at_a_broken_link(paths: Sequence[Path], out: Path) -> Path:
    """Two open-GOP streams behind each other; the second begins at its second group, marked as a broken link (BLA)."""
    with av.open(str(out), "w") as target, av.open(str(paths[0])) as first, av.open(str(paths[1])) as second:
        stream = target.add_stream_from_template(first.streams.video[0])
        packets = [packet for packet in first.demux(video=0) if packet.size]
        later = [packet for packet in second.demux(video=0) if packet.size]
        start = [place for place, packet in enumerate(later) if packet.is_keyframe][1]
        offset = max(packet.pts for packet in packets) + 1024 - later[start].dts
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
        dropped = 0
        for place, packet in enumerate(later[start:]):
            data = bytearray(packet)
            if place == 0:
                dropped = mark_as_broken_link(data)
            changed = av.Packet(bytes(data))
            changed.pts, changed.dts = packet.pts + offset, packet.dts + offset
            changed.time_base, changed.duration = packet.time_base, packet.duration
            changed.is_keyframe = packet.is_keyframe
            changed.stream = stream
            target.mux(changed)
        assert dropped == 1
    return out


def mark_as_broken_link(packet: bytearray) -> int:
    """Rewrite the type of clean random access pictures (21) to broken link (16); how many there were."""
    place = count = 0
    while place + 4 < len(packet):
        length = int.from_bytes(packet[place : place + 4], "big")
        if packet[place + 4] >> 1 & 0x3F == 21:
            packet[place + 4] = packet[place + 4] & 0x81 | 16 << 1
            count += 1
        place += 4 + length
    return count


@given(data=st.binary(max_size=60), length_bytes=st.sampled_from([0, 1, 2, 4]))
def test_any_bytes_are_a_packet_of_hevc(data: bytes, length_bytes: int) -> None:
    for packet in (data, data + b"\0\0\1"):
        assert isinstance(LeadingPictures(length_bytes).drops(memoryview(packet)), bool)
        hevc_picture(memoryview(packet), length_bytes)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no scheduling policies")
def test_encoding_leaves_the_tests_at_their_usual_priority(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    encode(tmp_path / "a.mp4", count=20, size=(128, 96), codec="libsvtav1", options=SVT)
    assert os.sched_getscheduler(0) == before == os.SCHED_OTHER
