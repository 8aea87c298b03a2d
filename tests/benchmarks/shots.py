"""shots: the benchmark's files, 30 seconds each, drawn like hand-held footage and encoded as people's files are.

Gives     one file a row, encoded once and kept in a folder
Promises  a file is there whole or not at all, so that a broken run does not leave a stump for the next one

A shot has what costs a decoder time: a texture with the spectrum of natural pictures and hard edges, seen by a camera
that drifts, turns and pauses between pixels, under moving shadows, things that move before it, and grain. Tuned until
x264 spends its bytes as in real files with 3 B-frames: 1.3 to 2 Mbit/s at 720p, about half of the frames no reference
and with about 18 % of the bytes (real ones: 17 to 36 %). Without a cut, so that a GOP of 250 is one; one row has cuts.
"""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "clips")]

from videos import encode  # noqa: E402  # the tests' own encoder

RATE = 25
SECONDS = 30
_THINGS = 5


@dataclass(frozen=True, slots=True)
class Shot:
    """One row of the benchmark: a file and what it is held against."""

    name: str
    codec: str
    size: tuple[int, int]
    exact_goal: float
    """Most CPU that exact sampling may take, as a part of torchcodec's with exact seeking."""
    fast_goal: float
    """The same for fast sampling and torchcodec's approximate seeking."""
    options: dict[str, str] = field(default_factory=dict)
    suffix: str = ".mp4"
    takes: int = 1
    """Of equal length, with a cut between two, where an encoder puts a key frame."""


def _x264(gop: int) -> dict[str, str]:
    # The encoder's own defaults, not FFmpeg's: up to 3 B-frames, which may be references, and 3 references.
    return {"preset": "medium", "crf": "23", "bf": "3", "b-pyramid": "normal", "refs": "3", "g": str(gop)}


SHOTS = (
    Shot("h264-720p-gop30", "libx264", (1280, 720), 0.65, 0.40, _x264(30)),
    Shot("h264-720p-gop250", "libx264", (1280, 720), 0.60, 0.25, _x264(250)),
    Shot("h264-1080p-gop30", "libx264", (1920, 1080), 0.65, 0.40, _x264(30)),
    Shot("h264-1080p-gop250", "libx264", (1920, 1080), 0.65, 0.25, _x264(250)),
    Shot("h264-720p-cuts", "libx264", (1280, 720), 0.60, 0.25, _x264(250), takes=7),
    # x265's defaults are open GOPs of at most 250 with 4 B-frames; FFmpeg's wrapper would set neither.
    Shot("hevc-720p", "libx265", (1280, 720), 0.60, 0.40, {"preset": "medium", "x265-params": "log-level=none"}),
    Shot(
        "vp9-720p",
        "libvpx-vp9",
        (1280, 720),
        0.95,
        0.40,
        {"crf": "33", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1", "threads": "2"},
        ".webm",
    ),
    Shot("av1-480p", "libsvtav1", (854, 480), 0.95, 0.65, {"preset": "8", "crf": "35"}),
    Shot("mpeg4-avi-480p", "mpeg4", (640, 480), 1.0, 1.0, {"b": "1500000", "g": "250"}, ".avi"),
)


def make(shot: Shot, folder: Path) -> Path:
    """The shot's file, encoded if the folder does not have it."""
    path = folder / (shot.name + shot.suffix)
    if not path.exists():
        unfinished = folder / f"unfinished-{path.name}"
        encode(
            unfinished,
            count=SECONDS * RATE,
            size=shot.size,
            codec=shot.codec,
            options=shot.options,
            rate=RATE,
            drawn=_takes(shot),
        )
        unfinished.rename(path)
    return path


def _takes(shot: Shot) -> Iterator[NDArray[np.uint8]]:
    edges = [take * SECONDS * RATE // shot.takes for take in range(shot.takes + 1)]
    for seed, (first, after) in enumerate(pairwise(edges)):
        yield from draw(after - first, *shot.size, seed)


def draw(count: int, width: int, height: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Frames [H, W, C] of one shot."""
    random = np.random.default_rng(seed)
    scene = Image.fromarray(_texture(random, height * 3 // 2, width * 3 // 2))
    shadows = _shadows(random, height * 3 // 2, width * 3 // 2)
    things = [_Thing.of(random, width, height) for _ in range(_THINGS)]
    grain = _grain(random, height * 5 // 4, width * 5 // 4)
    for number in range(count):
        frame = _seen(scene, number / RATE, width, height)
        for thing in things:
            thing.paste(frame, number / RATE)
        frame = ImageChops.multiply(frame, _fallen(shadows, number / RATE, width, height))
        left, top = (int(at) for at in random.integers(0, (width // 4, height // 4)))
        grained = ImageChops.add(frame, grain.crop((left, top, left + width, top + height)), offset=-_GREY)
        yield np.asarray(grained)


_GREY = 8
"""What grain is added to, so that it fits into unsigned bytes."""


def _texture(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """[H, W, C]: amplitudes fall as 1 / f, as in natural pictures, with hard edges where one layer crosses zero."""
    light = _pink(random, height, width, 1.5)
    edges = 35 * np.sign(_pink(random, height, width, 1.6))
    tints = [_pink(random, height, width, 1.7) for _ in range(3)]
    layers = [120 + 30 * light + edges * (1 + 0.4 * tint) + 18 * tint for tint in tints]
    return np.clip(np.stack(layers, axis=-1), 0, 255).astype(np.uint8)


def _pink(random: np.random.Generator, height: int, width: int, slope: float) -> NDArray[np.float64]:
    """[H, W] noise of unit variance whose amplitude falls as 1 / f ** slope."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    noise = np.fft.rfft2(random.standard_normal((height, width))) / frequency**slope
    plane: NDArray[np.float64] = np.fft.irfft2(noise, (height, width))
    return (plane - plane.mean()) / plane.std()


def _grain(random: np.random.Generator, height: int, width: int) -> Image.Image:
    grey = np.clip(np.rint(_GREY + 0.8 * random.standard_normal((height, width))), 0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))


def _shadows(random: np.random.Generator, height: int, width: int) -> Image.Image:
    grey = 255 - 30 * (1 + np.clip(_pink(random, height, width, 1.5), -1, 1))
    return Image.fromarray(np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2))


def _fallen(shadows: Image.Image, time_s: float, width: int, height: int) -> Image.Image:
    """Shadows as of leaves: they move otherwise than what they fall on, so no motion vector is right for both."""
    across = width / 4 * (1 + 0.8 * math.sin(0.5 * time_s)) + 4 * math.sin(5 * time_s)
    down = height / 4 * (1 + 0.8 * math.cos(0.4 * time_s)) + 4 * math.sin(4 * time_s)
    return shadows.transform(
        (width, height), Image.Transform.AFFINE, (1, 0, across, 0, 1, down), Image.Resampling.BILINEAR
    )


def _seen(scene: Image.Image, time_s: float, width: int, height: int) -> Image.Image:
    """What a hand-held camera sees: it drifts with pauses, sways and zooms, never by whole pixels."""
    drift = time_s + 0.9 * math.sin(time_s)  # nearly stands still every 6 seconds
    turn = 0.01 * math.sin(1.3 * time_s)
    zoom = 1 + 0.04 * math.sin(0.35 * time_s)
    across = width / 4 * (1 + 0.7 * math.sin(0.16 * drift)) + 1.5 * math.sin(7.1 * time_s)
    down = height / 4 * (1 + 0.6 * math.cos(0.12 * drift)) + 1.5 * math.sin(8.3 * time_s)
    cosine, sine = zoom * math.cos(turn), zoom * math.sin(turn)
    place = (cosine, -sine, across, sine, cosine, down)
    return scene.transform((width, height), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)


@dataclass(frozen=True, slots=True)
class _Thing:
    """A textured blot with a soft rim that swings through the picture."""

    picture: Image.Image
    rim: Image.Image
    speed: tuple[float, float]
    start: tuple[float, float]
    room: tuple[int, int]

    @classmethod
    def of(cls, random: np.random.Generator, width: int, height: int) -> _Thing:
        side = int(height * random.uniform(0.15, 0.4))
        rim = Image.new("L", (side, side))
        ImageDraw.Draw(rim).ellipse((side // 8, side // 8, side * 7 // 8, side * 7 // 8), fill=255)
        across, down = (float(speed) for speed in random.uniform(0.2, 0.9, 2))
        left, top = (float(start) for start in random.uniform(0, 6, 2))
        return cls(
            Image.fromarray(_texture(random, side, side)),
            rim.filter(ImageFilter.GaussianBlur(side / 40)),
            (across, down),
            (left, top),
            (width - side, height - side),
        )

    def paste(self, frame: Image.Image, time_s: float) -> None:
        left, top = (
            round(room * (0.5 + 0.5 * math.sin(start + speed * time_s)))
            for room, start, speed in zip(self.room, self.start, self.speed, strict=True)
        )
        frame.paste(self.picture, (left, top), self.rim)
