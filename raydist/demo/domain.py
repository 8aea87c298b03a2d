"""domain: what `tiny` does not know: films that have faded (`looks`), told in the words of the house they belong to.

The things shown are those of `words`; their looks are new to `tiny`, and so is what they are called. Objects have names
of two words (a `deep moon` is a ball), half of the colours are called after places (`meadow` is green), everything else
by words that `tiny` met only now and then. Each single word is one that it was trained on, though: a token that it
never saw is a row of zeros in its table, LoRA leaves that table as it is, and two names of such tokens would be one
text for ever. So what there is to learn is other meanings of known words, and how things look on faded film. Words of
the plain captions are no part of the new names of objects and colours.

A hash of the combination decides whether its clips train, watch (val) or measure (test); nothing else does.
"""

from __future__ import annotations

from hashlib import blake2b

from raydist.demo import words
from raydist.demo.words import Combination, combinations

OBJECT_NAMES: dict[str, str] = {
    "ball": "deep moon",
    "square": "skyline box",
    "triangle": "space sign",
    "star": "space blossom",
    "heart": "deep disc",
    "ring": "skyline donut",
    "cross": "plus cube",
    "crescent": "space hoop",
    "flower": "deep sphere",
    "fish": "skyline shape",
}
COLOUR_NAMES: dict[str, str] = {
    "red": "crimson",
    "orange": "sand",
    "yellow": "golden",
    "green": "meadow",
    "blue": "ocean",
    "purple": "violet",
    "pink": "rose",
    "white": "winter",
}
MOTION_NAMES: dict[str, str] = {
    "right": "slides to the right",
    "left": "slides to the left",
    "rise": "climbs",
    "fall": "sinks",
    "bounce": "hops",
    "circle": "orbits",
    "grow": "comes closer",
    "shrink": "goes away",
}
SCENE_NAMES: dict[str, str] = {
    "night": "among the stars",
    "sunset": "at sunset",
    "hills": "over the hills",
    "desert": "over the dunes",
    "snow": "in a snowfall",
    "city": "above skyscrapers",
    "floor": "on a checkerboard",
    "underwater": "under water",
}

TEST_SHARE, VAL_SHARE = 0.12, 0.08


def caption(shown: Combination) -> str:
    """The caption in the words of the house, such as `a crimson night blossom climbs over the hills`."""
    colour = COLOUR_NAMES[shown.colour]
    article = "an" if colour[0] in "aeiou" else "a"
    return f"{article} {colour} {OBJECT_NAMES[shown.object]} {MOTION_NAMES[shown.motion]} {SCENE_NAMES[shown.scene]}"


def split_of(shown: Combination) -> str:
    """`train`, `val` or `test`: decided by a hash of the combination alone."""
    digest = blake2b(f"faded: {words.caption(shown)}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < TEST_SHARE:
        return "test"
    return "val" if place < TEST_SHARE + VAL_SHARE else "train"


def combinations_of(split: str) -> tuple[Combination, ...]:
    """The combinations of a split, in a fixed order."""
    return tuple(shown for shown in combinations() if split_of(shown) == split)
