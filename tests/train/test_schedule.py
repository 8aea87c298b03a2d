"""The learning rate over a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.train.schedule import rate_at


def test_the_rate_rises_to_its_peak_over_the_warm_up_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 1000, 0.05) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 1001 / 0.05)
    assert rates.index(max(rates)) == pytest.approx(50, abs=1)
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[-1] < 1e-5


@given(steps=st.integers(1, 500), warm_up=st.floats(0, 0.9))
def test_every_step_has_a_rate_above_zero_and_never_above_one(steps: int, warm_up: float) -> None:
    rates = [rate_at(step, steps, warm_up) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
