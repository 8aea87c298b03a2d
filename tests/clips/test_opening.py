"""Opening: threads and hardware change what decoding costs, never what it shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from videos import VP9, X264, X265, encode

from raydist.clips.child import Child
from raydist.clips.container import open_video
from raydist.clips.decode import decode_spans
from raydist.clips.source import open_source
from raydist.records import LARGE_PIXELS, DecodedClip, Limits, Span

KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "h264": (".mp4", {"options": X264}),
    "h264 that does not say how far it reorders": (".mp4", {"options": {**X264, "bf": "0"}}),
    "hevc": (".mkv", {"codec": "libx265", "options": X265}),
    "vp9": (".webm", {"codec": "libvpx-vp9", "options": VP9}),
    "mpeg4": (".mp4", {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}}),
}
WHOLE = Span(start_ms=0, end_ms=4000)


def decoded(path: Path, limits: Limits) -> DecodedClip:
    (clip,) = decode_spans(str(path), [WHOLE], size_px=None, limits=limits)
    return clip


@pytest.mark.parametrize("kind", KINDS)
def test_a_quick_start_knows_what_a_thorough_one_finds(kind: str, tmp_path: Path) -> None:
    suffix, options = KINDS[kind]
    path = encode(tmp_path / f"a{suffix}", count=60, **options)  # type: ignore[arg-type]
    found = []
    for quick in (True, False):
        with open_source(str(path)) as source, open_video(source, Limits(), quick=quick) as video:
            frames = [frame.pts for packet in video.packets() for frame in video.decode(packet)[0]]
            frames += [frame.pts for frame in video.decode(None)[0]]
            found.append((video.codec, video.decoder.width, video.rate, video.base, frames))
    assert found[0] == found[1]
    assert len(found[0][-1]) == 60


def test_hardware_that_is_not_there_falls_back_to_the_same_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", count=60)
    plain, other = decoded(path, Limits()), decoded(path, Limits(hwaccel="cuda"))
    assert other.reason == ""
    assert np.array_equal(plain.frames, other.frames)
    with Child(Limits(hwaccel="cuda")) as child:
        (clip,) = child.decode(str(path), [WHOLE], frames=8, size_px=None, resize="viclip")
    assert np.array_equal(plain.frames, clip.frames)


def test_a_file_at_fault_is_told_with_hardware_too(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all" * 100)
    with Child(Limits(hwaccel="cuda")) as child:
        (clip,) = child.decode(str(path), [WHOLE], frames=8, size_px=None, resize="viclip")
    assert clip.reason == "not_a_video"


def test_large_pictures_on_several_threads_are_the_same(tmp_path: Path) -> None:
    width, height = 3840, 2160
    assert width * height >= LARGE_PIXELS
    path = encode(tmp_path / "a.mp4", count=12, size=(width, height), options={**X264, "preset": "ultrafast", "g": "8"})
    with open_source(str(path)) as source, open_video(source, Limits(threads=3), quick=True) as video:
        assert video.decoder.thread_count == 3
    plain, threaded = decoded(path, Limits()), decoded(path, Limits(threads=3))
    assert threaded.filled_frames == 0
    assert np.array_equal(plain.frames, threaded.frames)
    assert plain.frame_times_ms == threaded.frame_times_ms
