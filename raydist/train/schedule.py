"""The learning rate over a run: a linear warm-up, then a cosine to zero (SGDR without restarts: arXiv:1608.03983)."""

from __future__ import annotations

from math import cos, pi


def rate(done: float, warm_up: float) -> float:
    """Share of the learning rate after this share of all steps, both 0 to 1."""
    rising = min(1.0, done / warm_up) if warm_up else 1.0
    return rising * (0.5 + 0.5 * cos(pi * max(0.0, done - warm_up) / (1 - warm_up)))


def rate_at(step: int, steps: int, warm_up: float) -> float:
    """Share of the learning rate for step `step` of `steps`, counted from 0: the first step does move."""
    return rate((step + 1) / (steps + 1), warm_up)
