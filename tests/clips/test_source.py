"""What may be opened, and what is refused whatever its name."""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path

import pytest
from PIL import Image
from videos import encode

from raydist.clips.child import Child
from raydist.clips.decode import decode_clip, probe
from raydist.clips.source import file_fingerprint, open_source, stat_source
from raydist.errors import SourceError


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("source") / "a.mp4", count=20)


def reason(location: str | Path) -> str:
    with pytest.raises(SourceError) as caught:
        probe(str(location))
    return caught.value.reason


def test_what_is_no_regular_file_is_told_apart(tmp_path: Path, video: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "dir.mp4").mkdir()
    (tmp_path / "nowhere.mp4").symlink_to("gone.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "link.mp4").symlink_to(video)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket.mp4"))
    expected = {"fifo": "not_a_file", "dir": "not_a_file", "nowhere": "not_a_file", "loop": "not_a_file"}
    expected |= {"empty": "empty", "socket": "not_a_file", "missing": "missing", "null\0byte": "missing"}
    assert {name: reason(tmp_path / f"{name}.mp4") for name in expected} == expected
    assert probe(str(tmp_path / "link.mp4")).frames == 20


def test_devices_are_not_opened() -> None:
    assert reason("/dev/zero") == "not_a_file"


@pytest.mark.parametrize(
    "name", ["concat:a.mp4|b.mp4", "data:text,x.mp4", "http:x.mp4", "-i.mp4", " ", "pipe:0", "%d.mp4"]
)
def test_a_name_is_never_a_protocol(tmp_path: Path, video: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert probe(name).frames == 20


def test_names_that_are_not_utf8_work(tmp_path: Path, video: Path) -> None:
    location = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe\n.mp4")
    Path(location).write_bytes(video.read_bytes())
    assert decode_clip(location, size=16).shape == (8, 16, 16, 3)
    Path(location).write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"\\xff\\xfe\\n\.mp4'"):
        probe(location)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n",
        b"\xef\xbb\xbf #EXTM3U\n",
        b"ffconcat version 1.0\nfile a.mp4\n",
        b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 9 RTP/AVP 96\r\n",
        b"RTSPtextRTSP://127.0.0.1:9/a",
        b"\x1b[31mred\x1b[0m text\n" * 50,
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "m3u8"])
def test_what_points_elsewhere_is_refused_by_its_content(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    assert reason(path) == "refused_format"


def test_a_drawing_has_no_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="b.png"/></svg>')
    assert reason(path) == "no_video_stream"


def test_a_picture_that_is_a_bomb_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    Image.new("1", (30_000, 30_000)).save(path, format="PNG")
    assert path.stat().st_size < 1 << 18
    assert reason(path) == "too_large"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_still_picture_is_no_video_whatever_its_suffix(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mp4"
    Image.new("RGB", (32, 24), (200, 30, 90)).save(path, format=kind)
    assert reason(path) == "picture"


def test_a_gif_of_one_frame_is_a_video(tmp_path: Path) -> None:
    Image.new("RGB", (32, 24), (200, 30, 90)).save(tmp_path / "a.mp4", format="GIF")
    assert decode_clip(tmp_path / "a.mp4", size=None).shape == (8, 24, 32, 3)


def test_an_apng_is_a_video(tmp_path: Path) -> None:
    assert probe(str(encode(tmp_path / "a.apng", codec="apng", options={}, count=5))).frames == 5


def test_text_and_noise_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b'{"error": 404}')
    (tmp_path / "b.mp4").write_bytes(bytes(range(256)) * 64)
    assert [reason(tmp_path / "a.mp4"), reason(tmp_path / "b.mp4")] == ["not_a_video"] * 2


def test_the_fingerprint_follows_content_and_size_only(tmp_path: Path, video: Path) -> None:
    def fingerprint(data: bytes) -> str:
        path = tmp_path / "f"
        path.write_bytes(data)
        with open_source(str(path)) as source:
            return file_fingerprint(source)

    big = bytes(300_000)
    assert fingerprint(big) == fingerprint(big)
    variants = {fingerprint(d) for d in (big, b"1" + big[1:], big[:-1] + b"1", big + b"\0", video.read_bytes())}
    assert len(variants) == 5
    assert all(len(value) == 32 for value in variants)
    assert stat_source(str(video)).bytes == video.stat().st_size


def patched(path: Path, out: Path, box: bytes, fields: bytes) -> Path:
    """An mp4 whose box starts with these fields, behind its version and flags."""
    data = bytearray(path.read_bytes())
    place = data.index(box) + 8
    data[place : place + len(fields)] = fields
    out.write_bytes(data)
    return out


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_an_index_that_does_not_fit_into_memory_is_too_large(tmp_path: Path, video: Path) -> None:
    bomb = video
    for box, fields in (
        (b"stsz", (100, 80_000_000)),
        (b"stsc", (1, 1, 80_000_000, 1)),
        (b"stts", (1, 80_000_000, 512)),
    ):
        bomb = patched(bomb, tmp_path / f"{box.decode()}.mp4", box, struct.pack(f">{len(fields)}I", *fields))
    with Child() as child, pytest.raises(SourceError, match="declares 80,000,000 frames") as caught:
        child.probe(str(bomb))
    assert caught.value.reason == "too_large"


def test_a_count_that_lies_costs_no_frame(tmp_path: Path, video: Path) -> None:
    assert probe(str(patched(video, tmp_path / "a.mp4", b"stts", struct.pack(">II", 1, 80_000_000)))).frames == 20


def test_a_table_that_claims_more_than_its_file_holds_is_no_video(tmp_path: Path, video: Path) -> None:
    assert reason(patched(video, tmp_path / "a.mp4", b"stts", struct.pack(">I", 0x0FFFFFFF))) == "not_a_video"
