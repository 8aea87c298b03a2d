"""Reading frames: the same ones from the cache, from a copy on this node, and from the files."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from archives import encode, rows, scanned
from framed import BYTES, GEOMETRY, by_hand, captioned, describe, reader, settings

from raydist.clips.decode import decode_clip
from raydist.frames.build import ensure
from raydist.frames.local import LocalCopies
from raydist.store import commit, frames, schema
from raydist.store.pairs import captioned_clips

TABLE = "frames_viclip_32_exact_8_raw"
JITTERED = "frames_viclip_32_thirds_24_raw"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of three clips, and none of them cached."""
    return captioned(tmp_path_factory.mktemp("plain"), 4)


@pytest.fixture
def cached(cluster: None, plain: Path, tmp_path: Path) -> Path:
    """The same, all of them cached, and the videos gone."""
    archive = tmp_path / "archive"
    shutil.copytree(plain, archive)
    ensure(settings(archive), captioned_clips(str(archive), None), GEOMETRY)
    return archive


def pairs_of(archive: Path) -> pa.Table:
    return captioned_clips(str(archive), None)


def away(pairs: pa.Table) -> pa.Table:
    """The clips as if their files were gone."""
    gone = pa.array(["nowhere.mp4"] * pairs.num_rows)
    return pairs.set_column(pairs.schema.get_field_index("path"), "path", gone)


@pytest.mark.parametrize("decoders", [1, 3])
@pytest.mark.parametrize("encoding", ["raw", "none"])
def test_clips_that_no_cache_has_are_decoded_in_the_order_asked_for(plain: Path, encoding: str, decoders: int) -> None:
    pairs = pairs_of(plain).take([7, 0, 11, 3, 3])
    one = reader(plain, encoding=encoding, decoders=decoders)
    frames_BTHWC, good_B = one.read(pairs)
    one.close()
    assert good_B.tolist() == [True] * 5
    np.testing.assert_array_equal(frames_BTHWC, by_hand(plain, pairs))


def test_a_clip_that_cannot_be_had_costs_itself(plain: Path) -> None:
    pairs = pairs_of(plain).slice(0, 4)
    rows = pairs.to_pylist()
    rows[1]["path"] = "nowhere.mp4"
    rows[2]["root"] = "no root"
    rows[3]["file_fingerprint"] = "of another content"
    frames_BTHWC, good_B = reader(plain).read(pa.Table.from_pylist(rows, pairs.schema))
    assert good_B.tolist() == [True, False, False, False]
    assert not frames_BTHWC[1:].any()
    np.testing.assert_array_equal(frames_BTHWC[:1], by_hand(plain, pairs.slice(0, 1)))


def test_no_clips_are_no_frames(plain: Path) -> None:
    frames_BTHWC, good_B = reader(plain).read(pairs_of(plain).slice(0, 0))
    assert frames_BTHWC.shape == (0, 8, 32, 32, 3)
    assert good_B.shape == (0,)


@pytest.mark.ray
def test_cached_clips_need_no_file_and_none_reads_no_cache(cached: Path, plain: Path) -> None:
    pairs = pairs_of(cached)
    frames_BTHWC, good_B = reader(cached).read(away(pairs))
    assert good_B.all()
    np.testing.assert_array_equal(frames_BTHWC, by_hand(plain, pairs))
    twice = away(pairs).take([5, 5, 2])
    np.testing.assert_array_equal(reader(cached).read(twice)[0], frames_BTHWC[[5, 5, 2]])
    assert not reader(cached, encoding="none").read(away(pairs))[1].any()


@pytest.mark.ray
def test_a_cache_that_goes_while_it_is_read_costs_nothing_but_time(cached: Path, plain: Path) -> None:
    pairs, one = pairs_of(cached), reader(cached, files=plain)
    assert one.read(pairs)[1].all()
    frames.drop(str(cached), TABLE)
    frames_BTHWC, good_B = one.read(pairs)
    assert good_B.all()
    np.testing.assert_array_equal(frames_BTHWC, by_hand(plain, pairs))


@pytest.mark.ray
def test_a_cached_row_that_is_no_frames_is_decoded_instead(plain: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(plain, archive)
    pairs = pairs_of(archive).slice(0, 2)
    rows = pairs.select(["clip_key", "fingerprint"]).to_pylist()
    broken = pa.Table.from_pylist([{**row, "frames": b"half a clip"} for row in rows], schema.CACHED_FRAMES)
    commit.append(str(archive), TABLE, broken, schema.CACHED_FRAMES)
    frames_BTHWC, good_B = reader(archive).read(pairs)
    assert good_B.all()
    np.testing.assert_array_equal(frames_BTHWC, by_hand(plain, pairs))


@pytest.mark.ray
def test_a_node_keeps_copies_and_reads_them_when_the_cache_is_gone(cached: Path, tmp_path: Path) -> None:
    pairs, local = pairs_of(cached), tmp_path / "local"
    frames_BTHWC, _ = reader(cached, local=local).read(away(pairs))
    frames.drop(str(cached), TABLE)
    again, good_B = reader(cached, local=local).read(away(pairs))
    assert good_B.all()
    np.testing.assert_array_equal(again, frames_BTHWC)
    changed = pairs.set_column(
        pairs.schema.get_field_index("fingerprint"), "fingerprint", pa.array(["0" * 32] * pairs.num_rows)
    )
    assert not reader(cached, local=local).read(away(changed))[1].any()


def test_what_was_decoded_is_copied_too_and_a_damaged_copy_is_replaced(plain: Path, tmp_path: Path) -> None:
    pairs = pairs_of(plain).slice(0, 2)
    frames_BTHWC, _ = reader(plain, local=tmp_path).read(pairs)
    files = sorted((tmp_path / TABLE).iterdir())
    assert [file.stat().st_size for file in files] == [BYTES, BYTES]
    files[0].write_bytes(b"half of it")
    np.testing.assert_array_equal(reader(plain, local=tmp_path).read(pairs)[0], frames_BTHWC)
    assert [file.stat().st_size for file in sorted((tmp_path / TABLE).iterdir())] == [BYTES, BYTES]


def test_copies_stay_within_their_bound_whoever_writes_them(tmp_path: Path) -> None:
    copies = [LocalCopies(tmp_path, 100_000) for _ in range(3)]
    for number in range(300):
        copies[number % 3].put(number, "f", bytes(1000))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 100_000 * (1 + 3 / 32)
    assert copies[0].get(0, "f") == bytes(1000)
    assert copies[0].get(299, "f") is None
    for number in range(20):
        (tmp_path / f"old-{number}").write_bytes(bytes(1000))
        os.utime(tmp_path / f"old-{number}", (0, 0))
    LocalCopies(tmp_path, 100_000)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 90_000
    assert not list(tmp_path.glob("old-*"))


@pytest.mark.parametrize("length", [1, 2, 5, 8, 9, 17, 23, 24, 40])
def test_candidates_lie_in_their_interval_also_in_short_clips(tmp_path: Path, length: int) -> None:
    (tmp_path / "v").mkdir()
    encode(tmp_path / "v" / "a.mp4", count=length, rate=50, seed=length)
    scanned(tmp_path / "archive", tmp_path / "v")
    describe(tmp_path / "archive")
    pairs = pairs_of(tmp_path / "archive")
    presented = list(decode_clip(tmp_path / "v" / "a.mp4", frames=length, size=32))
    assert len({frame.tobytes() for frame in presented}) == length
    one = reader(tmp_path / "archive", candidates=3)
    middle, good_B = one.read(pairs)
    assert good_B.all()
    np.testing.assert_array_equal(middle, by_hand(tmp_path / "archive", pairs))
    cuts = min(8, length)
    for which in range(3):
        (shown,), _ = one.read(pairs, np.full((1, 8), which))
        for interval, frame in enumerate(shown):
            (rank,) = [rank for rank, other in enumerate(presented) if (frame == other).all()]
            held = min(interval, cuts - 1)
            assert held * length // cuts <= rank < (held + 1) * length // cuts
    one.close()


@pytest.mark.ray
def test_one_cache_of_candidates_serves_jitter_and_the_recipe(cluster: None, plain: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(plain, archive)
    pairs = pairs_of(archive)
    ensure(settings(archive), pairs, GEOMETRY, candidates=3)
    assert frames.tables(str(archive)) == [JITTERED]
    choice = np.random.default_rng(0).integers(0, 3, (pairs.num_rows, 8))
    shown, good_B = reader(archive, candidates=3).read(away(pairs), choice)
    assert good_B.all()
    np.testing.assert_array_equal(shown, reader(plain, candidates=3).read(pairs, choice)[0])
    recipe = by_hand(plain, pairs)
    assert (shown != recipe).any()
    for candidates in (1, 3):
        np.testing.assert_array_equal(reader(archive, candidates=candidates).read(away(pairs))[0], recipe)
    signatures = rows(archive, "signatures")
    assert len(signatures) == pairs.num_rows
    assert all(len(row["frame_hashes"]) == len(row["frame_times_s"]) == 8 for row in signatures)


def test_a_reader_goes_on_after_a_fork_and_through_pickle(plain: Path) -> None:
    pairs, one = pairs_of(plain).slice(0, 3), reader(plain)
    expected = one.read(pairs)[0]
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(again.read(pairs)[0], expected)
    child = os.fork()
    if child == 0:
        os._exit(0 if (one.read(pairs)[0] == expected).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(one.read(pairs)[0], expected)  # the other process took nothing away
    one.close()
    again.close()


@pytest.mark.parametrize("choice", [np.zeros((1, 7), np.int64), np.full((1, 8), 3), np.full((1, 8), -1)])
def test_a_choice_that_is_none_is_refused(plain: Path, choice: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected .*1, 8.* of 0 to 2"):
        reader(plain, candidates=3).read(pairs_of(plain).slice(0, 1), choice)


@pytest.mark.parametrize("options", [{"encoding": "png"}, {"candidates": 2}])
def test_a_cache_that_there_is_not_is_refused(plain: Path, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected one of raw, jpeg, none, 1 or 3"):
        reader(plain, **options)
