"""words: what a demo clip shows, its caption, and which combinations training never sees.

A clip is a combination: object x colour x motion x scene. Combinations in which the colour would drown in the scene are
left out. A hash of the combination decides whether it is held out, so the split does not depend on order or on how many
clips are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import product

OBJECTS = ("ball", "square", "triangle", "star", "heart", "ring", "cross", "crescent", "flower", "fish")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 30, 34),
    "orange": (255, 132, 10),
    "yellow": (255, 224, 40),
    "green": (40, 182, 60),
    "blue": (36, 92, 240),
    "purple": (140, 50, 190),
    "pink": (255, 130, 190),
    "white": (248, 248, 250),
}
"""Name -> sRGB."""

MOTIONS: dict[str, str] = {
    "right": "moves from left to right",
    "left": "moves from right to left",
    "rise": "rises",
    "fall": "falls",
    "bounce": "bounces up and down",
    "circle": "flies in circles",
    "grow": "grows",
    "shrink": "shrinks",
}
"""Name -> how the caption says it."""

SCENES: dict[str, str] = {
    "night": "under a starry night sky",
    "sunset": "over the sea at sunset",
    "hills": "over green hills",
    "desert": "over desert dunes",
    "snow": "in falling snow",
    "city": "above a city at night",
    "floor": "over a checkerboard floor",
    "underwater": "under water among bubbles",
}
"""Name -> how the caption says it."""

CLASHES = frozenset(
    {
        ("orange", "sunset"),
        ("pink", "sunset"),
        ("green", "hills"),
        ("yellow", "desert"),
        ("orange", "desert"),
        ("white", "snow"),
        ("blue", "underwater"),
    }
)
"""(colour, scene) that one can hardly tell apart."""

HELD_OUT_SHARE = 0.12


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Combination:
    """What one clip shows; each field is a name of the tables above."""

    object: str
    colour: str
    motion: str
    scene: str


def caption(shown: Combination) -> str:
    """The caption, such as `a red star rises over green hills`; one a combination, and no two are equal."""
    article = "an" if shown.colour[0] in "aeiou" else "a"
    return f"{article} {shown.colour} {shown.object} {MOTIONS[shown.motion]} {SCENES[shown.scene]}"


def is_held_out(shown: Combination) -> bool:
    """Whether training never sees this combination; decided by a hash of it alone."""
    digest = blake2b(caption(shown).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2**64


@lru_cache(maxsize=1)
def combinations() -> tuple[Combination, ...]:
    """Every combination that can be shown, in a fixed order."""
    return tuple(
        Combination(object=thing, colour=colour, motion=motion, scene=scene)
        for thing, colour, motion, scene in product(OBJECTS, COLOURS, MOTIONS, SCENES)
        if (colour, scene) not in CLASHES
    )


def training_combinations() -> tuple[Combination, ...]:
    """The combinations that `tiny` was trained on."""
    return tuple(shown for shown in combinations() if not is_held_out(shown))


def held_out_combinations() -> tuple[Combination, ...]:
    """The combinations that `tiny` never saw."""
    return tuple(shown for shown in combinations() if is_held_out(shown))
