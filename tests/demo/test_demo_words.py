"""What demo clips show: captions, combinations, and the ones that training never sees."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raydist.demo.paraphrases import COLOUR_WORDS, MOTION_WORDS, OBJECT_WORDS, SCENE_WORDS, paraphrase
from raydist.demo.words import (
    CLASHES,
    COLOURS,
    MOTIONS,
    OBJECTS,
    SCENES,
    caption,
    combinations,
    held_out_combinations,
    is_held_out,
    training_combinations,
)


def test_every_combination_has_its_own_caption() -> None:
    assert len({caption(shown) for shown in combinations()}) == len(combinations())


def test_held_out_and_training_combinations_are_disjoint_and_complete() -> None:
    held_out, training = set(held_out_combinations()), set(training_combinations())
    assert not held_out & training
    assert held_out | training == set(combinations())
    assert len(held_out) >= 400


def test_training_sees_every_single_thing_that_held_out_clips_show() -> None:
    for field, names in (("object", OBJECTS), ("colour", COLOURS), ("motion", MOTIONS), ("scene", SCENES)):
        assert {getattr(shown, field) for shown in training_combinations()} == set(names)


def test_no_colour_drowns_in_its_scene() -> None:
    assert not {(shown.colour, shown.scene) for shown in combinations()} & CLASHES


@given(st.integers(0, 2**32), st.sampled_from(training_combinations()))
def test_a_paraphrase_names_only_what_the_clip_shows_and_at_least_one_thing(seed: int, shown: object) -> None:
    named = paraphrase(shown, np.random.default_rng(seed))  # type: ignore[arg-type]
    said = {field: getattr(named, field) for field in ("object", "colour", "motion", "scene")}
    assert any(said.values())
    assert all(value is None or value == getattr(shown, field) for field, value in said.items())
    assert named.text == " ".join(named.text.split())


def test_everything_has_words() -> None:
    assert set(OBJECT_WORDS) == set(OBJECTS)
    assert set(COLOUR_WORDS) == set(COLOURS)
    assert set(MOTION_WORDS) == set(MOTIONS)
    assert set(SCENE_WORDS) == set(SCENES)


def test_the_split_does_not_depend_on_anything_but_the_combination() -> None:
    # Frozen: another hash would let the bundled model's training leak into its test.
    shown = [each for each in combinations() if each.object == "star" and each.scene == "hills" and is_held_out(each)]
    assert [caption(each) for each in shown] == [
        "a red star moves from right to left over green hills",
        "a yellow star flies in circles over green hills",
        "a blue star flies in circles over green hills",
        "a purple star flies in circles over green hills",
    ]
