"""From probes to clips: places in the source video, aliases, splits, ids that collide."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.clips.naming import NamingTemplate, deal
from raydist.scan.known import KnownFiles
from raydist.scan.rows import (
    Cutting,
    Dealer,
    Place,
    Stretches,
    clip_rows,
    collisions,
    few_sources,
    place_of,
    without_aliases,
)
from raydist.scan.wave import Waves

WHOLE = Cutting(clip_ms=30_000, shortest_ms=2_000, template=None)
PRE_CUT = Cutting(clip_ms=30_000, shortest_ms=2_000, template=NamingTemplate(template="{video}_{index}"))


def probed(path: str, duration_ms: int, reason: str = "") -> dict[str, Any]:
    return {
        "video_id": f"talks/{path}",
        "root": "talks",
        "path": path,
        "duration_ms": duration_ms,
        "file_fingerprint": "f" * 32,
        "reason": reason,
    }


def cut(path: str, duration_ms: int, cutting: Cutting = WHOLE, dealer: Dealer | None = None) -> list[dict[str, Any]]:
    return clip_rows(probed(path, duration_ms), cutting, dealer or Dealer(), {})[1]


def test_a_span_in_which_no_frame_begins_is_no_clip() -> None:
    video = {**probed("a.mp4", 215_000), "gaps_ms": [[5_001, 29_999], [59_990, 150_010], [180_001, 214_990]]}
    rows = clip_rows(video, WHOLE, Dealer(), {})[1]
    assert [(row["clip_index"], row["start_s"]) for row in rows] == [(0, 0), (1, 30), (5, 150), (6, 180), (7, 210)]


def test_a_video_is_cut_into_spans_of_itself() -> None:
    rows = cut("a.mp4", 65_500)
    assert [row["clip_id"] for row in rows] == [
        "talks/a.mp4#t=0,30",
        "talks/a.mp4#t=30,60",
        "talks/a.mp4#t=60,65.5",
    ]
    assert [(row["clip_index"], row["source_start_s"], row["duration_s"]) for row in rows] == [
        (0, 0.0, 30.0),
        (1, 30.0, 30.0),
        (2, 60.0, 5.5),
    ]
    assert {row["source_id"] for row in rows} == {"talks/a"}
    assert {row["split"] for row in rows} == {deal("talks/a")}
    assert len({row["fingerprint"] for row in rows}) == 3


def test_a_pre_cut_file_is_one_clip_at_its_place_in_the_source() -> None:
    (row,) = cut("monday_7.mp4", 29_960, PRE_CUT)
    assert row["clip_id"] == "talks/monday_7.mp4#t=0,29.96"
    assert (row["source_id"], row["clip_index"], row["source_start_s"]) == ("talks/monday", 7, 210.0)
    assert row["split"] == deal("talks/monday")


def test_a_long_file_is_a_video_of_its_own_whatever_its_name() -> None:
    assert place_of("talks", "monday_7.mp4", 45_000, PRE_CUT).pre_cut
    assert place_of("talks", "monday_7.mp4", 45_001, PRE_CUT) == Place(source_id="talks/monday_7")
    assert place_of("talks", "monday_7.mp4", 29_960, WHOLE) == Place(source_id="talks/monday_7")


def aliased(first: tuple[str, int], second: tuple[str, int]) -> list[dict[str, Any]]:
    """Videos after both files were looked at, in this order."""
    stretches, videos = Stretches(), []
    for path, duration_ms in (first, second):
        video: dict[str, Any] = {**probed(path, duration_ms), "state": "ok", "alias_of": None}
        place, clips = clip_rows(video, PRE_CUT, Dealer(), {})
        video["clips"] = [row["clip_id"] for row in without_aliases(video, place, clips, stretches)]
        videos.append(video)
    return videos


def test_a_cut_of_a_video_that_was_scanned_first_is_its_alias() -> None:
    whole, part = aliased(("monday.mp4", 65_000), ("monday_1.mp4", 29_600))
    assert (whole["state"], len(whole["clips"])) == ("ok", 3)
    assert (part["state"], part["alias_of"], part["clips"]) == ("alias", "talks/monday.mp4#t=30,60", [])


def test_a_cut_that_was_scanned_first_stays_and_the_video_gives_the_rest() -> None:
    part, whole = aliased(("monday_1.mp4", 30_300), ("monday.mp4", 65_000))
    assert (part["state"], part["clips"]) == ("ok", ["talks/monday_1.mp4#t=0,30.3"])
    assert whole["state"] == "ok"
    assert whole["clips"] == ["talks/monday.mp4#t=0,30", "talks/monday.mp4#t=60,65"]


def test_a_video_of_which_every_span_is_there_is_an_alias() -> None:
    part, whole = aliased(("monday_0.mp4", 20_000), ("monday.mp4", 20_000))
    assert (part["state"], whole["state"], whole["alias_of"]) == ("ok", "alias", "talks/monday_0.mp4#t=0,20")


@given(st.integers(-3_000, 3_000))
def test_ends_may_differ_by_half_a_second(difference_ms: int) -> None:
    _, part = aliased(("monday.mp4", 65_000), ("monday_1.mp4", 30_000 + difference_ms))
    assert (part["state"] == "alias") == (abs(difference_ms) <= 500)


def test_two_cuts_of_one_stretch_are_no_aliases_of_each_other() -> None:
    assert [video["state"] for video in aliased(("monday_1.mp4", 30_000), ("monday_1.mkv", 30_000))] == ["ok", "ok"]


def test_a_long_video_whose_name_looks_pre_cut_is_whole_when_its_clips_come_back() -> None:
    stretches = Stretches()
    for clip in cut("day_7.mp4", 65_000, PRE_CUT):
        stretches.add(clip)
    assert stretches.find("talks/day_7", 30_000, 60_000, pre_cut=True) == "talks/day_7.mp4#t=30,60"


def test_many_cuts_of_few_videos_are_dealt_and_compared_in_time_that_grows_with_their_number() -> None:
    rows = [probed(f"monday_{number}.mp4", 30_000) for number in range(10_000)]
    dealer, stretches = Dealer(few_sources(rows, PRE_CUT)), Stretches()
    started = time.process_time()
    for row in rows:
        place, clips = clip_rows(row, PRE_CUT, dealer, {})
        assert without_aliases({**row, "state": "ok"}, place, clips, stretches) == clips
    whole = probed("monday.mp4", 300_000_000) | {"state": "ok"}
    assert not without_aliases(
        whole, place_of("talks", "monday.mp4", 300_000_000, PRE_CUT), cut("monday.mp4", 300_000_000, PRE_CUT), stretches
    )
    assert time.process_time() - started < 5


def test_a_first_scan_looks_once_at_each_row_to_see_whether_videos_are_few(tmp_path: Path) -> None:
    waves = Waves(str(tmp_path / "archive"), PRE_CUT, KnownFiles([]), set(), lambda: None)
    rows: list[dict[str, Any]] = []
    started = time.process_time()
    for number in range(300):
        rows += [probed(f"monday_{32 * number + part}.mp4", 30_000) for part in range(32)]
        assert not waves.ready(rows)
    assert time.process_time() - started < 10
    rows += [probed(f"{number}.mp4", 30_000) for number in range(18)]
    rows.append(probed("text.mp4", 0, "not_a_video"))
    assert not waves.ready(rows)
    assert waves.ready([*rows, probed("last.mp4", 30_000)])


def test_few_videos_are_dealt_in_parts_and_many_whole() -> None:
    rows = [probed(f"{number}.mp4", 600_000) for number in range(19)]
    rows += [probed(f"note{number}.txt", 0, "not_a_video") for number in range(100)]
    few = few_sources(rows, WHOLE)
    assert few is not None
    assert len(few) == 19
    assert few_sources([*rows, probed("x.mp4", 1_000)], WHOLE) is None
    splits = [row["split"] for row in cut("0.mp4", 600_000, WHOLE, Dealer(few))]
    assert splits == ["train"] * 14 + ["gap"] + ["val"] * 2 + ["gap"] + ["test"] * 2


def test_few_pre_cut_videos_are_dealt_in_parts_by_place() -> None:
    rows = [probed(f"monday_{number}.mp4", 30_000) for number in range(0, 40, 2)]
    dealer = Dealer(few_sources(rows, PRE_CUT))
    splits = [clip_rows(row, PRE_CUT, dealer, {})[1][0]["split"] for row in rows]
    assert splits == ["train"] * 14 + ["gap"] + ["val"] * 2 + ["gap"] + ["test"] * 2


def test_a_clip_keeps_its_split_and_what_a_file_gained_goes_on_with_the_last() -> None:
    old = {"talks/a.mp4#t=0,30": "train", "talks/a.mp4#t=30,60": "test"}
    rows = clip_rows(probed("a.mp4", 120_000), WHOLE, Dealer(), old)[1]  # type: ignore[arg-type]
    assert [row["split"] for row in rows] == ["train", "test", "test", "test"]


def test_a_file_without_clips_yet_is_dealt() -> None:
    assert cut("a.mp4", 10_000)[0]["split"] == deal("talks/a")


@pytest.mark.parametrize("known", [{}, {7: "a#t=0,1"}])
def test_a_key_of_two_clips_is_found(known: dict[int, str]) -> None:
    clips = [{"clip_key": 7, "clip_id": "b#t=0,1"}, {"clip_key": 8, "clip_id": "c#t=0,1"}]
    if not known:
        clips.insert(0, {"clip_key": 7, "clip_id": "a#t=0,1"})
    assert collisions(clips, known) == {7: ("a#t=0,1", "b#t=0,1")}
    assert collisions(clips[-1:], {8: "c#t=0,1"}) == {}
