"""Two traces: the same pictures or only alike, and from when to when."""

from __future__ import annotations

import numpy as np
import pytest
from takes import Film, changed

from raydist.dedup.align import Line, Verdict, compare
from raydist.dedup.traces import SIDE, Trace
from raydist.dedup.views import WHOLE, prepare, without_bars

FILM = Film(place=3, act=4, cuts_s=(7.3, 16.1))


def verdict(a: Trace, b: Trace, near: Line | None = None) -> Verdict:
    return compare(prepare(a), prepare(b), near=near)


def noisy(trace: Trace, levels: float, seed: int = 0) -> Trace:
    noise = np.random.default_rng(seed).normal(0, levels, trace.pictures_TSS.shape)
    return changed(trace, trace.pictures_TSS + noise)


@pytest.mark.parametrize("shift_s", [0.0, 0.7, 3.0, 11.0, -6.4])
def test_a_copy_of_other_borders_is_found_with_its_offset(shift_s: float) -> None:
    found = verdict(FILM.trace(0, 30), noisy(FILM.trace(0, 30, shift_s=shift_s), 3))
    assert found.kind == "copy"
    assert found.offset_s == pytest.approx(-shift_s, abs=0.3)
    assert found.a_from_s == pytest.approx(max(0.0, shift_s), abs=0.5)
    assert found.a_to_s == pytest.approx(min(30.0, 30 + shift_s), abs=0.5)


@pytest.mark.parametrize("speed", [1.05, 1 / 1.05, 25 / 24])
def test_a_faster_or_slower_copy_is_found(speed: float) -> None:
    found = verdict(FILM.trace(0, 30), FILM.trace(0, 30, speed=speed, shift_s=2.0))
    assert found.kind == "copy"
    assert found.line is not None
    assert found.line.speed == pytest.approx(1 / speed, abs=0.012)
    for a_s, b_s in ((found.a_from_s, found.b_from_s), (found.a_to_s, found.b_to_s)):
        assert (a_s - 2.0) / speed == pytest.approx(b_s, abs=0.5)


@pytest.mark.parametrize("zoom", [0.95, 0.9])
def test_a_cropped_copy_is_found_from_either_side(zoom: float) -> None:
    whole, cropped = FILM.trace(0, 30), noisy(FILM.trace(0, 30, zoom=zoom, shift_s=3.0), 2)
    assert verdict(whole, cropped).kind == verdict(cropped, whole).kind == "copy"


def test_bars_brightness_and_a_logo_are_seen_through() -> None:
    whole, other = FILM.trace(0, 30), FILM.trace(0, 30, shift_s=3.0)
    barred = np.full(other.pictures_TSS.shape, 12.0)
    rows = np.linspace(0, SIDE - 1, SIDE - 12).round().astype(int)
    barred[:, 6 : SIDE - 6] = other.pictures_TSS[:, rows]
    logo = other.pictures_TSS.copy()
    logo[:, 2:9, 36:46] = 250
    for after in (barred, other.pictures_TSS * 1.2 + 10, other.pictures_TSS * 0.6, logo):
        found = verdict(whole, changed(other, after))
        assert (found.kind, round(found.offset_s)) == ("copy", -3)


def test_another_take_of_the_same_shots_is_only_similar() -> None:
    for act in range(5, 15):
        for reach in (0.15, 0.04):
            one, other = Film(3, 4, reach=reach, cuts_s=(7.3, 16.1)), Film(3, act, reach=reach, cuts_s=(7.3, 16.1))
            assert verdict(one.trace(0, 30), other.trace(0, 30)).kind == "similar", (act, reach)


def test_other_pictures_are_different() -> None:
    assert verdict(FILM.trace(0, 30), Film(8, 4).trace(0, 30)).kind == "different"


def test_stills_prove_nothing_but_beside_a_copy() -> None:
    still = Film(3, 4, reach=0.0).trace(0, 30)
    found = verdict(still, noisy(still, 2))
    assert (found.kind, round(found.confidence, 1)) == ("similar", 0.5)
    beside = verdict(still, noisy(still, 2), near=Line(speed=1.0, shift_s=-4.0))
    assert (beside.kind, beside.offset_s) == ("copy", pytest.approx(-4.0, abs=0.3))


def test_black_pictures_are_no_evidence() -> None:
    black = changed(FILM.trace(0, 30), np.full((60, SIDE, SIDE), 3))
    assert verdict(black, noisy(black, 1)).kind != "copy"
    assert verdict(black, FILM.trace(0, 30)).kind == "different"


def test_a_clip_of_which_only_the_end_is_shared_says_so() -> None:
    other = Film(9, 9)
    parts = np.concatenate([other.trace(0, 18).pictures_TSS, FILM.trace(0, 12).pictures_TSS])
    found = verdict(FILM.trace(0, 30), changed(FILM.trace(0, 30), parts))
    assert (found.kind, found.offset_s) == ("copy", pytest.approx(18, abs=0.3))
    assert (found.b_from_s, found.b_to_s) == (pytest.approx(18, abs=0.6), pytest.approx(30, abs=0.6))


@pytest.mark.parametrize("near", [None, Line(speed=1.0, shift_s=0.0)])
@pytest.mark.parametrize("black", [False, True])
def test_an_overlap_ends_where_other_pictures_were_put_in(near: Line | None, black: bool) -> None:
    whole, other = FILM.trace(0, 30), noisy(FILM.trace(0, 30), 3)
    put_in = Film(9, 9).trace(0, 5).pictures_TSS
    other.pictures_TSS[22:32] = 0 if black else put_in
    found = verdict(whole, other, near)
    assert found.kind == "copy"
    assert (found.a_from_s, found.a_to_s) == (pytest.approx(16, abs=0.6), pytest.approx(30, abs=0.6))


def test_a_short_overlap_counts_beside_a_copy_only() -> None:
    a, b = FILM.trace(0, 30), FILM.trace(0, 30, shift_s=27.5)
    found = verdict(a, b, near=Line(speed=1.0, shift_s=-27.5))
    assert found.kind == "copy"
    assert found.a_from_s == pytest.approx(27.5, abs=0.5)


def test_clips_of_a_second_are_compared_too() -> None:
    one = FILM.trace(0, 1, step_s=0.125)
    assert verdict(one, noisy(one, 3)).kind == "copy"
    assert verdict(one, Film(3, 5).trace(0, 1, step_s=0.125)).kind != "copy"


def test_one_shot_with_the_same_camera_move_between_others_is_no_copy() -> None:
    # As with two takes of a pan: what agrees ends with the shot, and not well.
    one, other = FILM.trace(0, 30), Film(9, 9, cuts_s=(9.0, 17.0)).trace(0, 30)
    shot = noisy(FILM.trace(9, 17), 25)
    mixed = np.concatenate([other.pictures_TSS[:18], shot.pictures_TSS, other.pictures_TSS[34:]])
    assert verdict(one, changed(one, mixed)).kind == "similar"


def test_one_picture_is_not_compared_with_trouble() -> None:
    one = Trace(times_s=np.array([0.0]), pictures_TSS=FILM.trace(0, 0.5).pictures_TSS, start_s=0.0, end_s=0.5)
    assert verdict(one, one).kind != "copy"
    assert verdict(one, FILM.trace(0, 30)).kind != "copy"


def test_only_dark_steady_borders_are_bars() -> None:
    pictures = FILM.trace(0, 10).pictures_TSS.copy()
    assert without_bars(pictures) == WHOLE
    pictures[:, :5], pictures[:, -5:] = 16, 16
    top, bottom, left, right = without_bars(pictures)
    assert (left, right) == (0.0, SIDE)
    assert (top, bottom) == (pytest.approx(5, abs=1), pytest.approx(SIDE - 5, abs=1))
    assert without_bars(np.zeros_like(pictures)) == WHOLE
