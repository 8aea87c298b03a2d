"""Pending clips and the books: every clip is done, failed or pending."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store import tables

from raydist.clips.signature import HASH_VERSION
from raydist.errors import StoreError
from raydist.store import commit, schema
from raydist.store.books import ModelBooks, books
from raydist.store.pending import pending_clips

KIND = schema.embeddings(4)
MODEL = tables.MODEL


def append(location: str, table: str, rows: pa.Table) -> None:
    commit.append(location, table, rows, rows.schema)


def waiting(location: str, **options: object) -> list[int]:
    found = pending_clips(location, MODEL, hash_version=HASH_VERSION, **options)
    return [key for clips in found for key in clips["clip_key"].to_pylist()]


def test_clips_wait_in_the_order_of_their_table_until_they_have_a_row_or_a_failure(location: str) -> None:
    append(location, "clips", tables.clips([7, -3, 5, 9]))
    append(location, "clips", tables.clips([2, 8]))
    append(location, tables.TABLE, tables.embeddings([5]))
    append(location, "failures", tables.failures([2]))
    found = pending_clips(location, MODEL, hash_version=HASH_VERSION)
    assert waiting(location) == [7, -3, 9, 8]
    assert (found.clips, found.count, found.done, found.failed) == (6, 4, 1, 1)


def test_failures_are_tried_again_when_asked(location: str) -> None:
    append(location, "clips", tables.clips([1, 2, 3]))
    append(location, tables.TABLE, tables.embeddings([1]))
    append(location, "failures", tables.failures([1, 2]))
    assert waiting(location, retry_failed=True) == [2, 3]


def test_rows_and_failures_of_an_earlier_content_do_not_count(location: str) -> None:
    append(location, "clips", tables.clips([1, 2, 3], "new"))
    append(location, tables.TABLE, tables.embeddings([1, 3], ["old", "new"]))
    append(location, "failures", tables.failures([2], "old"))
    assert waiting(location) == [1, 2]


def test_failures_of_another_stage_or_model_do_not_count(location: str) -> None:
    append(location, "clips", tables.clips([1, 2, 3]))
    append(location, "failures", tables.failures([1], stage="caption"))
    append(location, "failures", tables.failures([2], model_key="other-00000002"))
    append(location, "failures", tables.failures([3]))
    append(location, "failures", tables.filled(schema.FAILURES, 1, video_id="v.mp4", stage="scan"))
    assert waiting(location) == [1, 2]


def test_each_clip_says_whether_its_signature_is_there(location: str) -> None:
    append(location, "clips", tables.clips([1, 2, 3, 4], "new"))
    append(location, "signatures", tables.signatures([1], "old"))
    append(location, "signatures", tables.signatures([2], "new"))
    append(location, "signatures", tables.signatures([3], "new", hash_version=HASH_VERSION - 1))
    (clips,) = pending_clips(location, MODEL, hash_version=HASH_VERSION)
    assert clips.schema.names == [*schema.CLIPS.names, "has_signature"]
    assert clips["has_signature"].to_pylist() == [False, True, False, False]


def test_without_clips_the_message_names_the_tables_there_are(location: str) -> None:
    append(location, "failures", tables.failures([1]))
    with pytest.raises(StoreError, match=r"no table 'clips'.*failures"):
        pending_clips(location, MODEL, hash_version=HASH_VERSION)


@pytest.mark.parametrize("part_clips", [1, 1000])
@pytest.mark.parametrize("broken", ["clips", "failures", tables.TABLE])
def test_a_table_that_cannot_be_read_is_named_and_no_other(location: str, broken: str, part_clips: int) -> None:
    append(location, "clips", tables.clips([1, 2]))
    append(location, "failures", tables.failures([1]))
    append(location, tables.TABLE, tables.embeddings([2]))
    for file in Path(location, f"{broken}.lance", "data").iterdir():
        file.unlink()
    for read_all in (partial(pending_clips, location, MODEL, hash_version=1), partial(books, location)):
        with pytest.raises(StoreError, match=rf"table '[^']*/{broken}\.lance' cannot be used: .*Not found"):
            read_all(part_clips=part_clips)


def test_the_versions_let_a_committer_drop_what_came_after_them(location: str) -> None:
    append(location, "clips", tables.clips(range(10)))
    found = pending_clips(location, MODEL, hash_version=HASH_VERSION)
    append(location, tables.TABLE, tables.embeddings(range(4)))  # another driver
    committer = commit.Committer(location, tables.TABLE, KIND, version=found.versions[tables.TABLE])
    fragments = commit.write_fragments(location, tables.TABLE, tables.embeddings(range(10)), KIND)
    assert committer.commit(fragments) == 6


def test_pending_clips_are_of_one_version_while_others_commit(location: str) -> None:
    append(location, "clips", tables.clips(range(10)))
    found = pending_clips(location, MODEL, hash_version=HASH_VERSION, batch_size=2)
    batches = iter(found)
    next(batches)
    append(location, "clips", tables.clips(range(10, 20)))
    commit.delete(location, "clips", "clip_key = 9")
    assert sum(len(clips) for clips in batches) == 8
    assert [len(clips) for clips in found] == [2] * 5


def test_an_archive_without_anything_has_empty_books(location: str) -> None:
    empty = books(location)
    assert (empty.files, empty.clips, empty.captions, dict(empty.embeddings)) == (0, 0, 0, {})


def test_files_are_counted_by_state_and_failures_by_their_newest_reason(location: str) -> None:
    states = ["ok", "ok", "failed", "alias", "vanished", "skipped"]
    videos = {"video_id": [str(number) for number in range(6)], "reason": [None, None, "empty", None, None, None]}
    append(location, "videos", tables.filled(schema.VIDEOS, 6, state=states, **videos))
    append(location, "clips", tables.clips([1, 2, 3]))
    append(location, "failures", tables.failures([1, 2], reason="timeout", at=tables.NOW))
    append(location, "failures", tables.failures([1], reason="crashed", at=tables.NOW - timedelta(days=1)))
    append(location, "failures", tables.failures([2], reason="crashed", at=tables.NOW + timedelta(days=1)))
    append(location, tables.TABLE, tables.embeddings([3]))
    found = books(location)
    assert (found.files, found.failed_files) == (4, 1)
    assert found.states == {"alias": 1, "failed": 1, "ok": 2, "skipped": 1, "vanished": 1}
    assert found.reasons == {"empty": 1, "timeout": 1, "crashed": 1}
    assert found.embeddings == {MODEL: ModelBooks(rows=1, failed=2, pending=0)}


pairs = st.lists(st.tuples(st.integers(-8, 8), st.sampled_from("ab")), max_size=24)
"""(clip, fingerprint), in any number and order: rows, stale rows, rows of no clip."""


def spread(key: int) -> int:
    """Small numbers over the whole range of keys, so that buckets get some each; order is kept."""
    return key * (2**63 // 9)


def columns(rows: Sequence[tuple[int, str]]) -> tuple[list[int], list[str]]:
    return [spread(key) for key, _ in rows], [fingerprint for _, fingerprint in rows]


@settings(max_examples=40, deadline=None)
@given(
    clips=st.dictionaries(st.integers(-8, 8), st.sampled_from("ab"), max_size=17),
    done=pairs,
    failed=pairs,
    signed=pairs,
    gone=st.sets(st.integers(-8, 8), max_size=4),
    retry=st.booleans(),
    part_clips=st.integers(1, 30),
)
def test_clips_are_rows_and_failed_and_pending_whatever_the_tables_hold(
    clips: dict[int, str],
    done: list[tuple[int, str]],
    failed: list[tuple[int, str]],
    signed: list[tuple[int, str]],
    gone: set[int],
    retry: bool,
    part_clips: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        location = str(Path(folder))
        commit.Committer(location, "clips", schema.CLIPS)
        commit.Committer(location, tables.TABLE, KIND)
        items = list(clips.items())
        for part in (items[:5], items[5:]):
            append(location, "clips", tables.clips(*columns(part)))
        append(location, tables.TABLE, tables.embeddings(*columns(done)))
        append(location, "failures", tables.failures(*columns(failed)))
        append(location, "signatures", tables.signatures(*columns(signed)))
        for key in gone:
            commit.delete(location, "clips", f"clip_key = {spread(key)}")
        left = {(key, clips[key]) for key in clips if key not in gone}
        expected = ModelBooks(
            rows=len(left & set(done)),
            failed=len((left & set(failed)) - set(done)),
            pending=len(left - set(done) - set(failed)),
        )

        counted = books(location, part_clips=part_clips)
        found = pending_clips(
            location, MODEL, hash_version=HASH_VERSION, retry_failed=retry, part_clips=part_clips, batch_size=3
        )
        rows = [row for table in found for row in table.to_pylist()]

        assert counted.clips == found.clips == len(left)
        assert counted.embeddings == {MODEL: expected}
        assert (found.done, found.failed, found.count) == (expected.rows, expected.failed, len(rows))
        want = [item for item in items if item in left - set(done) - (set() if retry else set(failed))]
        assert [(row["clip_key"], row["fingerprint"]) for row in rows] == list(zip(*columns(want), strict=True))
        assert [row["has_signature"] for row in rows] == [item in signed for item in want]


def test_captions_are_counted_by_origin_over_all_ranges_of_clips(location: str) -> None:
    keys = [-(2**62), -5, 1, 2, 2**61, 2**62]
    append(location, "clips", tables.clips(keys))

    def captioned(origin: str, of: Sequence[int]) -> pa.Table:
        rows = tables.filled(
            schema.CAPTIONS, len(of), clip_key=of, fingerprint=["a"] * len(of), origin=[origin] * len(of)
        )
        return rows.set_column(rows.schema.get_field_index("number"), "number", pa.array([0] * len(of), pa.int32()))

    rows = pa.concat_tables([captioned("sidecar", keys[:2]), captioned("gemini-x", [2**61])])
    append(location, "captions", rows.cast(schema.CAPTIONS))
    append(location, "failures", tables.failures([2**62, 2**61], stage=["caption"] * 2, model_key=["gemini-x#p"] * 2))
    for part_clips in (1, 2, 100):
        assert books(location, part_clips=part_clips).captioned == {
            "gemini-x": ModelBooks(rows=1, failed=1, pending=4),
            "sidecar": ModelBooks(rows=2, failed=0, pending=4),
        }
