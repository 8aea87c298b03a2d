"""motions: where the object is, and how large, while the clip runs.

Each motion draws its own speed, phase and offsets from the generator, so no two paths are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np

from raydist.demo.words import MOTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an object is in one frame."""

    x: float
    """Centre, as a share of the picture's width."""
    y: float
    """Centre, as a share of the picture's height."""
    radius: float
    """Half its extent, as a share of the picture's height."""


Path = Callable[[float], Place]
"""Progress of the clip, 0 to 1 -> place."""


def path(motion: str, rng: np.random.Generator) -> Path:
    """A path of this motion; `motion` is one of `words.MOTIONS`."""
    assert motion in MOTIONS, motion
    radius = rng.uniform(0.14, 0.175)
    if motion in ("right", "left"):
        return _across(rng, radius, 1 if motion == "right" else -1)
    if motion in ("rise", "fall"):
        return _upright(rng, radius, -1 if motion == "rise" else 1)
    if motion == "bounce":
        return _bounce(rng, radius)
    if motion == "circle":
        return _circle(rng, radius)
    return _scale(rng, motion == "grow")


def _across(rng: np.random.Generator, radius: float, direction: int) -> Path:
    y, slope, sway = rng.uniform(0.3, 0.68), rng.uniform(-0.1, 0.1), rng.uniform(0, 0.02)
    reach, phase = rng.uniform(0.62, 0.86), rng.uniform(0, 2 * pi)
    middle = rng.uniform(0.48, 0.52)

    def at(t: float) -> Place:
        along = (t - 0.5) * reach
        return Place(x=middle + direction * along, y=y + slope * along + sway * sin(6 * t + phase), radius=radius)

    return at


def _upright(rng: np.random.Generator, radius: float, direction: int) -> Path:
    x, sway, phase = rng.uniform(0.2, 0.8), rng.uniform(0, 0.02), rng.uniform(0, 2 * pi)
    reach, middle = rng.uniform(0.62, 0.8), rng.uniform(0.47, 0.53)

    def at(t: float) -> Place:
        # A fall gains speed, a rise is even.
        eased = t**1.35 if direction > 0 else t
        return Place(x=x + sway * sin(5 * t + phase), y=middle + direction * (eased - 0.5) * reach, radius=radius)

    return at


def _bounce(rng: np.random.Generator, radius: float) -> Path:
    x, drift = rng.uniform(0.22, 0.78), rng.uniform(-0.06, 0.06)
    hops, phase = rng.uniform(1.8, 2.6), rng.uniform(0, 1)
    ground, height = rng.uniform(0.7, 0.78), rng.uniform(0.42, 0.5)

    def at(t: float) -> Place:
        in_hop = (hops * t + phase) % 1.0
        return Place(x=x + drift * (t - 0.5), y=ground - height * 4 * in_hop * (1 - in_hop), radius=radius)

    return at


def _circle(rng: np.random.Generator, radius: float) -> Path:
    x, y = rng.uniform(0.38, 0.62), rng.uniform(0.46, 0.54)
    wide, turns, phase = rng.uniform(0.23, 0.3), rng.uniform(1.05, 1.5), rng.uniform(0, 2 * pi)
    turns = turns if rng.random() < 0.5 else -turns

    def at(t: float) -> Place:
        angle = 2 * pi * turns * t + phase
        # A circle on screen: the picture is wider than high.
        return Place(x=x + 0.75 * wide * cos(angle), y=y + wide * sin(angle), radius=radius * 0.92)

    return at


def _scale(rng: np.random.Generator, grows: bool) -> Path:
    x, y = rng.uniform(0.32, 0.68), rng.uniform(0.4, 0.6)
    small, large = rng.uniform(0.07, 0.095), rng.uniform(0.27, 0.34)
    drift = rng.uniform(-0.03, 0.03, 2)

    def at(t: float) -> Place:
        share = t if grows else 1 - t
        return Place(x=x + drift[0] * t, y=y + drift[1] * t, radius=small + (large - small) * share)

    return at
