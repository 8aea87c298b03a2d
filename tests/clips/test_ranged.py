"""Reading by ranges: few requests, few bytes in vain, and what it does when one fails."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from loopback import Loopback
from noisy import need, noisy

from raydist.clips.decode import decode_spans, probe
from raydist.clips.ranged import RangedFile
from raydist.errors import SourceError
from raydist.records import Span

DATA = random.Random(1).randbytes(3_000_000)


class Server:
    """Counts what is fetched."""

    def __init__(self) -> None:
        self.fetched: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        self.fetched.append((start, length))
        return DATA[start : start + length]


@pytest.fixture
def server() -> Server:
    return Server()


def test_any_reads_and_seeks_give_what_the_file_holds(server: Server) -> None:
    dice = random.Random(7)
    file, model = RangedFile(server, len(DATA)), io.BytesIO(DATA)
    for _ in range(2_000):
        if dice.random() < 0.4:
            place = dice.choice([dice.randrange(len(DATA)), model.tell() + dice.randrange(100_000), len(DATA) - 5])
            assert file.seek(place) == model.seek(place)
        if dice.random() < 0.05:
            start = dice.randrange(len(DATA))
            file.expect(start, start + dice.randrange(500_000))
        size = dice.choice([1, 100, 32_768, 300_000])
        assert file.read(size) == model.read(size)
        assert file.tell() == model.tell()
    file.seek(0)
    assert file.read() == DATA


def test_the_ends_are_not_fetched_twice(server: Server) -> None:
    file = RangedFile(server, len(DATA))
    for _ in range(3):
        file.seek(0)
        file.read(64 << 10)
        file.seek(len(DATA) - 1000)
        file.read(1000)
        file.seek(1_500_000)
        file.read(10)
    assert [length for _, length in server.fetched] == [64 << 10] * 3


def test_reading_on_takes_ever_larger_steps_and_little_beyond(server: Server) -> None:
    file = RangedFile(server, len(DATA))
    for _ in range(50):
        file.read(32_768)
    assert len(server.fetched) <= 8
    assert sum(length for _, length in server.fetched) <= 50 * 32_768 + (512 << 10)


def test_what_is_expected_comes_at_once_and_nothing_beyond(server: Server) -> None:
    file = RangedFile(server, len(DATA))
    file.expect(200_000, 1_900_000)
    file.seek(200_000)
    for _ in range(17):
        file.read(100_000)
    assert server.fetched == [(200_000, 1_700_000)]


def test_reading_on_beyond_what_was_expected_begins_with_little(server: Server) -> None:
    file = RangedFile(server, len(DATA))
    file.read(10)
    file.expect(200_000, 2_200_000)
    file.seek(200_000)
    file.read(2_000_000)
    file.read(10)
    assert server.fetched[-1][1] <= 128 << 10


def test_a_failure_is_raised_once_and_kept() -> None:
    def fail(start: int, length: int) -> bytes:
        raise SourceError("unreadable", "gone")

    file = RangedFile(fail, 1000)
    with pytest.raises(SourceError, match="gone"):
        file.read(10)
    assert file.read(10) == b""
    assert file.failure is not None


@pytest.mark.parametrize(("moov_first", "sound"), [(True, False), (False, True)])
def test_a_span_of_a_large_file_costs_little_more_than_its_bytes(tmp_path: Path, moov_first: bool, sound: bool) -> None:
    path = noisy(tmp_path, 2, 20, moov_first=moov_first, sound=sound)
    span = Span(start_ms=31_000, end_ms=61_000)
    needed = need(path, span.start_ms, span.end_ms)
    exact_most, fast_most = 1.3 * (needed.span_bytes + needed.index_bytes), 0.5 * needed.span_bytes
    with Loopback({"/a.mp4": path.read_bytes()}) as web:
        for sampling, most, requests in (("exact", exact_most, 8), ("fast", fast_most, 20)):
            web.forget()
            (clip,) = decode_spans(f"{web.url}/a.mp4", [span], sampling=sampling)
            (local,) = decode_spans(str(path), [span], sampling=sampling)
            assert np.array_equal(clip.frames, local.frames)
            assert 0 < clip.bytes_read == web.sent <= most
            assert len(web.asked) <= requests
        web.forget()
        found = probe(f"{web.url}/a.mp4")
        assert web.sent < 5_000_000
        assert found.duration_ms == probe(str(path)).duration_ms
