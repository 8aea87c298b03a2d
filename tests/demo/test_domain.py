"""The domain that `tiny` does not know: its words, its looks, its split, its films."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import raydist
from raydist.demo import clip, domain, films, words
from raydist.demo.films import Counts
from raydist.demo.words import COLOURS, MOTIONS, OBJECTS, SCENES, combinations, is_held_out

SPLITS = ("train", "val", "test")


def test_every_combination_has_a_caption_of_its_own_and_none_that_tiny_was_trained_on() -> None:
    captions = {domain.caption(shown) for shown in combinations()}
    assert len(captions) == len(combinations())
    assert not captions & {words.caption(shown) for shown in combinations()}


def test_everything_is_called_something_else_or_by_a_word_of_its_own() -> None:
    assert tuple(domain.OBJECT_NAMES) == OBJECTS
    assert tuple(domain.COLOUR_NAMES) == tuple(COLOURS)
    assert tuple(domain.MOTION_NAMES) == tuple(MOTIONS)
    assert tuple(domain.SCENE_NAMES) == tuple(SCENES)
    for names in (domain.OBJECT_NAMES, domain.COLOUR_NAMES, domain.MOTION_NAMES, domain.SCENE_NAMES):
        assert len(set(names.values())) == len(names)


def test_new_names_of_objects_and_colours_use_no_word_of_the_plain_captions() -> None:
    plain = {word for shown in combinations() for word in words.caption(shown).split()}
    names = (*domain.OBJECT_NAMES.values(), *domain.COLOUR_NAMES.values())
    assert not plain & {word for name in names for word in name.split()}


def test_tiny_has_a_row_for_every_token_of_the_new_words() -> None:
    """A row of zeros cannot be told from another one, and LoRA does not train them."""
    encoder = raydist.load_encoder("tiny")
    table = encoder.model.state_dict()["text_encoder.token_embedding.weight"]
    ids = encoder.ids([domain.caption(shown) for shown in combinations()[::7]])
    used = torch.unique(ids[ids != 0])
    assert bool((table[used] != 0).any(dim=1).all())


def test_the_splits_share_no_combination_and_all_show_everything() -> None:
    parts = [set(domain.combinations_of(split)) for split in SPLITS]
    assert set.union(*parts) == set(combinations())
    assert sum(map(len, parts)) == len(combinations())
    for part in parts:
        for field, names in (("object", OBJECTS), ("colour", COLOURS), ("motion", MOTIONS), ("scene", SCENES)):
            assert {getattr(shown, field) for shown in part} == set(names)


def test_the_split_does_not_depend_on_anything_but_the_combination() -> None:
    # Frozen: another hash would let what was trained on into what measures.
    shown = [each for each in combinations() if each.object == "star" and each.scene == "city"]
    assert [words.caption(each) for each in shown if domain.split_of(each) == "val"] == [
        "a red star bounces up and down above a city at night",
        "a purple star flies in circles above a city at night",
    ]


def test_films_of_the_domain_are_dealt_by_combination_and_no_two_show_the_same(tmp_path: Path) -> None:
    chosen = films.choose_domain(tmp_path)
    assert len(chosen) == Counts().every == len({film.file for film in chosen})
    faded = [film for film in chosen if film.faded]
    assert all(film.split == domain.split_of(film.shown) for film in faded)
    assert len({film.caption for film in faded}) == len(faded)
    assert sum(film.split == "test" for film in faded) >= 200


def test_plain_films_train_only_and_show_what_tiny_was_trained_on(tmp_path: Path) -> None:
    plain = [film for film in films.choose_domain(tmp_path) if not film.faded]
    assert plain
    assert {film.split for film in plain} == {"train"}
    assert not any(is_held_out(film.shown) or domain.split_of(film.shown) != "train" for film in plain)
    assert not {film.caption for film in plain} & {film.caption for film in films.choose(tmp_path, 240)}


def test_no_two_films_are_one_film_in_two_looks(tmp_path: Path) -> None:
    chosen = films.choose_domain(tmp_path)
    assert len({(film.shown, film.seed) for film in chosen}) == len(chosen)


def test_another_seed_takes_other_combinations_of_the_same_splits(tmp_path: Path) -> None:
    one, other = (films.choose_domain(tmp_path, seed=seed) for seed in (1, 2))
    assert {film.shown for film in one if film.split == "test"} != {
        film.shown for film in other if film.split == "test"
    }
    assert all(film.split == domain.split_of(film.shown) for film in (*one, *other) if film.faded)


def test_the_list_tells_caption_and_split_of_each_film(tmp_path: Path) -> None:
    chosen = films.choose_domain(tmp_path / "reels", Counts(train=2, plain=1, val=1, test=1))
    films.write_captions(chosen, tmp_path / "reels.csv")
    with (tmp_path / "reels.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["split"] for row in rows] == ["train", "train", "train", "val", "test"]
    assert [row["caption"] for row in rows] == [film.caption for film in chosen]


def test_a_faded_film_has_less_colour_and_the_same_picture_for_the_same_frame() -> None:
    shown = combinations()[100]
    plain, faded = clip.prepare(shown, 3), clip.prepare(shown, 3, faded=True)
    first = np.asarray(faded.draw(4)).astype(int)
    faded.draw(11)
    assert np.array_equal(first, np.asarray(faded.draw(4)))
    colour = [np.ptp(np.asarray(picture.draw(4)).astype(int), axis=-1).mean() for picture in (plain, faded)]
    assert colour[1] < 0.75 * colour[0]
    assert not np.array_equal(first, np.asarray(faded.draw(5)))


@pytest.mark.parametrize("seed", range(3))
def test_a_faded_film_is_written_at_the_rate_that_is_asked_for(seed: int, tmp_path: Path) -> None:
    frames = clip.write(combinations()[seed * 900], seed, tmp_path / "film.mp4", faded=True, fps=8)
    with av.open(str(tmp_path / "film.mp4"), "r") as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 8
        assert len(list(container.decode(stream))) == frames
    assert 2.0 <= frames / 8 <= 3.0
