"""Which frames of a clip are looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.clips.sampling import middle_ranks, third_ranks


@given(count=st.integers(1, 5000), frames=st.integers(1, 64))
def test_each_rank_is_the_middle_of_its_interval(count: int, frames: int) -> None:
    ranks = middle_ranks(count, frames)
    assert len(ranks) == frames
    assert ranks == sorted(ranks)
    if count >= frames:
        assert len(set(ranks)) == frames
        for interval, rank in enumerate(ranks):
            first, last = interval * count // frames, (interval + 1) * count // frames - 1
            assert 0 <= (last - rank) - (rank - first) <= 1
    else:
        assert ranks == [*range(count), *[count - 1] * (frames - count)]


@given(count=st.integers(1, 5000), frames=st.integers(1, 32))
def test_the_three_frames_of_an_interval_lie_in_it_and_the_second_is_the_recipes(count: int, frames: int) -> None:
    ranks = third_ranks(count, 3 * frames)
    assert len(ranks) == 3 * frames
    assert ranks == sorted(ranks)
    assert ranks[1::3] == middle_ranks(count, frames)
    for interval in range(min(frames, count)):
        first, after = (edge * count // min(frames, count) for edge in (interval, interval + 1))
        three = ranks[3 * interval : 3 * interval + 3]
        assert all(first <= rank < after for rank in three)
        assert len(set(three)) == min(3, after - first)


def test_three_frames_an_interval_come_in_threes() -> None:
    with pytest.raises(ValueError, match="8 frames: expected a multiple of 3"):
        third_ranks(100, 8)


@pytest.mark.parametrize(("count", "frames"), [(0, 8), (8, 0), (-1, 8)])
def test_no_frames_are_refused(count: int, frames: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        middle_ranks(count, frames)


def test_ranks_are_those_of_the_parity_data(shared: Path) -> None:
    known = json.loads((shared / "parity" / "sampling" / "indices.json").read_text())
    for frames in (1, 4, 8, 12, 16, 32):
        lists = known[f"middle_{frames}"]
        assert [middle_ranks(count, frames) for count in range(1, len(lists) + 1)] == lists
