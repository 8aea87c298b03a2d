"""From copies of clips to what stretches of videos are."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from raydist.dedup import statements
from raydist.store import schema


def pair(a_from_s: float, b_from_s: float, seconds: float, *, speed: float = 1.0, **other: Any) -> dict[str, Any]:
    """A copy, as a row."""
    return {
        "a_video": "in/a.mp4",
        "b_video": "in/b.mp4",
        "archive_b": "",
        "kind": "copy",
        "a_from_s": a_from_s,
        "a_to_s": a_from_s + seconds,
        "b_from_s": b_from_s,
        "b_to_s": b_from_s + speed * seconds,
        "offset_s": b_from_s - a_from_s,
        "confidence": 0.9,
        **other,
    }


def said(*pairs: dict[str, Any]) -> list[tuple[float, float, float, float]]:
    """The statements, as a from, a to, b from, b to."""
    found = statements.overlaps(pa.Table.from_pylist(list(pairs), schema.PAIRS))
    assert found.schema == schema.VIDEO_OVERLAPS
    return [tuple(row[name] for name in ("a_from_s", "a_to_s", "b_from_s", "b_to_s")) for row in found.to_pylist()]


def test_pairs_of_one_offset_become_one_statement() -> None:
    pairs = [pair(60 + 30 * number, 30 + 30 * number, 30) for number in range(9)]
    assert said(*reversed(pairs)) == [(60, 330, 30, 300)]


def test_clips_cut_at_other_borders_join_although_each_pair_is_short() -> None:
    pairs = [pair(3, 0, 27), pair(30, 27.2, 3), pair(33.1, 30, 26.9), pair(60, 56.8, 3.1)]
    assert said(*pairs) == [(3, 63.1, 0, 59.9)]


def test_another_offset_or_a_gap_is_another_statement() -> None:
    assert said(pair(0, 0, 30), pair(30, 45, 15)) == [(0, 30, 0, 30), (30, 45, 45, 60)]
    assert said(pair(0, 10, 30), pair(90, 100, 30)) == [(0, 30, 10, 40), (90, 120, 100, 130)]


def test_a_faster_copy_is_one_statement_with_its_speed() -> None:
    speed = 1 / 1.05
    pairs = [pair(31.5 * number, 30 * number, 31.5, speed=speed) for number in range(6)]
    (row,) = statements.overlaps(pa.Table.from_pylist(pairs, schema.PAIRS)).to_pylist()
    assert row["speed"] == pytest.approx(speed, abs=0.003)
    assert (row["a_to_s"], row["b_to_s"], row["pairs"]) == (pytest.approx(189), pytest.approx(180), 6)


def test_only_copies_count_and_videos_and_archives_stay_apart() -> None:
    other = pair(30, 30, 30, kind="similar")
    assert said(pair(0, 0, 30), other) == [(0, 30, 0, 30)]
    assert len(said(pair(0, 0, 30), pair(30, 30, 30, b_video="in/c.mp4"))) == 2
    assert len(said(pair(0, 0, 30), pair(30, 30, 30, archive_b="other"))) == 2
    assert said() == []


def test_within_one_video_the_earlier_stretch_comes_first() -> None:
    # The order of clip ids is that of text: #t=120,150 comes before #t=30,60.
    pairs = [pair(60, 0, 30, b_video="in/a.mp4"), pair(30, 90, 30, b_video="in/a.mp4")]
    assert said(*pairs) == [(0, 60, 60, 120)]


def test_what_lies_inside_of_a_statement_is_taken_as_shown() -> None:
    ids = {"a_id": "in/a.mp4#t=30,60", "b_id": "in/b.mp4#t=27,57"}
    before = pair(3, 0, 26.5, a_id="in/a.mp4#t=0,30", b_id="in/b.mp4#t=0,27")
    within = pair(32, 29, 20, **ids)
    after = pair(54.5, 51.5, 5.5, a_id="in/a.mp4#t=30,60", b_id="in/b.mp4#t=27,57")
    rows = [before, within, after]
    copies = pa.Table.from_pylist(rows, schema.PAIRS)
    shown = statements.bridged(copies, statements.overlaps(copies))
    assert shown[1] == (30, 60, 27, 57)
    alone = pa.Table.from_pylist([within], schema.PAIRS)
    assert statements.bridged(alone, statements.overlaps(alone)) == [(32, 52, 29, 49)]
