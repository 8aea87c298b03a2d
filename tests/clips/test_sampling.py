"""Which frames of a clip are looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.clips.sampling import middle_ranks


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


@pytest.mark.parametrize(("count", "frames"), [(0, 8), (8, 0), (-1, 8)])
def test_no_frames_are_refused(count: int, frames: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        middle_ranks(count, frames)


def test_ranks_are_those_of_the_parity_data(shared: Path) -> None:
    known = json.loads((shared / "parity" / "sampling" / "indices.json").read_text())
    for frames in (1, 4, 8, 12, 16, 32):
        lists = known[f"middle_{frames}"]
        assert [middle_ranks(count, frames) for count in range(1, len(lists) + 1)] == lists
