"""Container times become whole milliseconds."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from raydist.clips.timeline import Clock, end_tick, length_ms, timeline

bases = st.builds(Fraction, st.integers(1, 2000), st.integers(1, 10_000_000))


@given(first=st.integers(-(10**12), 10**12), base=bases, ms=st.integers(0, 10**8), tick=st.integers(0, 10**9))
def test_a_span_holds_exactly_the_ticks_of_its_milliseconds(first: int, base: Fraction, ms: int, tick: int) -> None:
    clock = Clock(first, base)
    start = clock.tick(ms)
    assert clock.ms(start) >= ms > clock.ms(start - 1)
    assert clock.ms(first + tick) == first * 0 + (tick * base * 1000).__floor__()


@given(times=st.lists(st.one_of(st.none(), st.integers(0, 300)), min_size=1, max_size=40))
def test_every_frame_gets_a_time_and_times_rise(times: list[int | None]) -> None:
    line = timeline(times, Fraction(1, 90), Fraction(30))
    assert sorted(line.places) == list(range(len(times)))
    assert line.ticks == sorted(line.ticks)
    assert line.clock.ms(line.ticks[0]) == 0


def test_frames_without_times_lie_between_their_neighbours() -> None:
    line = timeline([100, None, None, 130, 140, None], Fraction(1, 1000), Fraction(100))
    assert line.ticks == [100, 110, 120, 130, 140, 150]


def test_one_time_for_all_counts_as_none() -> None:
    line = timeline([7] * 50, Fraction(1, 1000), Fraction(25))
    assert [line.clock.ms(tick) for tick in line.ticks] == [40 * i for i in range(50)]


def test_a_last_duration_shorter_than_half_a_gap_is_not_believed() -> None:
    assert end_tick([0, 40, 80], 1) == 120
    assert end_tick([0, 40, 80], 400) == 480
    assert end_tick([0], 0) == 1


def test_the_length_is_always_beyond_the_last_frame() -> None:
    clock = Clock(0, Fraction(1, 1_000_000_000))
    assert length_ms(clock, 99, 100) == 1
