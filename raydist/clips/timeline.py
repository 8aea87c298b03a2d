"""timeline: container times to whole milliseconds of the file, in integers.

Reads   presentation times of packets or frames, in ticks of the stream's time base
Gives   a `Clock`, the frames' times where the container has none or has one time for all, and the file's length
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low


@dataclass(frozen=True, slots=True)
class Clock:
    """Ticks to milliseconds after the first presented frame."""

    first: int
    """Tick of the first presented frame."""
    base: Fraction
    """Seconds a tick."""

    def ms(self, tick: int) -> int:
        """Whole milliseconds, rounded down."""
        return (tick - self.first) * self.base.numerator * 1000 // self.base.denominator

    def tick(self, ms: int) -> int:
        """The first tick whose `ms` is at least this."""
        return self.first - (-ms * self.base.denominator // (self.base.numerator * 1000))


@dataclass(frozen=True, slots=True)
class Timeline:
    """The presented frames of a file, in order of presentation."""

    clock: Clock
    ticks: list[int]
    """Of each frame; may repeat."""
    places: list[int]
    """Of each frame: where it stood among the times given."""


def timeline(times: Sequence[int | None], base: Fraction, rate: Fraction) -> Timeline:
    """Order frames by time; frames without a time get one.

    Where at least half of the frames have times of their own, the others lie between their neighbours. Else (no times,
    or one for all) the frames are `1 / rate` apart, in the order given.

    Args:
        times: of each frame in ticks, in decoding or output order, at least one.
        base: seconds a tick.
        rate: frames a second.
    """
    known = [time for time in times if time is not None]
    if len(set(known)) < max(1, (len(times) + 1) // 2):
        return Timeline(Clock(0, 1 / rate), list(range(len(times))), list(range(len(times))))
    filled = _between(times, max(1, round(1 / (rate * base))))
    places = sorted(range(len(times)), key=filled.__getitem__)
    return Timeline(Clock(filled[places[0]], base), [filled[place] for place in places], places)


def end_tick(ticks: Sequence[int], last_duration: int) -> int:
    """End of the last frame: its packet's duration, else the median gap, else one tick.

    A duration below half the gap is none: containers that do not know it write one tick, or that of a field.

    Args:
        ticks: of the presented frames, rising, at least one.
        last_duration: of the last frame's packet; 0: unknown.
    """
    gaps = [after - before for before, after in pairwise(ticks) if after > before]
    gap = median_low(gaps) if gaps else 1
    return ticks[-1] + (last_duration if 2 * last_duration > gap else gap)


def length_ms(clock: Clock, last: int, end: int) -> int:
    """Length of a file in ms: always beyond the last frame, so that a span of the whole file holds it."""
    return max(clock.ms(end), clock.ms(last) + 1)


def _between(times: Sequence[int | None], gap: int) -> list[int]:
    known = [(place, time) for place, time in enumerate(times) if time is not None]
    first, start = known[0]
    filled = [start - (first - place) * gap for place in range(first)]
    for (left, low), (right, high) in pairwise(known):
        filled += [low + (high - low) * step // (right - left) for step in range(right - left)]
    last, end = known[-1]
    return filled + [end + step * gap for step in range(len(times) - last)]
