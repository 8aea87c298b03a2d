"""Files that something writes to while they are read: clips of them end as `changed`, never as frames of two files."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from videos import encode

from raydist.clips.child import Child
from raydist.clips.decode import decode_spans, probe
from raydist.errors import SourceError
from raydist.records import DecodedClip, Span

SPANS = [Span(start_ms=ms, end_ms=ms + 1000) for ms in range(0, 8000, 1000)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("changes") / "a.ts", count=200)


@pytest.fixture
def copy(video: Path, tmp_path: Path) -> Path:
    shutil.copyfile(video, tmp_path / "a.ts")
    os.utime(tmp_path / "a.ts", (1_000_000_000, 1_000_000_000))
    return tmp_path / "a.ts"


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(path.read_bytes())


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.write(data[::-1])


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    shutil.copyfile(path, other)
    os.utime(other, (1_000_000_000, 1_000_000_000))
    other.replace(path)


def touch(path: Path) -> None:
    """All that can be told from without: a writer may have put anything in the middle."""
    path.touch()


CHANGES = [grow, truncate, overwrite, replace, touch]


@pytest.mark.parametrize("change", CHANGES)
def test_no_clip_comes_of_a_file_that_changed_since_it_was_opened(copy: Path, change: Callable[[Path], None]) -> None:
    clips = decode_spans(str(copy), SPANS, size_px=32)
    assert next(clips).frames is not None
    change(copy)
    with pytest.raises(SourceError) as caught:
        next(clips)
    assert caught.value.reason == "changed"


@pytest.mark.parametrize("change", CHANGES)
def test_each_span_of_a_file_that_changes_gives_one_result(copy: Path, change: Callable[[Path], None]) -> None:
    with Child() as child:
        decoding = child.decode(str(copy), SPANS, frames=8, size_px=32, resize="viclip")
        clips: list[DecodedClip] = [next(decoding)]
        change(copy)
        clips += decoding
    reasons = [clip.reason for clip in clips]
    assert [clip.span for clip in clips] == SPANS
    assert reasons[:1] == [""]
    assert set(reasons[3:]) == {"changed"}  # the process works ahead by a clip or two
    assert all((clip.frames is None) == bool(clip.reason) for clip in clips)


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Something writes on, as a recorder does."""
    stop = threading.Event()
    data = path.read_bytes()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(1e-4):
                file.write(data[:1880])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_a_growing_file_is_neither_probed_nor_decoded(copy: Path) -> None:
    with Child() as child, growing(copy):
        with pytest.raises(SourceError, match="while it was read") as caught:
            child.probe(str(copy))
        clips = list(child.decode(str(copy), SPANS, frames=8, size_px=32, resize="viclip"))
    assert caught.value.reason == "changed"
    assert [clip.reason for clip in clips] == ["changed"] * len(SPANS)


def test_a_file_that_is_removed_while_it_is_read_gives_its_clips(copy: Path) -> None:
    clips = decode_spans(str(copy), SPANS, size_px=32)
    first = next(clips)
    copy.unlink()
    assert all(clip.frames is not None for clip in (first, *clips))


def test_moving_a_folder_aside_and_back_is_no_change(copy: Path) -> None:
    before = probe(str(copy))
    copy.parent.rename(copy.parent.with_name("aside"))
    copy.parent.with_name("aside").rename(copy.parent)
    assert probe(str(copy)) == before
