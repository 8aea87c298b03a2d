"""films: an archive with a film, copies of it in several shapes, and films that are no copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from archives import configure, encode, made, rows
from numpy.typing import NDArray
from PIL import Image

from raydist import dedup, scan
from raydist.config import Config
from raydist.records import Report
from raydist.store import read

RATE = 10
CLIP_S = 10
_WIDTH, _HEIGHT = 96, 64
CHANGES = (f"scan.clip_seconds={CLIP_S}", "scan.min_clip_seconds=2", "dedup.threshold=0.9")
POOR = {"crf": "36", "preset": "veryfast"}
LATE_S = 2.7
"""So much of the film lacks in `late.mp4`: none of its clips has the borders of one of the film's."""


def film(seed: int, seconds: int = 40) -> list[NDArray[np.uint8]]:
    """Frames of a film: soft pictures that drift, cut every second or two; of another seed another one."""
    random = np.random.default_rng(seed)
    frames: list[NDArray[np.uint8]] = []
    while len(frames) < seconds * RATE:
        coarse = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((_WIDTH + 40, _HEIGHT + 20), Image.Resampling.BICUBIC)
        for step in range(int(random.integers(9, 24))):
            frames.append(np.asarray(picture.crop((step, step // 2, step + _WIDTH, step // 2 + _HEIGHT))))
    return frames[: seconds * RATE]


def shoot(folder: Path, name: str, frames: Sequence[Any], **options: Any) -> Path:
    """Write a video file."""
    folder.mkdir(parents=True, exist_ok=True)
    return encode(folder / name, drawn=frames, rate=RATE, size=(_WIDTH, _HEIGHT), **options)


def with_copies(folder: Path) -> Path:
    """`film.mp4`, `poor.mp4` (all of it, encoded badly), `late.mp4` (all but its start), and two other films."""
    frames = film(5)
    shoot(folder, "film.mp4", frames)
    shoot(folder, "poor.mp4", frames, options=POOR)
    shoot(folder, "late.mp4", frames[round(LATE_S * RATE) :], options=POOR)
    shoot(folder, "other.mp4", film(6))
    shoot(folder, "third.mp4", film(7, 20))
    return folder


def settings_for(archive: Path, model: Path | str = "", *changes: str) -> Config:
    return configure(archive, model, *CHANGES, *changes)


def filled(archive: Path, folder: Path, model: Path) -> Path:
    """An archive of the folder's films, embedded."""
    scan.run(settings_for(archive), scan.Request(inputs=(str(folder),)))
    made(archive, model, *CHANGES)
    return archive


def deduped(archive: Path, *changes: str, model: Path | str = "", **request: Any) -> Report:
    return dedup.run(settings_for(archive, model, *changes), dedup.Request(**request))


def table(archive: Path, prefix: str, model_key: str | None = None) -> list[dict[str, Any]]:
    """Rows of a model's table, without what differs from run to run."""
    (only,) = [model_key] if model_key else read.model_keys(str(archive))
    found = [{name: value for name, value in row.items() if name != "at"} for row in rows(archive, prefix + only)]
    return sorted(
        found, key=lambda row: [str(row.get(name)) for name in ("a_id", "b_id", "clip_id", "a_video", "b_video")]
    )


def kept(archive: Path, model_key: str | None = None) -> dict[str, bool]:
    """Clip id -> whether it stays, of clips that have a pair that counts."""
    return {row["clip_id"]: row["keep"] for row in table(archive, "groups_", model_key)}
