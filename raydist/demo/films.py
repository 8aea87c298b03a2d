"""films: the demo's videos on disk, and the truth about them in a CSV file beside their folder.

Two folders. The first: combinations that `tiny` never saw, each once, so every caption is distinct. The second: faded
films in the words of `domain`, to train on, to watch training with and to measure it on, and some clips of the first
kind to train on beside them, so that what the model knew is kept. Files bear numbers, not words: nothing but their
pictures tells what they show. The same seed gives the same files; those that are there are kept.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from raydist.demo import CLIPS, clip, domain
from raydist.demo.words import Combination, caption, held_out_combinations, training_combinations
from raydist.errors import UsageError
from raydist.progress import bar

SEED = 7
DOMAIN_SEED = 19
PLAIN_SEEDS = 1_000_000
"""How far the seeds of plain films are from those of faded ones."""
DOMAIN_FPS = 8
"""Of all films in the second folder: there are many, and a model looks at 8 frames of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One demo video."""

    file: Path
    shown: Combination
    seed: int
    faded: bool = False
    """Of the domain: its look and its words."""
    split: str = ""
    """`train`, `val` or `test`; empty: as scan deals it."""

    @property
    def caption(self) -> str:
        """What it shows."""
        return domain.caption(self.shown) if self.faded else caption(self.shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many films of the domain."""

    train: int = 288
    plain: int = 672
    """To train on too: in the look and the words that `tiny` knows."""
    val: int = 60
    test: int = 240

    @property
    def every(self) -> int:
        """All of them."""
        return self.train + self.plain + self.val + self.test

    @classmethod
    def for_clips(cls, clips: int) -> Counts:
        """In proportion where the first folder has fewer than usual, but some of each."""
        share = min(1.0, clips / CLIPS)
        return cls(**{name: max(8, round(count * share)) for name, count in asdict(cls()).items()})


def choose(folder: Path, clips: int, seed: int = SEED) -> list[Film]:
    """So many films of different held-out combinations, in a random but fixed order.

    Raises:
        UsageError: if there are not so many combinations.
    """
    every = held_out_combinations()
    if not 1 <= clips <= len(every):
        raise UsageError(
            f"--clips {clips}: expected 1 to {len(every)}, the combinations that the tiny model never saw in training"
        )
    order = np.random.default_rng(seed).permutation(len(every))[:clips]
    return [
        Film(file=folder / f"{number:04}.mp4", shown=every[int(place)], seed=seed)
        for number, place in enumerate(order, start=1)
    ]


def choose_domain(folder: Path, counts: Counts = Counts(), seed: int = DOMAIN_SEED) -> list[Film]:
    """Films of the domain, each of another combination, and plain ones of combinations that both are trained on.

    Args:
        seed: of the choice and of the pictures; which combinations are in which split does not depend on it.
    """
    trained = domain.combinations_of("train")
    plain = sorted(set(trained) & set(training_combinations()))
    sources = (
        (trained, counts.train, True, "train"),
        (plain, counts.plain, False, "train"),
        (domain.combinations_of("val"), counts.val, True, "val"),
        (domain.combinations_of("test"), counts.test, True, "test"),
    )
    films: list[Film] = []
    for part, (every, count, faded, split) in enumerate(sources):
        order = np.random.default_rng((seed, part)).permutation(len(every))[:count]
        assert len(order) == count, f"{count} clips of {len(every)} combinations"
        for place in order.tolist():
            file = folder / f"{len(films) + 1:04}.mp4"
            # Plain ones by another seed: else a film and the same combination faded would be one film twice.
            own = seed if faded else seed + PLAIN_SEEDS
            films.append(Film(file=file, shown=every[place], seed=own, faded=faded, split=split))
    return films


def draw(films: Sequence[Film], processes: int | None = None) -> int:
    """Write the films that are not there yet and return how many those were.

    Args:
        processes: drawing processes; None: one a core.
    """
    folder = films[0].file.parent
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {film.file for film in films}
    for stray in folder.glob("[0-9][0-9][0-9][0-9].mp4"):
        if stray not in wanted:
            stray.unlink()
    missing = [film for film in films if not film.file.exists()]
    if not missing:
        return 0
    workers = min(len(missing), processes or os.cpu_count() or 1)
    # Spawned, because a forked child would inherit the threads of whoever calls.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool, bar("draw", len(missing)) as progress:
        for _ in pool.map(_draw_one, missing, chunksize=4):
            progress.advance()
    return len(missing)


def _draw_one(film: Film) -> None:
    # Renamed when whole: a run that was interrupted leaves no half film to be kept.
    unfinished = film.file.with_suffix(".part")
    clip.write(film.shown, film.seed, unfinished, faded=film.faded, fps=DOMAIN_FPS if film.split else clip.FPS)
    unfinished.replace(film.file)


def write_captions(films: Sequence[Film], file: Path) -> None:
    """Write what each film shows as CSV: path from there, caption, split (empty: not told) and the four things."""
    with file.open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines)
        rows.writerow(["path", "caption", "split", "object", "colour", "motion", "scene"])
        for film in films:
            shown = film.shown
            path = film.file.relative_to(file.parent).as_posix()
            rows.writerow([path, film.caption, film.split, shown.object, shown.colour, shown.motion, shown.scene])
