"""films: the demo's videos on disk, and the truth about them in captions.csv beside their folder.

Only combinations that `tiny` never saw, each once, so every caption is distinct. Files bear numbers, not words: nothing
but their pictures tells what they show. The same seed gives the same files; those that are there are kept.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from raydist.demo import clip
from raydist.demo.words import Combination, caption, held_out_combinations
from raydist.errors import UsageError
from raydist.progress import bar

SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One demo video."""

    file: Path
    shown: Combination
    seed: int

    @property
    def caption(self) -> str:
        """What it shows."""
        return caption(self.shown)


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
    clip.write(film.shown, film.seed, unfinished)
    unfinished.replace(film.file)


def write_captions(films: Sequence[Film], file: Path) -> None:
    """Write what each film shows as CSV: path, caption, object, colour, motion, scene."""
    with file.open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines)
        rows.writerow(["path", "caption", "object", "colour", "motion", "scene"])
        for film in films:
            shown = film.shown
            rows.writerow([film.file.name, film.caption, shown.object, shown.colour, shown.motion, shown.scene])
