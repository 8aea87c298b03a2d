"""Pairs that signatures and found copies suggest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from raydist.clips import near
from raydist.clips.signature import HASH_VERSION
from raydist.dedup import candidates
from raydist.dedup.align import Line
from raydist.dedup.candidates import Links, Spot, beside
from raydist.store import commit, schema


def hashes(*rows: list[int]) -> NDArray[np.uint64]:
    return np.array(rows, np.uint64)


def spread(random: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint64]:
    """Hashes that have nothing to do with each other."""
    return random.integers(1, 1 << 63, shape, dtype=np.uint64)


def sharing(rows: NDArray[np.uint64], *, shared: int = 2, most: int = 16) -> list[tuple[int, int]]:
    found = near.sharing(rows, np.arange(len(rows)), shared=shared, most=most)
    return [(int(one), int(other)) for one, other in found]


def test_clips_that_share_two_pictures_are_candidates_and_one_is_too_few() -> None:
    rows = spread(np.random.default_rng(0), (4, 8))
    rows[1, 3:5] = rows[0, :2] ^ np.uint64(5)
    rows[3, 7] = rows[2, 0]
    assert sharing(rows) == [(0, 1)]
    assert sharing(rows, shared=1) == [(0, 1), (2, 3)]


def test_flat_pictures_and_repeats_of_one_picture_count_nothing() -> None:
    rows = spread(np.random.default_rng(1), (2, 8))
    rows[:, :6] = 0
    assert sharing(rows) == []
    rows[:, :6] = 77
    assert sharing(rows) == []


def test_a_picture_of_very_many_clips_counts_nothing() -> None:
    rows = spread(np.random.default_rng(2), (near.COMMON + 5, 8))
    rows[:, :2] = [111, 2 << 40]
    assert sharing(rows) == []


def test_a_camera_that_never_moves_gives_each_clip_some_partners_only() -> None:
    rows = np.tile(spread(np.random.default_rng(3), (1, 8)), (300, 1))
    found = sharing(rows, most=4)
    assert 300 <= len(found) <= 300 * 4 * 2
    assert {clip for pair in found for clip in pair} == set(range(300))


@given(st.integers(0, 10_000))
def test_no_pair_of_unlike_clips_comes_up_and_no_alike_one_is_lost(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = spread(random, (12, 4))
    flips = np.uint64(1) << random.integers(0, 63, 4, dtype=np.uint64)
    rows[7, 1:3] = rows[2, 1:3] ^ flips[0] ^ flips[1]
    assert sharing(rows) == [(2, 7)]


def test_clips_beside_a_copy_lie_on_its_line() -> None:
    ones = [Spot(clip_key=n, start_s=30.0 * n, end_s=30.0 * (n + 1)) for n in range(6)]
    others = [Spot(clip_key=100 + n, start_s=30.0 * n, end_s=30.0 * (n + 1)) for n in range(6)]
    line = Line(speed=1.0, shift_s=-11.0)
    found = {(a.clip_key, b.clip_key) for a, b in beside((ones[2], others[1]), line, ones, others, reach=1)}
    assert found == {(1, 100), (1, 101), (2, 101), (2, 102), (3, 102), (3, 103)}
    near_border = Line(speed=1.0, shift_s=-0.7)
    assert (2, 101) not in {
        (a.clip_key, b.clip_key) for a, b in beside((ones[2], others[2]), near_border, ones, others, 1)
    }


def test_copies_of_one_clip_lead_to_each_other_on_the_line_between_them() -> None:
    a, b, c, d = (Spot(clip_key=key, start_s=0.0, end_s=30.0) for key in range(4))
    links = Links()
    assert list(links.add(a, b, Line(speed=1.0, shift_s=-3.0))) == []
    ((one, other, line),) = links.add(a, c, Line(speed=1 / 1.05, shift_s=2.0))
    assert (one, other) == (c, b)
    # c shows at 2 s what a shows at 0 s and b at -3 s.
    assert (line.at(2.0), line.speed) == (pytest.approx(-3.0), pytest.approx(1.05))
    assert list(links.add(d, a, Line(speed=1.0, shift_s=-33.0))) == []  # d shows what comes before b and c


def test_a_clip_of_very_many_copies_leads_to_some_only() -> None:
    hub, links = Spot(clip_key=0, start_s=0.0, end_s=30.0), Links()
    found = [
        pair
        for key in range(1, 101)
        for pair in links.add(hub, Spot(clip_key=key, start_s=0.0, end_s=30.0), Line(speed=1.0, shift_s=0.0))
    ]
    assert len(found) == candidates.MOST * (candidates.MOST - 1) // 2


def test_signatures_of_two_archives_are_joined_across_and_of_one_across_videos(tmp_path: Path) -> None:
    rows = spread(np.random.default_rng(4), (4, 8))
    rows[1] = rows[0]  # the same video shows it twice
    rows[2, :4] = rows[0, :4]
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    store(one, {"v/a.mp4": rows[:2], "v/b.mp4": rows[2:3]})
    store(other, {"w/c.mp4": rows[2:4]})
    assert set(candidates.by_signatures(one)) == {(0, 2), (1, 2)}
    assert set(candidates.by_signatures(one, other)) == {(0, 0), (1, 0), (2, 0)}
    assert candidates.by_signatures(str(tmp_path / "none")) == []


def store(location: str, videos: dict[str, NDArray[np.uint64]]) -> None:
    """Clips and their signatures; a stale one is among these."""
    clips, signatures = [], []
    for video, rows in videos.items():
        for row in rows:
            key = len(clips)
            clips.append(
                {"clip_key": key, "clip_id": f"{video}#t={key},{key + 1}", "fingerprint": "f", "video_id": video}
            )
            known = {
                "clip_key": key,
                "frame_hashes": row.tolist(),
                "hash_version": HASH_VERSION,
                "at": datetime.now(UTC),
            }
            signatures += [{**known, "fingerprint": "f"}, {**known, "fingerprint": "old", "frame_hashes": [1, 2, 3]}]
    commit.append(location, "clips", pa.Table.from_pylist(clips, schema.CLIPS), schema.CLIPS)
    commit.append(location, "signatures", pa.Table.from_pylist(signatures, schema.SIGNATURES), schema.SIGNATURES)


def test_clips_without_a_vector_have_no_cosines(tmp_path: Path) -> None:
    archive, table = str(tmp_path), schema.embeddings_table("m")
    rows = [{"clip_key": 5, "clip_id": "v@0-1000", "fingerprint": "f", "vector": [3.0, 4.0]}]
    given = schema.embeddings(2)
    made = pa.Table.from_pylist([{**dict.fromkeys(given.names), **row} for row in rows], given)
    commit.append(archive, table, made, given)
    assert candidates.cosines(archive, table, []) == candidates.cosines(archive, table, [1, 2]) == {}
    np.testing.assert_allclose(candidates.cosines(archive, table, [1, 5])[5], [0.6, 0.8], atol=1e-3)
