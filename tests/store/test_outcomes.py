"""When a run ends because the place of its clips has gone."""

from __future__ import annotations

import pytest

from raydist.store.outcomes import LEAST, WINDOW, Losses


def test_a_place_that_goes_ends_a_run_and_says_why() -> None:
    losses = Losses(0.1)
    assert losses.too_many(100_000, []) is None  # a good half of the night
    gone = losses.too_many(3_000, ["forbidden"] * 2_000 + ["corrupt"] * 500)
    assert gone is not None
    assert gone.reason == "forbidden"
    assert "2,000 of the last 3,000 clips could not be read (forbidden 2,000)" in str(gone)


def test_losses_of_many_small_commits_add_up() -> None:
    losses = Losses(0.1)
    ended = [losses.too_many(500, ["missing"] * 400) is not None for _ in range(3)]
    assert ended == [False, False, True]


@pytest.mark.parametrize(
    ("most", "clips", "reasons"),
    [
        (0.1, LEAST - 1, ["missing"] * (LEAST - 1)),  # a folder that somebody deleted
        (0.1, WINDOW * 2, ["missing"] * (WINDOW // 10)),
        (1.0, WINDOW, ["missing"] * WINDOW),
        (0.1, WINDOW, ["no_frames"] * WINDOW),
    ],
)
def test_what_a_run_bears(most: float, clips: int, reasons: list[str]) -> None:
    assert Losses(most).too_many(clips, reasons) is None
