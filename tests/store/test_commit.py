"""Commits: exactly once, with deletes, in one version."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from store import tables

from raydist.errors import StoreError
from raydist.store import commit, patience, read, schema

TABLE = tables.TABLE
KIND = schema.embeddings(4)


def write(location: str, keys: Sequence[int], fingerprint: str = "a") -> list[str]:
    commit.Committer(location, TABLE, KIND)
    return commit.write_fragments(location, TABLE, tables.embeddings(keys, fingerprint), KIND)


def held(location: str, table: str = TABLE) -> Counter[tuple[int, str]]:
    rows: Counter[tuple[int, str]] = Counter()
    for batch in read.scan_batches(location, table, ["clip_key", "fingerprint"]):
        rows.update(zip(batch["clip_key"].to_pylist(), batch["fingerprint"].to_pylist(), strict=True))
    return rows


def once(keys: Sequence[int], fingerprint: str = "a") -> Counter[tuple[int, str]]:
    return Counter({(key, fingerprint): 1 for key in keys})


def test_rows_are_visible_once_they_are_committed(location: str) -> None:
    committer = commit.Committer(location, TABLE, KIND)
    fragments = write(location, range(10)) + write(location, range(10, 12))
    assert read.count_rows(location, TABLE) == 0
    assert committer.commit(fragments) == 12
    assert held(location) == once(range(12))


def test_values_come_back_as_they_were_written(location: str) -> None:
    rows = tables.embeddings([3, -(2**63), 2**63 - 1], vector=tables.vectors(3))
    commit.append(location, TABLE, rows, KIND)
    signatures = tables.signatures([1])
    commit.append(location, "signatures", signatures, schema.SIGNATURES)
    assert pa.Table.from_batches(read.scan_batches(location, TABLE)).equals(rows)
    assert pa.Table.from_batches(read.scan_batches(location, "signatures")).equals(signatures)


def test_the_same_fragments_committed_again_are_not_doubled(location: str) -> None:
    committer = commit.Committer(location, TABLE, KIND)
    fragments = write(location, range(10))
    committer.commit(fragments)
    committer.commit(fragments)
    commit.Committer(location, TABLE, KIND).commit(fragments)
    assert held(location) == once(range(10))


def test_rows_that_another_driver_committed_meanwhile_are_dropped(location: str) -> None:
    one, two = (commit.Committer(location, TABLE, KIND) for _ in range(2))
    assert one.commit(write(location, range(30))) == 30
    fragments = write(location, range(20, 50)) + write(location, range(5)) + write(location, range(50, 60))
    assert two.commit(fragments) == 30
    assert two.commit(fragments) == 0
    assert held(location) == once(range(60))


def test_a_driver_that_starts_late_and_asked_for_nothing_doubles_no_row(location: str) -> None:
    commit.append(location, TABLE, tables.embeddings(range(30)), KIND)
    assert commit.Committer(location, TABLE, KIND).commit(write(location, range(20, 40))) == 10


def test_rows_known_to_be_others_are_not_looked_at_again(location: str) -> None:
    commit.append(location, TABLE, tables.embeddings(range(30)), KIND)
    version = read.need_table(location, TABLE).version
    late = commit.Committer(location, TABLE, KIND, version=version)
    commit.append(location, TABLE, tables.embeddings(range(30, 40)), KIND)
    assert late.commit(write(location, range(35, 45))) == 5
    assert held(location) == once(range(45))


def test_rows_are_dropped_also_after_they_were_compacted(location: str) -> None:
    two = commit.Committer(location, TABLE, KIND)
    for start in range(0, 40, 10):
        commit.append(location, TABLE, tables.embeddings(range(start, start + 10)), KIND)
    dataset = read.need_table(location, TABLE)
    dataset.optimize.compact_files(target_rows_per_fragment=1000)
    assert two.commit(write(location, range(35, 45))) == 5
    assert held(location) == once(range(45))


def test_a_row_twice_in_one_commit_gets_in_once(location: str) -> None:
    fragments = write(location, [1, 2, 2]) + write(location, [2, 3])
    assert commit.Committer(location, TABLE, KIND).commit(fragments) == 3
    assert held(location) == once([1, 2, 3])


def test_a_row_of_an_earlier_content_does_not_stand_in_the_way(location: str) -> None:
    commit.append(location, TABLE, tables.embeddings([1, 2], "old"), KIND)
    assert commit.append(location, TABLE, tables.embeddings([1, 2], "new"), KIND) == 2
    assert held(location) == once([1, 2], "old") + once([1, 2], "new")


def test_clips_have_one_row_a_key_whatever_the_fingerprint(location: str) -> None:
    commit.append(location, "clips", tables.clips([1, 2], "old"), schema.CLIPS)
    assert commit.append(location, "clips", tables.clips([2, 3], "new"), schema.CLIPS) == 1
    assert set(held(location, "clips")) == {(1, "old"), (2, "old"), (3, "new")}


def test_failures_are_only_appended(location: str) -> None:
    for _ in range(2):
        assert commit.append(location, "failures", tables.failures([1, 2]), schema.FAILURES) == 2
    assert read.count_rows(location, "failures") == 4


@pytest.mark.parametrize(("table", "kind"), [(TABLE, KIND), ("failures", schema.FAILURES)])
def test_rows_on_another_machines_disk_are_not_committed(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, kind: pa.Schema
) -> None:
    monkeypatch.setattr(patience, "_TRIES", 0)  # a network's disk may show the file a moment later: no waits for it
    rows = tables.embeddings([1]) if table == TABLE else tables.failures([1])
    commit.append(location, table, rows, kind)
    elsewhere = str(tmp_path / "elsewhere")  # what another machine has at the same path
    commit.Committer(elsewhere, table, kind)
    fragments = commit.write_fragments(elsewhere, table, tables.embeddings([2]) if table == TABLE else rows, kind)
    with pytest.raises(StoreError, match=r"a worker wrote '.*\.lance' where this machine does not see it.*mounted"):
        commit.Committer(location, table, kind).commit(fragments)
    assert len(pa.Table.from_batches(read.scan_batches(location, table))) == 1


def test_a_worker_makes_no_table_where_the_drivers_is_not(location: str, tmp_path: Path) -> None:
    commit.Committer(location, "failures", schema.FAILURES)
    unmounted = tmp_path / "unmounted"
    unmounted.mkdir()
    with pytest.raises(StoreError, match=rf"{socket.gethostname()} sees no table 'failures'.*mounted"):
        commit.write_fragments(str(unmounted), "failures", tables.failures([1]), schema.FAILURES)
    assert not list(unmounted.iterdir())


def test_rows_come_in_the_place_of_deleted_ones_in_one_version(location: str) -> None:
    for start in (0, 10, 20):  # the delete empties the second fragment and takes a part of the others
        commit.append(location, TABLE, tables.embeddings(range(start, start + 10), "old"), KIND)
    before = read.need_table(location, TABLE).version
    committer = commit.Committer(location, TABLE, KIND)
    rows = committer.commit(write(location, range(5, 25), "new"), delete_where="clip_key >= 5 AND clip_key < 25")
    assert (rows, committer.deleted) == (20, 20)
    assert read.need_table(location, TABLE).version == before + 1
    assert held(location) == once([*range(5), *range(25, 30)], "old") + once(range(5, 25), "new")


def test_a_row_to_be_deleted_does_not_keep_its_replacement_out(location: str) -> None:
    committer = commit.Committer(location, "clips", schema.CLIPS)
    commit.append(location, "clips", tables.clips([1, 2], "old"), schema.CLIPS)  # another writer, meanwhile
    fragments = commit.write_fragments(location, "clips", tables.clips([1, 2], "new"), schema.CLIPS)
    assert committer.commit(fragments, delete_where="video_id = 'v.mp4'") == 2
    assert set(held(location, "clips")) == {(1, "new"), (2, "new")}


def test_deleting_everything_leaves_an_empty_table_that_takes_rows_again(location: str) -> None:
    commit.append(location, TABLE, tables.embeddings(range(10)), KIND)
    assert commit.delete(location, TABLE, "clip_key >= 0") == 10
    assert read.count_rows(location, TABLE) == 0
    assert commit.append(location, TABLE, tables.embeddings(range(5)), KIND) == 5
    assert held(location) == once(range(5))


def test_the_id_of_a_deleted_fragment_never_comes_back(location: str) -> None:
    seen: set[int] = set()
    for key in range(5):
        commit.append(location, TABLE, tables.embeddings([key]), KIND)
        ids = {fragment.fragment_id for fragment in read.need_table(location, TABLE).get_fragments()}
        assert not ids & seen
        seen |= ids
        commit.delete(location, TABLE, f"clip_key = {key}")


def test_deleting_from_no_table_deletes_nothing(location: str) -> None:
    assert commit.delete(location, "signatures", "clip_key = 1") == 0


def test_a_condition_that_is_none_is_refused_with_the_columns(location: str) -> None:
    commit.append(location, TABLE, tables.embeddings([1]), KIND)
    with pytest.raises(StoreError, match=r"'clipkey = 1'.*clip_key \(int64\)"):
        commit.delete(location, TABLE, "clipkey = 1")
    assert read.count_rows(location, TABLE) == 1


def test_vectors_that_are_not_finite_are_refused(location: str) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        vector = tables.fixed(np.array([[0, 1, 0, 0], [0, bad, 0, 0]]))
        with pytest.raises(ValueError, match=r"vector.*NaN"):
            commit.write_fragments(location, TABLE, tables.embeddings([1, 2], vector=vector), KIND)
    rows = tables.embeddings([1], vector=pa.array([None], KIND.field("vector").type))
    with pytest.raises(ValueError, match=r"vector.*NULL"):
        commit.write_fragments(location, TABLE, rows, KIND)
    largest = tables.fixed(np.array([[65504.0, -65504.0, 6e-8, 0]]))
    assert commit.append(location, TABLE, tables.embeddings([1], vector=largest), KIND) == 1


def test_columns_that_lack_or_are_unknown_are_refused_by_name(location: str) -> None:
    rows = tables.embeddings([1]).drop_columns(["at"]).append_column("when", pa.array([1]))
    with pytest.raises(ValueError, match=r"\['at'\] are missing and \['when'\] unknown"):
        commit.write_fragments(location, TABLE, rows, KIND)


def test_columns_of_the_user_are_added_and_set_again(location: str) -> None:
    videos = tables.filled(schema.VIDEOS, 3, video_id=["a", "b", "c"], state="ok")
    commit.append(location, "videos", videos, schema.VIDEOS)
    commit.add_columns(location, "videos", pa.table({"year": [1999, 2001], "video_id": ["c", "a"]}))
    commit.add_columns(location, "videos", pa.table({"year": [2002, 7], "video_id": ["a", "nowhere"]}))
    rows = pa.Table.from_batches(read.scan_batches(location, "videos", ["video_id", "state", "year"]))
    found = {row["video_id"]: (row["state"], row["year"]) for row in rows.to_pylist()}
    assert found == {"a": ("ok", 2002), "b": ("ok", None), "c": ("ok", 1999)}
    with pytest.raises(StoreError, match=r"year.*int64.*string"):
        commit.add_columns(location, "videos", pa.table({"year": ["MMIV"], "video_id": ["a"]}))


def test_rows_without_the_columns_of_the_user_can_still_be_added(location: str) -> None:
    commit.append(location, "videos", tables.filled(schema.VIDEOS, 1, video_id="a"), schema.VIDEOS)
    commit.add_columns(location, "videos", pa.table({"year": [1999], "video_id": ["a"]}))
    commit.append(location, "videos", tables.filled(schema.VIDEOS, 1, video_id="b"), schema.VIDEOS)
    rows = pa.Table.from_batches(read.scan_batches(location, "videos", ["video_id", "year"])).to_pylist()
    assert sorted(row["video_id"] for row in rows) == ["a", "b"]


def commit_overlapping(location: str, seed: int, keys: list[int]) -> int:
    """Commit all keys in random pieces and order; the number of conflicts."""
    rng = random.Random(seed)
    rng.shuffle(keys)
    committer = commit.Committer(location, TABLE, KIND)
    while keys:
        size = rng.randint(1, 12)
        committer.commit(write(location, keys[:size]))
        del keys[:size]
    return committer.conflicts


def test_four_threads_with_the_same_rows_commit_each_once(location: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(commit_overlapping, location, seed, list(range(60))) for seed in range(4)]
        conflicts = sum(job.result() for job in jobs)
    assert held(location) == once(range(60))
    assert conflicts  # else the test shows nothing


def test_rows_committed_during_deletes_of_stale_ones_are_all_kept(location: str) -> None:
    commit.append(location, TABLE, tables.embeddings(range(60), "old"), KIND)
    done = threading.Event()
    deleted = 0

    def sweep() -> None:
        nonlocal deleted
        key = 0
        while key < 60:
            deleted += commit.delete(location, TABLE, f"clip_key = {key} AND fingerprint = 'old'")
            key += 1
        done.set()

    thread = threading.Thread(target=sweep)
    thread.start()
    committer = commit.Committer(location, TABLE, KIND)
    for start in range(0, 60, 5):
        committer.commit(write(location, range(start, start + 5), "new"))
    thread.join()
    assert done.is_set()
    assert deleted == 60
    assert held(location) == once(range(60), "new")


def compact_once(location: str) -> bool:
    metrics = read.need_table(location, TABLE).optimize.compact_files(target_rows_per_fragment=1000)
    return bool(metrics.fragments_removed)


def test_compaction_and_an_index_at_the_same_time_lose_and_double_nothing(location: str) -> None:
    commit.append(location, TABLE, tables.embeddings(range(1000, 1050)), KIND)
    read.need_table(location, TABLE).create_scalar_index("clip_key", "BTREE")
    done = threading.Event()

    def compact() -> int:
        compactions = 0
        while not done.is_set():
            try:
                compactions += compact_once(location)
            except OSError as error:
                if not commit.is_conflict(error):
                    raise
        return compactions

    with ThreadPoolExecutor(3) as pool:
        compactions = pool.submit(compact)
        list(pool.map(lambda seed: commit_overlapping(location, seed, list(range(60))), range(2)))
        commit.delete(location, TABLE, "clip_key >= 1025")
        done.set()
        assert compactions.result()
    assert held(location) == once([*range(60), *range(1000, 1025)])
    for key in (0, 59, 1000, 1024):
        assert read.count_rows(location, TABLE, f"clip_key = {key}") == 1
    assert read.count_rows(location, TABLE, "clip_key = 1040") == 0


def start_writer(location: str, seed: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("writer.py")), location, str(seed)],
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
    )


def kill_writers(location: str, clips: int, writers: int, kills: int, seed: int) -> None:
    """Run writers at once, kill one of them at a random moment and start it again, `kills` times; then let them end."""
    commit.append(location, "clips", tables.clips(range(clips)), schema.CLIPS)
    rng = random.Random(seed)
    running = [start_writer(location, number) for number in range(writers)]
    for number in range(kills):
        time.sleep(rng.uniform(0.6, 1.6))
        victim = rng.randrange(writers)
        running[victim].send_signal(signal.SIGKILL)
        running[victim].wait()
        running[victim] = start_writer(location, writers + number)
    assert [process.wait(timeout=240) for process in running] == [0] * writers
    assert held(location) == once(range(clips))


def test_two_drivers_that_are_killed_and_started_again_leave_each_row_once(location: str) -> None:
    kill_writers(location, clips=1_500, writers=2, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(("writers", "kills", "seed"), [(2, 10, 2), (3, 15, 3)])
def test_many_kills_of_many_drivers_leave_each_row_once(location: str, writers: int, kills: int, seed: int) -> None:
    kill_writers(location, clips=8_000, writers=writers, kills=kills, seed=seed)
