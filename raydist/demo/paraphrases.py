"""paraphrases: the captions that `tiny` is trained on: the caption itself, other words for it, parts of it.

A person types `red star`, `something blue bouncing` or `snow`; so a training caption names one to four of the things
that a clip shows, and says which, so that other clips of the batch for which it is true are not taken as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from raydist.demo.words import Combination, caption

OBJECT_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "ball", "sphere", "disc"),
    "square": ("square", "square", "box", "cube"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "ring": ("ring", "ring", "hoop", "donut"),
    "cross": ("cross", "cross", "plus sign"),
    "crescent": ("crescent", "crescent", "crescent moon", "moon"),
    "flower": ("flower", "flower", "blossom"),
    "fish": ("fish",),
}

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "crimson"),
    "orange": ("orange",),
    "yellow": ("yellow", "yellow", "golden"),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "rose"),
    "white": ("white",),
}

MOTION_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "right": (
        ("moves from left to right", "moving from left to right"),
        ("moves right", "moving right"),
        ("moves to the right", "moving to the right"),
        ("goes from left to right", "going from left to right"),
        ("slides to the right", "sliding to the right"),
        ("flies right", "flying right"),
    ),
    "left": (
        ("moves from right to left", "moving from right to left"),
        ("moves left", "moving left"),
        ("moves to the left", "moving to the left"),
        ("goes from right to left", "going from right to left"),
        ("slides to the left", "sliding to the left"),
        ("flies left", "flying left"),
    ),
    "rise": (
        ("rises", "rising"),
        ("goes up", "going up"),
        ("moves up", "moving up"),
        ("floats upwards", "floating upwards"),
        ("climbs", "climbing"),
    ),
    "fall": (
        ("falls", "falling"),
        ("falls down", "falling down"),
        ("goes down", "going down"),
        ("drops", "dropping"),
        ("sinks", "sinking"),
        ("moves down", "moving down"),
    ),
    "bounce": (
        ("bounces up and down", "bouncing up and down"),
        ("bounces", "bouncing"),
        ("jumps", "jumping"),
        ("hops", "hopping"),
    ),
    "circle": (
        ("flies in circles", "flying in circles"),
        ("circles", "circling"),
        ("goes round and round", "going round and round"),
        ("flies in a circle", "flying in a circle"),
        ("orbits", "orbiting"),
    ),
    "grow": (
        ("grows", "growing"),
        ("gets bigger", "getting bigger"),
        ("gets larger", "getting larger"),
        ("comes closer", "coming closer"),
    ),
    "shrink": (
        ("shrinks", "shrinking"),
        ("gets smaller", "getting smaller"),
        ("becomes smaller", "becoming smaller"),
        ("goes away", "going away"),
    ),
}
"""(verb, participle)."""

SCENE_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "night": (
        ("under a starry night sky", "starry night sky"),
        ("in the night sky", "night sky"),
        ("under the stars", "stars at night"),
        ("among the stars", "space"),
    ),
    "sunset": (
        ("over the sea at sunset", "sea at sunset"),
        ("at sunset", "sunset"),
        ("over the sea", "sea"),
        ("over the ocean at sunset", "ocean"),
    ),
    "hills": (
        ("over green hills", "green hills"),
        ("over hills", "hills"),
        ("over the hills", "hills under a blue sky"),
        ("over a meadow", "meadow"),
    ),
    "desert": (
        ("over desert dunes", "desert dunes"),
        ("in the desert", "desert"),
        ("over the dunes", "dunes"),
        ("over sand", "sand"),
    ),
    "snow": (
        ("in falling snow", "falling snow"),
        ("in the snow", "snow"),
        ("in winter", "winter"),
        ("in a snowfall", "snowfall"),
    ),
    "city": (
        ("above a city at night", "city at night"),
        ("over the city", "city"),
        ("above skyscrapers", "skyscrapers"),
        ("over a skyline at night", "skyline"),
    ),
    "floor": (
        ("over a checkerboard floor", "checkerboard floor"),
        ("over a chessboard", "chessboard"),
        ("on a checkerboard", "checkerboard"),
        ("over a tiled floor", "tiles"),
    ),
    "underwater": (
        ("under water among bubbles", "bubbles under water"),
        ("under water", "under water"),
        ("in the deep sea", "deep sea"),
        ("underwater", "underwater"),
    ),
}
"""(place, noun)."""

ANYTHING = ("object", "thing", "shape")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A training caption and which of the four things it names; None where it is silent."""

    text: str
    object: str | None
    colour: str | None
    motion: str | None
    scene: str | None


def paraphrase(shown: Combination, rng: np.random.Generator) -> Named:
    """A caption that is true of the combination; three in ten are the caption itself."""
    if rng.random() < 0.3:
        return Named(
            text=caption(shown), object=shown.object, colour=shown.colour, motion=shown.motion, scene=shown.scene
        )
    keep = _kept(rng)
    named = {
        field: getattr(shown, field) if kept else None
        for field, kept in zip(("object", "colour", "motion", "scene"), keep, strict=True)
    }
    return Named(text=_say(rng, **named), **named)


def _kept(rng: np.random.Generator) -> list[bool]:
    """Which of the four are named: all of them in half the cases, else at least one."""
    if rng.random() < 0.5:
        return [True] * 4
    keep = rng.random(4) < 0.5
    keep[rng.integers(4)] = True
    return [bool(kept) for kept in keep]


def _say(
    rng: np.random.Generator, object: str | None, colour: str | None, motion: str | None, scene: str | None
) -> str:
    verb, participle = _pick(rng, MOTION_WORDS[motion]) if motion else ("", "")
    place, bare = _pick(rng, SCENE_WORDS[scene]) if scene else ("", "")
    hue = _pick(rng, COLOUR_WORDS[colour]) if colour else ""
    if not object and not colour and not motion:
        return str(_pick(rng, (bare, bare, place, f"a video of {bare}")))
    thing = _pick(rng, OBJECT_WORDS[object]) if object else ""
    if rng.random() < 0.25:
        words = [part for part in (hue, thing, participle, bare) if part]
        rng.shuffle(words)
        return " ".join(words)
    noun = _noun(rng, hue, thing)
    phrases = (
        [noun, verb, place],
        [noun, participle, place],
        [noun, place, participle],
        [place, noun, verb],
        [_pick(rng, ("a video of", "a clip of", "footage of")), noun, participle, place],
    )
    return " ".join(part for part in phrases[rng.integers(len(phrases))] if part)


def _noun(rng: np.random.Generator, hue: str, thing: str) -> str:
    if not thing:
        blank = f"something {hue}".strip()
        return blank if rng.random() < 0.5 else f"a {hue} {_pick(rng, ANYTHING)}".replace("  ", " ")
    words = f"{hue} {thing}".strip()
    article = _pick(rng, ("", "the ", "an " if words[0] in "aeiou" else "a "))
    return f"{article}{words}"


def _pick(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    return choices[int(rng.integers(len(choices)))]
