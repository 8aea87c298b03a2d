"""What looking at a file tells: from the packets, not from what the header declares."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.video.frame import VideoFrame
from videos import X264, encode

from raydist.clips import probe as module
from raydist.clips.child import Child
from raydist.clips.decode import decode_spans
from raydist.clips.probe import probe
from raydist.errors import SourceError
from raydist.records import Span


def test_length_and_frames_come_from_the_packets(tmp_path: Path) -> None:
    found = probe(str(encode(tmp_path / "a.mp4", count=75)))
    assert (found.duration_ms, found.frames, found.fps) == (3000, 75, 25.0)
    assert (found.width, found.height, found.rotation) == (96, 64, 0)
    assert (found.codec, found.has_audio) == ("h264", False)
    assert found.bytes == (tmp_path / "a.mp4").stat().st_size


def test_a_declared_length_that_no_packet_supports_does_not_count(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", count=200, options={**X264, "crf": "10"})
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = probe(str(cut))
    assert 20 < found.frames < 150
    assert found.frames * 40 <= found.duration_ms <= found.frames * 40 + 160  # B-frames of the cut end are missing


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_head_and_tail_of_a_large_file_tell_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = str(encode(tmp_path / f"a.{suffix}", count=600))
    whole = probe(path)
    monkeypatch.setattr(module, "WHOLE_BYTES", 1)
    large = probe(path)
    assert (large.duration_ms, large.frames) == (24_000, -1)
    assert whole.duration_ms == 24_000


def test_a_large_file_that_was_cut_is_as_long_as_its_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", count=200)
    data = path.read_bytes()
    moov = data.index(b"moov") - 4
    mdat = data.index(b"mdat") - 4
    cut = tmp_path / "cut.mp4"
    # The index moves to the front (its offsets then point into the media as before: they are patched by the shift).
    index = bytearray(data[moov:])
    table = index.index(b"stco") + 8
    count = int.from_bytes(index[table : table + 4], "big")
    for entry in range(count):
        place = table + 4 + 4 * entry
        old = int.from_bytes(index[place : place + 4], "big")
        index[place : place + 4] = (old + len(index)).to_bytes(4, "big")
    fast = data[:mdat] + bytes(index) + data[mdat:moov]
    cut.write_bytes(fast[: len(fast) * 6 // 10])
    whole = probe(str(cut))
    monkeypatch.setattr(module, "WHOLE_BYTES", 1)
    assert 1000 < probe(str(cut)).duration_ms <= whole.duration_ms < 7000


def test_files_without_times_are_as_long_as_their_frames_at_the_average_rate(tmp_path: Path) -> None:
    found = probe(str(encode(tmp_path / "a.h264", count=50)))
    assert (found.duration_ms, found.frames) == (2000, 50)


def test_the_container_s_start_is_kept(tmp_path: Path) -> None:
    found = probe(str(encode(tmp_path / "a.mp4", count=20, times=[12_800 * 5 + 512 * i for i in range(20)])))
    assert found.duration_ms == 800


@pytest.mark.parametrize("name", ["a.wav", "a.srt"])
def test_sound_and_subtitles_have_no_video_stream(tmp_path: Path, name: str) -> None:
    wave = b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0\x80>\0\0\2\0\x10\0data" + (4000).to_bytes(4, "little")
    text = b"1\n00:00:00,000 --> 00:00:01,000\nhello\n\n2\n00:00:01,000 --> 00:00:02,000\nworld\n\n"
    (tmp_path / name).write_bytes(wave + bytes(4000) if name.endswith("wav") else text)
    with pytest.raises(SourceError) as caught:
        probe(str(tmp_path / name))
    assert caught.value.reason == "no_video_stream"


def test_a_video_of_which_nothing_decodes_has_no_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=30)
    data = bytearray(path.read_bytes())
    mdat = data.index(b"mdat") + 4
    data[mdat : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - mdat)
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="h264") as caught:
        probe(str(path))
    assert caught.value.reason == "no_frames"


def with_times(path: Path, out: Path, times: list[int]) -> Path:
    """The same packets with these times in ms, of a video without B-frames."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for packet, time in zip(packets, times, strict=True):
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = time
            packet.duration = 40
            packet.stream = stream
            target.mux(packet)
    return out


FLAT = {"preset": "ultrafast", "threads": "1", "bf": "0"}


@pytest.mark.parametrize("whole_bytes", [64 << 20, 1])
@pytest.mark.parametrize("wild", [[10**12], [10**12, 10**12 + 40], [2 * 3600 * 1000]])
def test_a_few_wild_times_at_the_end_do_not_make_a_file_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wild: list[int], whole_bytes: int
) -> None:
    plain = encode(tmp_path / "a.mkv", count=4 + len(wild), options=FLAT)
    path = with_times(plain, tmp_path / "wild.mkv", [0, 40, 80, 120, *wild])
    monkeypatch.setattr(module, "WHOLE_BYTES", whole_bytes)
    assert probe(str(path)).duration_ms == 160


def test_a_file_of_more_than_ten_days_fails(tmp_path: Path) -> None:
    plain = encode(tmp_path / "a.mkv", count=5, options=FLAT)
    path = with_times(plain, tmp_path / "wild.mkv", [0, *(10**12 + 40 * number for number in range(4))])
    with pytest.raises(SourceError, match=r"the limit is 864,000 s.*ffmpeg") as caught:
        probe(str(path))
    assert caught.value.reason == "too_large"


def test_a_gap_of_less_than_an_hour_is_part_of_the_file(tmp_path: Path) -> None:
    plain = encode(tmp_path / "a.mkv", count=5, options=FLAT)
    path = with_times(plain, tmp_path / "gap.mkv", [0, 40, 80, 120, 3_000_000])
    found = probe(str(path))
    assert (found.duration_ms, found.frames) == (3_000_040, 5)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_gaps_hold_no_frame_and_what_is_beside_them_does(tmp_path: Path, suffix: str) -> None:
    second = 12_800
    ticks = [number * 512 for number in range(50)] + [100 * second + number * 512 for number in range(50)]
    path = str(encode(tmp_path / f"a.{suffix}", times=[*ticks, 103 * second, 110 * second], count=102))
    found = probe(path)
    spans = [Span(start_ms=low, end_ms=high) for low, high in found.gaps_ms]
    assert [(low // 1000, round(high, -1)) for low, high in found.gaps_ms] == [
        (1, 100_000),
        (101, 103_000),
        (103, 110_000),
    ]
    assert [clip.reason for clip in decode_spans(path, spans)] == ["no_frames"] * 3
    wider = [Span(start_ms=span.start_ms - 1, end_ms=span.end_ms) for span in spans]
    wider += [Span(start_ms=span.start_ms, end_ms=span.end_ms + 1) for span in spans]
    assert [clip.reason for clip in decode_spans(path, wider)] == [""] * 6
    with Child() as child:
        assert child.probe(path) == found


def test_streams_that_appear_on_the_way_end_nothing_early(tmp_path: Path) -> None:
    first = encode(tmp_path / "a.ts", count=500)
    with av.open(str(tmp_path / "b.ts"), "w") as container:
        streams = [container.add_stream("mpeg2video", rate=25) for _ in range(40)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for stream in streams:
            container.mux(stream.encode(VideoFrame(32, 32, "yuv420p")))
            container.mux(stream.encode(None))
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + (tmp_path / "b.ts").read_bytes())
    assert probe(str(both)).frames >= 499
    (clip,) = decode_spans(str(both), [Span(start_ms=19_000, end_ms=20_000)])
    assert clip.frames is not None, clip
