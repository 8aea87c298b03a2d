"""Units of decoding work: every clip once, a file's spans together and in order, no unit too large."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raydist.clips.units import CLIPS_A_UNIT, ENDING, UNITS, clips_a_unit, units

COUNTS = st.lists(st.integers(1, 90), min_size=1, max_size=30)


def clips_of(counts: list[int]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """So many clips of each of the files, in the order of their files."""
    clips, files = [], {}
    for number, count in enumerate(counts):
        video = f"v/{number}.mp4"
        files[video] = {"root": "v", "path": f"{number}.mp4", "file_fingerprint": f"{number:08x}"}
        for place in range(count):
            clips.append(
                {
                    "clip_key": len(clips),
                    "clip_id": f"{video}#t={place},{place + 1}",
                    "video_id": video,
                    "fingerprint": "0" * 32,
                    "start_ms": place * 1000,
                    "end_ms": place * 1000 + 1000,
                    "split": "train",
                    "has_signature": False,
                }
            )
    return clips, files


@given(COUNTS, st.integers(1, 40), st.integers(0, 5), st.booleans())
def test_every_clip_is_in_one_unit_once(counts: list[int], size: int, seed: int, ending: bool) -> None:
    clips, files = clips_of(counts)
    packed = units(clips, files, size, seed, ending=ending)
    assert packed.schema == UNITS
    found = [clip["clip_key"] for unit in packed["files"].to_pylist() for file in unit for clip in file["clips"]]
    assert sorted(found) == list(range(len(clips)))


@given(COUNTS, st.integers(1, 40))
def test_units_are_full_but_for_one(counts: list[int], size: int) -> None:
    clips, files = clips_of(counts)
    sizes = [sum(len(file["clips"]) for file in unit) for unit in units(clips, files, size)["files"].to_pylist()]
    assert max(sizes) <= size
    assert sum(count < size for count in sizes) <= 1


@given(COUNTS)
def test_spans_of_a_file_stay_in_order_and_together(counts: list[int]) -> None:
    clips, files = clips_of(counts)
    for unit in units(clips, files)["files"].to_pylist():
        names = [file["video_id"] for file in unit]
        assert names == [name for name, _ in groupby(names)]
        for file in unit:
            starts = [clip["start_ms"] for clip in file["clips"]]
            assert starts == list(range(starts[0], starts[0] + 1000 * len(starts), 1000))
            assert file["file_fingerprint"] == files[file["video_id"]]["file_fingerprint"]


def test_units_come_in_mixed_order_and_the_same_one_each_time() -> None:
    clips, files = clips_of([32] * 20)
    first = [unit[0]["video_id"] for unit in units(clips, files)["files"].to_pylist()]
    assert first == [unit[0]["video_id"] for unit in units(clips, files)["files"].to_pylist()]
    assert first != sorted(first)


def test_the_last_units_of_a_run_are_small_so_that_no_worker_is_late() -> None:
    clips, files = clips_of([640] * 10)
    given = units(clips, files, ending=True)["files"].to_pylist()
    sizes = [sum(len(file["clips"]) for file in unit) for unit in given]
    assert sizes == [CLIPS_A_UNIT] * (200 - ENDING) + [4] * (ENDING * CLIPS_A_UNIT // 4)
    for unit in given:
        for file in unit:
            assert file["file_fingerprint"] == files[file["video_id"]]["file_fingerprint"]


@given(st.integers(1, 10**9))
def test_small_archives_are_cut_finer(clips: int) -> None:
    size = clips_a_unit(clips)
    assert 4 <= size <= CLIPS_A_UNIT
    assert size <= max(4, clips // 64)
