"""takes: traces drawn as a function of time, so that any moment, speed and framing of them can be had."""

# Shape legend: T pictures, S = SIDE

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydist.dedup.traces import SIDE, Trace


class Film:
    """A place and what moves about in it. `place` and `act` are seeds: takes of one place are other acts."""

    def __init__(self, place: int, act: int, *, reach: float = 0.15, cuts_s: tuple[float, ...] = ()) -> None:
        self._place, self._cuts_s = place, cuts_s
        random = np.random.default_rng((1, act))
        self._waves = random.uniform(0.03, 0.4, (3, 2, 3)), random.random((3, 2, 3)), reach

    def picture(self, time_s: float, zoom: float = 1.0) -> NDArray[np.float64]:
        """[S, S] grey levels at a moment; `zoom` 0.9 shows the middle 90 %."""
        shot = sum(time_s >= cut for cut in self._cuts_s)
        random = np.random.default_rng((self._place, shot))
        y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
        y, x = 0.5 + (y - 0.5) * zoom, 0.5 + (x - 0.5) * zoom
        picture = np.full((SIDE, SIDE), 110.0)
        for _ in range(8):
            fy, fx, phase = random.uniform(1, 6), random.uniform(1, 6), random.uniform(0, 6)
            picture += random.uniform(4, 14) * np.sin(2 * np.pi * (fy * y + fx * x) + phase)
        speeds, phases, reach = self._waves
        for thing in range(3):
            home, level = random.uniform(0.25, 0.75, 2), random.uniform(-90, 90)
            moved = reach * np.sin(2 * np.pi * (speeds[thing] * time_s + phases[thing])).sum(axis=1)
            far = ((y - home[0] - moved[0]) / 0.16) ** 2 + ((x - home[1] - moved[1]) / 0.12) ** 2
            picture += level * np.exp(-far)
        return np.clip(picture, 0, 255)

    def trace(
        self,
        start_s: float,
        end_s: float,
        *,
        shift_s: float = 0.0,
        speed: float = 1.0,
        zoom: float = 1.0,
        step_s: float = 0.5,
    ) -> Trace:
        """A clip of a file in which second t shows the film at `speed * t + shift_s`."""
        times = np.arange(start_s + step_s / 2, end_s, step_s)
        pictures = np.stack([self.picture(speed * time + shift_s, zoom) for time in times])
        return Trace(times_s=times, pictures_TSS=np.rint(pictures).astype(np.uint8), start_s=start_s, end_s=end_s)


def changed(trace: Trace, pictures_TSS: NDArray[np.floating] | NDArray[np.integer]) -> Trace:
    """The same moments with other pictures."""
    whole = np.clip(np.rint(pictures_TSS), 0, 255).astype(np.uint8)
    return Trace(times_s=trace.times_s, pictures_TSS=whole, start_s=trace.start_s, end_s=trace.end_s)
