"""The demo's videos on disk."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from raydist.demo import films
from raydist.demo.words import is_held_out
from raydist.errors import UsageError


def test_films_show_only_held_out_combinations_with_distinct_captions(tmp_path: Path) -> None:
    chosen = films.choose(tmp_path, 240)
    assert len({film.caption for film in chosen}) == 240
    assert all(is_held_out(film.shown) for film in chosen)


def test_more_films_than_combinations_are_refused_with_the_number_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--clips 9999: expected 1 to 517"):
        films.choose(tmp_path, 9999)


def test_drawing_again_keeps_what_is_there_and_takes_away_what_is_not_wanted(tmp_path: Path) -> None:
    assert films.draw(films.choose(tmp_path, 3), processes=1) == 3
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert films.draw(films.choose(tmp_path, 2), processes=1) == 0
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert after == {name: before[name] for name in ("0001.mp4", "0002.mp4")}


def test_the_truth_is_written_beside_the_videos(tmp_path: Path) -> None:
    chosen = films.choose(tmp_path / "videos", 4)
    films.write_captions(chosen, tmp_path / "captions.csv")
    with (tmp_path / "captions.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["caption"] for row in rows] == [film.caption for film in chosen]
    assert [row["path"] for row in rows] == [f"videos/000{number}.mp4" for number in (1, 2, 3, 4)]
