"""Conditions over clips and their videos: the same rows as a plain join gives, errors that name the columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store import tables

from raydist.errors import StoreError
from raydist.store import commit, filters, nearest, ranking, read, roaring, schema

ROWS = 600


def fill(location: str, *, videos: int = 20, parts: int = 3) -> None:
    """Clips of `videos` files, of which the odd ones are of a studio `B` and the even ones of `A`; one has no row."""
    for number in range(parts):
        keys = list(range(number, ROWS, parts))
        names = [f"v{key % videos}.mp4" for key in keys]
        rows = tables.embeddings(
            keys,
            vector=tables.vectors(len(keys), 16, seed=number),
            video_id=names,
            duration_s=[float(key % 7) for key in keys],
            split=["test" if key % 2 else "train" for key in keys],
        )
        commit.append(location, tables.TABLE, rows, rows.schema)
    names = [f"v{number}.mp4" for number in range(videos - 1)]
    known = tables.filled(
        schema.VIDEOS, len(names), video_id=names, state="ok", duration_s=[float(n) for n in range(videos - 1)]
    )
    commit.append(location, "videos", known, schema.VIDEOS)
    own = pa.table({"video_id": names, "studio": ["B" if number % 2 else "A" for number in range(videos - 1)]})
    commit.add_columns(location, "videos", own)
    commit.add_columns(location, "videos", pa.table({"video_id": names[:5], "Shot on": [f"day {n}" for n in range(5)]}))


def found(location: str, where: str | None, k: int = ROWS) -> list[int]:
    query = np.ones((1, 16), np.float32)
    (exact,) = nearest.top_k(location, tables.TABLE, query, k, where)
    (hits,) = ranking.top_k(location, tables.TABLE, query, k, where)
    assert hits.equals(exact)
    return sorted(hits["clip_key"].to_pylist())


def keys(passes: object) -> list[int]:
    return [key for key in range(ROWS) if passes(key)]  # type: ignore[operator]  # a lambda of each test


def test_a_column_of_the_videos_chooses_clips(location: str) -> None:
    fill(location)
    assert found(location, "studio = 'A'") == keys(lambda key: key % 20 in range(0, 19, 2))
    assert found(location, "STUDIO = 'A'") == found(location, "studio = 'A'")
    assert found(location, "`Shot on` = 'day 3'") == keys(lambda key: key % 20 == 3)
    assert found(location, "studio = 'C'") == []


def test_columns_of_both_can_stand_in_one_condition(location: str) -> None:
    fill(location)
    mixed = "(studio = 'B' AND split = 'test' OR duration_s > 5) AND NOT clip_key < 30"
    expected = keys(lambda key: (key % 20 in range(1, 18, 2) or key % 7 > 5) and key >= 30)
    assert found(location, mixed) == expected


def test_a_name_that_both_have_is_the_clips_and_the_files_has_a_prefix(location: str) -> None:
    fill(location)
    assert found(location, "duration_s = 3") == keys(lambda key: key % 7 == 3)
    assert found(location, "video_duration_s = 3") == keys(lambda key: key % 20 == 3)
    assert found(location, "video_duration_s < 9 AND duration_s = 3") == keys(lambda k: k % 20 < 9 and k % 7 == 3)


def test_a_video_without_a_row_is_null_to_conditions(location: str) -> None:
    fill(location)
    assert found(location, "studio IS NULL") == keys(lambda key: key % 20 == 19)
    assert found(location, "state IS NULL OR studio = 'A'") == keys(lambda key: key % 20 in (*range(0, 19, 2), 19))


def test_a_word_in_a_text_is_no_column(location: str) -> None:
    fill(location)
    assert found(location, "split = 'studio'") == []
    dataset = read.need_table(location, tables.TABLE)
    assert filters.resolve(dataset, location, "split = 'it''s studio'").addresses is None
    assert filters.resolve(dataset, location, "  ").where is None


def test_deleted_rows_do_not_pass(location: str) -> None:
    fill(location)
    commit.delete(location, tables.TABLE, "clip_key >= 40")
    assert found(location, "studio = 'A'") == [key for key in range(40) if key % 20 in range(0, 19, 2)]


@pytest.mark.parametrize("where", ["nope = 3", "studio = = 'a'", "studio", "studio = 3 +", "nope = studio"])
def test_a_wrong_condition_names_the_columns_of_both(location: str, where: str) -> None:
    fill(location)
    with pytest.raises(StoreError) as caught:
        ranking.top_k(location, tables.TABLE, np.ones((1, 16), np.float32), 3, where)
    text = str(caught.value)
    for part in (repr(where), "start_s (double)", "studio (string)", "video_duration_s (double)", "fps (double)"):
        assert part in text
    assert ".rs:" not in text
    assert "vector" not in text


def test_rows_are_joined_piece_by_piece(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(location, parts=7)
    whole = found(location, "studio = 'A' AND split = 'train'")
    monkeypatch.setattr(filters, "_ROWS", 50)
    assert found(location, "studio = 'A' AND split = 'train'") == whole
    assert len(whole) > 100


def test_an_empty_table_passes_nothing(location: str) -> None:
    fill(location)
    commit.delete(location, tables.TABLE, "TRUE")
    assert found(location, "studio = 'A'") == []


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 140_000)), max_size=40), st.booleans())
def test_packed_addresses_are_read_back_by_lance(members: set[tuple[int, int]], dense: bool) -> None:
    import lance

    if not hasattr(test_packed_addresses_are_read_back_by_lance, "table"):
        rows = pa.table({"n": pa.array(range(4 * 140_001), pa.int32())})
        made = lance.write_dataset(rows, "memory://four", max_rows_per_file=140_001)
        test_packed_addresses_are_read_back_by_lance.table = made  # type: ignore[attr-defined]  # made once
    table = test_packed_addresses_are_read_back_by_lance.table  # type: ignore[attr-defined]  # as above
    chosen = {(part << 32) + row for part, row in members} | (set(range(70_000, 80_000)) if dense else set())
    scanner = table.scanner(
        columns=[], with_row_address=True, row_addr_allowlist=roaring.packed(np.array(sorted(chosen), np.uint64))
    )
    assert set(scanner.to_table()["_rowaddr"].to_pylist()) == chosen
