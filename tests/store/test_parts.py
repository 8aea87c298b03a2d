"""Clips and the rows that are theirs: whatever fingerprints look like, however many ranges they are joined in."""

from __future__ import annotations

import resource
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store import tables

from raydist.clips.signature import HASH_VERSION
from raydist.errors import StoreError
from raydist.store import commit, frames, read, schema, stale
from raydist.store.books import ModelBooks, books
from raydist.store.join import Keyed, Part, Side, parts
from raydist.store.pending import pending_clips
from raydist.store.prints import Prints

KIND = schema.embeddings(4)
HEX = "0123456789abcdef0123456789abcdef"
FINGERPRINTS = [HEX, HEX[::-1], HEX[:-1] + "0", HEX[:-1], HEX + "0", "é" * 16, "", "a", "\x00" * 32, None]
"""Ours, two that are as long, and others."""

prints = st.sampled_from(FINGERPRINTS)
keys = st.sampled_from([-(2**63), -(2**62), -1, 0, 1, 2**62, 2**63 - 1])
rows = st.lists(st.tuples(st.none() | keys, prints), max_size=24)
Pair = tuple[int | None, str | None]


def append(location: str, table: str, of: pa.Table) -> None:
    commit.append(location, table, of, of.schema)


def write_clips(location: str, clips: list[Pair]) -> None:
    """Rows of `clips` as they are, also several of one key, which a committer would not take."""
    commit.Committer(location, "clips", schema.CLIPS)
    for start in range(0, len(clips), 5):
        part = tables.clips(*zip(*clips[start : start + 5], strict=True))
        read.need_table(location, "clips").insert(part, mode="append")


def write_failures(location: str, failed: list[Pair], **columns: object) -> None:
    commit.Committer(location, "failures", schema.FAILURES)
    if failed:
        append(location, "failures", tables.failures(*zip(*failed, strict=True), **columns))


def number(batch: pa.RecordBatch) -> np.ndarray:
    return np.array([FINGERPRINTS.index(text) for text in batch["fingerprint"].to_pylist()], np.int64)[:, None]


def joined(location: str, part_clips: int) -> Iterator[Part]:
    clips, failures = (read.need_table(location, name) for name in ("clips", "failures"))
    sides = {"failures": Side(dataset=failures, numbers=number), "none": Side(dataset=None)}
    return parts(clips, sides, addresses=True, part_clips=part_clips)


@settings(max_examples=60, deadline=None)
@given(clips=st.lists(st.tuples(keys, prints), max_size=20), others=rows, part_clips=st.integers(1, 25))
def test_each_clip_finds_the_rows_of_its_key_and_fingerprint(
    clips: list[Pair], others: list[Pair], part_clips: int
) -> None:
    with tempfile.TemporaryDirectory() as location:
        write_clips(location, clips)
        write_failures(location, others)
        stored = read.need_table(location, "clips").to_table(with_row_address=True)
        at = {address: place for place, address in enumerate(stored["_rowaddr"].to_pylist())}
        have: dict[int, bool] = {}
        matches: Counter[tuple[int, int]] = Counter()
        lacking: Counter[Pair] = Counter()
        for part in joined(location, part_clips):
            places = [at[address] for address in part.addresses.tolist()]
            have |= dict(zip(places, part.have("failures").tolist(), strict=True))
            assert not part.have("none").any()
            for found, numbers in part.matches("failures"):
                matches.update(
                    (places[clip], what) for clip, (what,) in zip(found.tolist(), numbers.tolist(), strict=True)
                )
            lacking.update(pair for pairs in part.lacking("failures") for pair in pairs)
        real = [pair for pair in others if None not in pair]
        assert [have[place] for place in range(len(clips))] == [pair in real for pair in clips]
        assert matches == Counter(
            (place, FINGERPRINTS.index(pair[1])) for place, pair in enumerate(clips) for other in real if other == pair
        )
        assert lacking == Counter(
            pair for pair in others if pair[0] is not None and (pair[1] is None or pair not in clips)
        )


@given(st.lists(prints, max_size=12), st.lists(prints, max_size=12), st.integers(0, 3))
def test_fingerprints_are_equal_as_numbers_if_they_are_as_texts(
    some: list[str | None], others: list[str | None], start: int
) -> None:
    made = Prints()
    column = pa.array([HEX] * start + some, pa.string()).slice(start)
    words, more = made.of(column), made.of(pa.array(others, pa.large_string()))
    assert made.texts(words).to_pylist() == some
    assert made.texts(more).to_pylist() == others
    equal = (words[:, None] == more[None]).all(axis=2)
    assert equal.tolist() == [[one is not None and one == other for other in others] for one in some]


@given(st.lists(st.tuples(keys, prints), max_size=20), st.lists(st.tuples(keys, prints), max_size=20))
def test_rows_in_memory_are_found_by_key_and_fingerprint(own: list[Pair], asked: list[Pair]) -> None:
    def batch(pairs: list[Pair]) -> pa.RecordBatch:
        columns = list(zip(*pairs, strict=True)) or [(), ()]
        return pa.RecordBatch.from_arrays(
            [pa.array(columns[0], pa.int64()), pa.array(columns[1], pa.string())], ["clip_key", "fingerprint"]
        )

    found = zip(*(side.tolist() for side in Keyed.of(batch(own)).places(batch(asked))), strict=True)
    assert sorted(found) == [
        (place, row)
        for place, pair in enumerate(own)
        for row, other in enumerate(asked)
        if pair == other and pair[1] is not None
    ]


@settings(max_examples=25, deadline=None)
@given(
    clips=st.dictionaries(keys, prints, max_size=7),
    failed=st.lists(
        st.tuples(keys, prints, st.sampled_from(["x", "y", "", None]), st.none() | st.integers(0, 2)), max_size=20
    ),
    part_clips=st.integers(1, 8),
)
def test_a_failed_clip_counts_under_the_newest_of_its_reasons(
    clips: dict[int, str | None], failed: list[tuple[int, str | None, str | None, int | None]], part_clips: int
) -> None:
    with tempfile.TemporaryDirectory() as location:
        write_clips(location, list(clips.items()))
        append(location, tables.TABLE, tables.embeddings([5]))
        days = [None if day is None else tables.NOW + timedelta(days=day) for *_, day in failed]
        reasons = [reason for *_, reason, _ in failed]
        write_failures(location, [(key, text) for key, text, *_ in failed], reason=reasons, at=days)
        newest: dict[int, tuple[int, str]] = {}
        for key, text, reason, day in failed:
            if text is not None and clips.get(key) == text:
                one = (-1 if day is None else day, reason or "unknown")
                newest[key] = max(newest.get(key, one), one)
        counted = books(location, part_clips=part_clips)
        assert counted.reasons == Counter(reason for _, reason in newest.values())
        assert counted.embeddings[tables.MODEL] == ModelBooks(
            rows=0, failed=len(newest), pending=len(clips) - len(newest)
        )


def test_the_books_balance_at_every_moment_of_a_run(location: str) -> None:
    wide = [(number - 50) * 2**57 for number in range(100)]
    append(location, "clips", tables.clips(wide, HEX))
    commit.Committer(location, tables.TABLE, KIND)

    def run() -> None:
        for start in range(0, 100, 5):
            append(location, tables.TABLE, tables.embeddings(wide[start : start + 4], HEX))
            append(location, "failures", tables.failures(wide[start + 3 : start + 5], HEX))

    seen = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        while not running.done():
            seen.append(books(location, part_clips=30 if len(seen) % 2 else 1_000).embeddings[tables.MODEL])
        running.result()
    seen.append(books(location).embeddings[tables.MODEL])
    assert {found.rows + found.failed + found.pending for found in seen} == {100}
    assert [found.rows for found in seen] == sorted(found.rows for found in seen)
    assert seen[-1] == ModelBooks(rows=80, failed=20, pending=0)


def test_what_is_known_of_some_clips_is_told_in_their_order(location: str) -> None:
    some = pa.table({"clip_key": [9, -4, 7, 1], "fingerprint": [HEX, "a", HEX, "b"]})
    failed = [(9, HEX), (7, "old"), (1, "b"), (-4, "a"), (None, None)]
    write_failures(location, failed, stage="frames", model_key="", reason=["x", "x", "", "y", "z"])
    write_failures(location, [(7, HEX)], stage="other", model_key="")
    append(location, "signatures", tables.signatures([1, 7, 9], ["a", HEX, HEX], HASH_VERSION))
    known = frames.known(location, "", some, hash_version=HASH_VERSION, stages=["frames"])
    assert known.reasons == ["x", "y", "", "unknown"]
    assert known.signed.tolist() == [True, False, True, False]
    assert known.cached.tolist() == [False] * 4


def test_an_archive_in_a_bucket_is_joined_in_ranges(bucket: str) -> None:
    wide = [(number - 10) * 2**59 for number in range(20)]
    append(bucket, "clips", tables.clips(wide, HEX))
    append(bucket, tables.TABLE, tables.embeddings(wide[:12], [HEX] * 9 + ["old"] * 3))
    append(bucket, "failures", tables.failures(wide[8:11], HEX))
    for part_clips in (3, 1_000):
        assert books(bucket, part_clips=part_clips).embeddings == {
            tables.MODEL: ModelBooks(rows=9, failed=2, pending=9)
        }
        found = pending_clips(bucket, tables.MODEL, hash_version=HASH_VERSION, part_clips=part_clips)
        assert [key for clips in found for key in clips["clip_key"].to_pylist()] == wide[11:]
    assert stale.delete_stale(bucket, part_clips=3) == 3


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_temporary_files_find_no_room_the_message_says_what_to_do(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(location, "clips", tables.clips(range(1_000), HEX))
    with files_of_at_most(4_096), pytest.raises(StoreError, match=r"temporary files.*150 bytes a clip.*TMPDIR=FOLDER"):
        books(location, part_clips=100)
    assert books(location, part_clips=100).clips == 1_000
