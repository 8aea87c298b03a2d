"""The decoding process may hang, crash or be killed: each span still gives exactly one result, and nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from videos import X264, encode, full_decode, join

from raydist.clips.child import Child, Killers, _Death
from raydist.clips.decode import decode_spans, probe
from raydist.clips.picture import Converter
from raydist.errors import SourceError
from raydist.records import DecodedClip, Limits, Span

SPANS = [Span(start_ms=ms, end_ms=ms + 1000) for ms in range(0, 6000, 1000)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(encode(tmp_path_factory.mktemp("child") / "a.mp4", count=150))


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five minutes in one group of pictures: no clip of it is cheap, the last ones are dear."""
    folder = tmp_path_factory.mktemp("heavy")
    part = encode(folder / "part.mp4", count=250, size=(640, 360), options={**X264, "g": "999"})
    return str(join([part] * 30, folder / "a.mp4"))


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as child:
        yield child


def decode(child: Child, location: str, spans: list[Span] = SPANS) -> list[DecodedClip]:
    return list(child.decode(location, spans, frames=8, size_px=32, resize="viclip"))


def test_a_child_gives_what_decoding_in_process_gives(child: Child, video: str) -> None:
    here = list(decode_spans(video, SPANS, size_px=32))
    there = decode(child, video)
    for a, b in zip(here, there, strict=True):
        assert a.frames is not None
        assert b.frames is not None
        assert np.array_equal(a.frames, b.frames)
        assert (a.span, a.frame_times_ms, a.frame_hashes) == (b.span, b.frame_times_ms, b.frame_hashes)
    assert sum(clip.cpu_s for clip in there) > 0  # of single clips too, but some kernels count in hundredths
    assert child.probe(video) == probe(video)


def test_frames_stay_valid_after_the_next_result(child: Child, video: str) -> None:
    clips = child.decode(video, SPANS, frames=8, size_px=None, resize="viclip")
    first = next(clips)
    assert first.frames is not None
    kept = first.frames.copy()
    list(clips)
    assert np.array_equal(first.frames, kept)


def test_what_concerns_the_file_is_the_reason_of_each_span(child: Child, tmp_path: Path, video: str) -> None:
    assert [clip.reason for clip in decode(child, str(tmp_path / "none.mp4"))] == ["missing"] * 6
    changed = child.decode(video, SPANS, frames=8, size_px=32, resize="viclip", fingerprint="0" * 32)
    assert [clip.reason for clip in changed] == ["changed"] * 6
    with pytest.raises(SourceError) as caught:
        child.probe(str(tmp_path / "none.mp4"))
    assert caught.value.reason == "missing"


def test_one_process_serves_many_files(child: Child, video: str) -> None:
    child.probe(video)
    pid = child.pid
    for _ in range(5):
        decode(child, video)
        child.probe(video)
    assert child.pid == pid


def test_a_kill_costs_no_span(child: Child, video: str) -> None:
    clips = child.decode(video, SPANS, frames=8, size_px=32, resize="viclip")
    results = [next(clips), next(clips)]
    assert child.pid is not None
    kill(child.pid)
    results += clips
    assert [clip.span for clip in results] == SPANS
    assert [clip.reason for clip in results] == [""] * 6
    for clip, whole in zip(results, decode_spans(video, SPANS, size_px=32), strict=True):
        assert np.array_equal(clip.frames, whole.frames)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_file_that_kills_its_process_twice_fails_for_good(child: Child, video: str, number: signal.Signals) -> None:
    clips = child.decode(video, SPANS, frames=8, size_px=32, resize="viclip")
    results = []
    for _ in range(2):
        results.append(next(clips))
        assert child.pid is not None
        kill(child.pid, number)
    results += clips
    assert [clip.span for clip in results] == SPANS
    reasons = [clip.reason for clip in results]
    failed = reasons.count("crashed")  # each process may have sent one result ahead
    assert 2 <= failed <= 4
    assert reasons == [""] * (6 - failed) + ["crashed"] * failed
    assert all(f"died of {number.name}" in clip.detail for clip in results if clip.reason)


def decode_and_kill(child: Child, location: str, fingerprint: str = "") -> list[DecodedClip]:
    """Kill the process after the first of the spans."""
    clips = child.decode(location, SPANS, frames=8, size_px=32, resize="viclip", fingerprint=fingerprint)
    first = next(clips)
    assert child.pid is not None
    kill(child.pid, signal.SIGSEGV)
    return [first, *clips]


def test_deaths_of_one_file_count_over_calls(child: Child, video: str, tmp_path: Path) -> None:
    copy, new = tmp_path / "a.mp4", encode(tmp_path / "new.mp4", count=150, seed=1)
    shutil.copyfile(video, copy)
    fingerprint = probe(str(copy)).file_fingerprint
    assert [clip.reason for clip in decode_and_kill(child, str(copy), fingerprint)] == [""] * 6
    second = decode_and_kill(child, str(copy), fingerprint)
    assert {clip.reason for clip in second[3:]} == {"crashed"}  # the process works ahead by a clip or two
    child.probe(video)
    pid = child.pid
    later = list(child.decode(str(copy), SPANS, frames=8, size_px=32, resize="viclip", fingerprint=fingerprint))
    assert [(clip.span, clip.reason) for clip in later] == [(span, "crashed") for span in SPANS]
    assert all("died of SIGSEGV" in clip.detail for clip in later)
    assert child.pid == pid
    assert [clip.reason for clip in decode(child, video)] == [""] * 6
    new.replace(copy)
    assert [clip.reason for clip in decode_and_kill(child, str(copy), probe(str(copy)).file_fingerprint)] == [""] * 6


def test_few_files_that_killed_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydist.clips.child.KILLERS", 2)
    death, killers = _Death("crashed", "the decoder died of SIGSEGV", by_signal=True), Killers()
    killers.add("a", "1", death)
    assert killers.verdict("a", "1") is None
    killers.add("a", "", death)
    assert killers.verdict("a", "1") == death
    assert killers.verdict("a", "2") is None
    killers.add("b", "1", death)  # and a's first is forgotten
    assert killers.verdict("a", "1") is None


@pytest.mark.skipif(sys.platform != "linux", reason="sees open files in /proc")
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_probe_is_tried_again_after_one_death_not_after_two(child: Child, tmp_path: Path, deaths: int) -> None:
    part = encode(tmp_path / "a.264", count=250, size=(640, 360))
    long_file = tmp_path / "long.264"
    long_file.write_bytes(part.read_bytes() * 100)
    killed: set[int] = set()
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(child.probe, str(long_file))
        while len(killed) < deaths and not probing.done():
            for process in psutil.Process().children():
                if process.pid not in killed and has_open(process.pid, long_file):
                    kill(process.pid)
                    killed.add(process.pid)
        assert len(killed) == deaths
        if deaths == 2:
            probing.exception()
            with pytest.raises(SourceError, match="died of SIGKILL"):
                child.probe(str(long_file))  # at once
            assert [clip.reason for clip in decode(child, str(long_file))] == ["crashed"] * 6
            assert child.pid is None
    if deaths == 1:
        assert probing.result().frames == 25_000
    else:
        with pytest.raises(SourceError, match="died of SIGKILL") as caught:
            probing.result()
        assert caught.value.reason == "crashed"


def has_open(pid: int, path: Path) -> bool:
    with suppress(OSError):
        return any(os.readlink(fd.path) == str(path) for fd in os.scandir(f"/proc/{pid}/fd"))
    return False


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def test_two_deaths_give_up_the_rest_of_the_file_only(heavy: str, video: str) -> None:
    whole = [Span(start_ms=0, end_ms=300_000 + i) for i in range(5)]
    with Child(Limits(cpu_s=1)) as child:
        started = time.monotonic()
        clips = list(child.decode(heavy, whole, frames=64, size_px=32, resize="viclip"))
        assert [clip.span for clip in clips] == whole
        assert [clip.reason for clip in clips] == ["timeout"] * 5
        assert time.monotonic() - started < 5 * 5
        assert [clip.reason for clip in decode(child, video)] == [""] * 6


def test_a_kill_while_idle_costs_nothing(child: Child, video: str) -> None:
    decode(child, video)
    assert child.pid is not None
    kill(child.pid)
    assert [clip.reason for clip in decode(child, video)] == [""] * 6


def test_cpu_time_is_limited_by_span(heavy: str) -> None:
    spans = [Span(start_ms=0, end_ms=1000), Span(start_ms=0, end_ms=300_000), Span(start_ms=1000, end_ms=2000)]
    with Child(Limits(cpu_s=1)) as child:
        clips = list(child.decode(heavy, spans, frames=64, size_px=32, resize="viclip"))
    assert [clip.reason for clip in clips] == ["", "timeout", ""]
    assert "1 s of CPU time" in clips[1].detail


def test_a_process_that_hangs_is_killed_by_the_wall_clock(heavy: str) -> None:
    with Child(Limits(cpu_s=0.4)) as child:
        clips = child.decode(heavy, SPANS[:3], frames=8, size_px=32, resize="viclip")
        results = [next(clips)]
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)
        results += clips
    reasons = [clip.reason for clip in results]
    assert reasons.count("timeout") == 1
    assert reasons.count("") == 2
    assert any("wall-clock" in clip.detail for clip in results)


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_memory_is_limited(tmp_path: Path) -> None:
    large = str(encode(tmp_path / "a.mp4", count=10, size=(1920, 1080)))
    with Child(Limits(memory_bytes=40 << 20)) as child:
        clips = list(child.decode(large, SPANS[:1], frames=8, size_px=None, resize="viclip"))
        assert clips[0].reason == "too_large"
        assert decode(child, str(encode(tmp_path / "b.mp4", count=150)))[0].reason == ""


def test_a_frame_is_let_go_once_it_is_a_picture(video: str) -> None:
    frame = full_decode(video)[0]
    references = sys.getrefcount(frame)
    Converter(32, "viclip")(frame)
    assert sys.getrefcount(frame) == references


def test_closing_leaves_no_process_and_no_descriptor(video: str) -> None:
    before = len(os.listdir("/dev/fd"))
    with Child() as child:
        decode(child, video)
        pid = child.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert len(os.listdir("/dev/fd")) == before


def test_leaving_in_the_middle_of_a_file_does_not_disturb_the_next(child: Child, video: str) -> None:
    clips = child.decode(video, SPANS, frames=8, size_px=32, resize="viclip")
    next(clips)
    assert [clip.reason for clip in decode(child, video)] == [""] * 6


def test_a_killed_parent_leaves_no_orphan(heavy: str) -> None:
    code = """
        import sys
        from raydist.clips.child import Child
        from raydist.records import Span
        child = Child()
        child.probe(sys.argv[1])
        print(child.pid, flush=True)
        list(child.decode(sys.argv[1], [Span(start_ms=0, end_ms=300_000)] * 20, frames=8, size_px=32, resize="viclip"))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), heavy], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.05)


def test_the_child_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys, raydist.clips.service; print(sorted({'ray', 'torch', 'lance', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
