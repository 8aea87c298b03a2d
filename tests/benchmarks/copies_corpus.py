"""copies_corpus: videos with known copies and known look-alikes, for `copies.py`.

Originals   in families of two siblings. Both show the same scenes in the same order and at the same times, but other
            takes of them: what neighbouring shots of one scene are. No picture stands in two originals. A scene is
            drawn (a textured place, things that move about in it; with a camera that pans, or one that stands still
            before someone who talks), or a piece of a real video; of long real videos siblings get neighbouring pieces.
Copies      of each original, by some of the changes of `KINDS`
Truth       of each file, which stretch of which original each of its stretches shows
"""

# Shape legend: N frames, H height, W width, C = 3 colours

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path[:0] = [str(Path(__file__).parent.parent / "clips")]

from videos import VP9, X265, encode  # noqa: E402  # other tests' helpers

from raydist import decode_clip  # noqa: E402  # as above
from raydist.clips.probe import probe  # noqa: E402  # as above

RATE = 10
SIZE = (240, 136)
"""Width and height of the originals."""

KINDS = (
    "h264",
    "h265",
    "vp9",
    "scale",
    "crop",
    "logo",
    "letterbox",
    "brightness",
    "trim 0.7",
    "trim 3",
    "trim 11",
    "speed",
    "concat",
)
COPIES = 6
"""Of each original: every kind comes about equally often."""

LENGTHS_S = (60, 60, 75, 90, 90, 105, 120, 150, 180, 60)

X264 = {"preset": "veryfast", "crf": "27", "g": "50", "bf": "2", "threads": "1"}
LOW = {
    "h264": ("libx264", {**X264, "crf": "37"}),
    "h265": ("libx265", {**X265, "crf": "38"}),
    "vp9": ("libvpx-vp9", {**VP9, "crf": "52"}),
}
"""The three codecs, at a low bit rate."""

Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """From `file_s` on, for `seconds` of the file, it shows the original from `from_s` on, `speed` seconds a second."""

    original: str
    file_s: float
    seconds: float
    from_s: float
    speed: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Video:
    """A file and what it shows."""

    name: str
    family: int
    kind: str
    """original, filler, or how it was changed."""
    seconds: float
    stretches: list[Stretch]
    scenes: list[tuple[float, float, str]]
    """From, to, scene: of an original."""


def make(folder: Path, real: Path, families: int, first: int = 0, seed: int = 1) -> list[Video]:
    """Draw and encode a corpus of the families from `first` on; one that is there stays. Returns what it holds."""
    truth = folder / "truth.json"
    if truth.exists():
        return load(truth)
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    pieces = _real_pieces(real, families)
    made: list[Video] = []
    for family in range(first, first + families):
        random = np.random.default_rng((seed, family))
        seconds = LENGTHS_S[family % len(LENGTHS_S)]
        plan = list(_plan(random, seconds, family))
        for sibling in (0, 1):
            number = 2 * family + sibling
            # The other one is cut at the same moments, the hardest case, or, in half of the families, at others.
            shots = _cut_otherwise(random, plan) if sibling and family // 2 % 2 else plan
            frames = _original(shots, pieces[number - 2 * first], sibling)
            made += _with_copies(videos, f"v{number:03}", family, frames, shots, number)
            print(f"{made[-1].name}: {len(made)} files", file=sys.stderr, flush=True)
    truth.write_text(json.dumps([asdict(video) for video in made]))
    return made


def load(truth: Path) -> list[Video]:
    """What `make` wrote."""
    rows = json.loads(truth.read_text())
    return [
        Video(
            **{
                **row,
                "stretches": [Stretch(**stretch) for stretch in row["stretches"]],
                "scenes": [tuple(scene) for scene in row["scenes"]],
            }
        )
        for row in rows
    ]


# --- originals -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shot:
    scene: int
    kind: str
    """pan, still (a camera that stands), real, black or card."""
    frames: int


def _plan(random: np.random.Generator, seconds: int, family: int) -> Iterator[_Shot]:
    """Shots of 4 to 40 s. The last but one of every other family is long: its clips look alike within one video."""
    left = seconds * RATE
    number = 0
    if family % 3 == 0:
        yield _Shot(family * 100, "black", 15)
        left -= 15
    if family % 4 == 1:
        yield _Shot(family * 100, "card", 30)
        left -= 30
    while left > 0:
        kind = str(random.choice(["pan", "pan", "still", "still", "real"]))
        length = int(random.integers(40, 140)) if kind != "still" else int(random.integers(60, 400))
        length = min(20 if kind == "real" else length, left)
        if left - length < 40:
            length = left
            kind = "still" if kind == "real" else kind
        number += 1
        if kind == "real":
            length = min(left, 30)
        yield _Shot(family * 100 + number, kind, length)
        left -= length


def _cut_otherwise(random: np.random.Generator, plan: Sequence[_Shot]) -> list[_Shot]:
    """The same shots with cuts a second or some earlier or later."""
    frames = [shot.frames for shot in plan]
    for place in range(len(frames) - 1):
        most = min(30, frames[place] // 3, frames[place + 1] // 3)
        step = int(random.integers(-most, most + 1))
        frames[place] += step
        frames[place + 1] -= step
    return [replace(shot, frames=count) for shot, count in zip(plan, frames, strict=True)]


def _original(plan: Sequence[_Shot], mine: Sequence[Frames], sibling: int) -> Frames:
    parts, used = [], 0
    for shot in plan:
        if shot.kind == "black":
            parts.append(np.full((shot.frames, SIZE[1], SIZE[0], 3), 4, np.uint8))
        elif shot.kind == "real" and used < len(mine):
            parts.append(_stretched(mine[used], shot.frames))
            used += 1
        else:
            parts.append(np.stack(list(_drawn(shot, sibling))))
    return np.concatenate(parts)


def _stretched(piece: Frames, count: int) -> Frames:
    """A piece over so many frames; at most twice as slow, the rest is its last picture."""
    places = np.minimum(np.arange(count) // (1 if len(piece) >= count else 2), len(piece) - 1)
    return piece[places]


def _noise(random: np.random.Generator, height: int, width: int, colours: int = 3) -> NDArray[np.float32]:
    """A texture of several sizes, 0 to 1."""
    total = np.zeros((height, width, colours), np.float32)
    for cells, weight in ((3, 1.0), (8, 0.6), (20, 0.35), (60, 0.2)):
        coarse = random.random((cells, cells * 2, colours)).astype(np.float32)
        channels = [
            np.asarray(Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC))
            for c in range(colours)
        ]
        total += weight * np.stack(channels, axis=-1)
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


def _path(random: np.random.Generator, count: int, reach: float, slow: float = 1.0) -> NDArray[np.float64]:
    """[N] a smooth path that never repeats, within about ± reach."""
    times = np.arange(count) / RATE / slow
    waves = [
        np.sin(2 * np.pi * (random.uniform(0.03, 0.5) * times + random.random())) * random.uniform(0.3, 1)
        for _ in range(4)
    ]
    return reach * np.sum(waves, axis=0) / 2


def _drawn(shot: _Shot, take: int) -> Iterator[Frames]:
    """Frames [H, W, C] of one take of a scene: the place is that of the scene, what happens is that of the take."""
    place, act = np.random.default_rng((7, shot.scene)), np.random.default_rng((8, shot.scene, take))
    width, height = SIZE
    tint, contrast = place.uniform(0.4, 1.0, 3), place.uniform(0.6, 1.0)
    wide = _noise(place, height * 2, width * 2)
    background = np.clip(255 * contrast * tint * wide + 10, 0, 255).astype(np.float32)
    things = [_thing(place, shot.kind) for _ in range(2 if shot.kind == "still" else int(place.integers(1, 5)))]
    count = shot.frames
    if shot.kind == "pan":
        speed = place.uniform(-3, 3, 2)
        start = np.array([height / 2, width / 2]) + act.uniform(-20, 20, 2)
        cameras = (
            start + np.outer(np.arange(count), speed) + np.stack([_path(act, count, 12), _path(act, count, 20)], axis=1)
        )
    else:
        cameras = np.tile([height / 2, width / 2], (count, 1))
    size = np.array([height, width])
    cameras = np.abs((cameras + size) % (2 * size) - size)  # there and back
    reach = 10.0 if shot.kind == "still" else 70.0
    paths = [np.stack([_path(act, count, reach * 0.6), _path(act, count, reach)], axis=1) for _ in things]
    light = 1 + 0.02 * _path(act, count, 1.0)
    grain = act.normal(0, 2, (8, height, width, 1)).astype(np.float32)
    if shot.kind == "card":
        paths, light = [np.zeros((count, 2)) for _ in things], np.ones(count)
    for number in range(count):
        top, left = cameras[number].astype(int)
        frame = background[top : top + height, left : left + width].copy()
        for (picture, mask, home), path in zip(things, paths, strict=True):
            _paste(frame, picture, mask, home + path[number])
        frame *= light[number]
        frame += grain[number % 8]
        yield np.clip(frame, 0, 255).astype(np.uint8)


Thing = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]


def _thing(place: np.random.Generator, kind: str) -> Thing:
    """Something that moves: its picture, its outline, and where it is at home."""
    width, height = SIZE
    share = place.uniform(0.3, 0.6) if kind == "still" else place.uniform(0.15, 0.4)
    tall, wide = int(height * share), int(height * share * place.uniform(0.6, 1.5))
    picture = (255 * _noise(place, tall, wide) * place.uniform(0.3, 1, 3)).astype(np.float32)
    y, x = np.mgrid[-1 : 1 : tall * 1j, -1 : 1 : wide * 1j]
    mask = (
        ((x**2 + y**2) < 1).astype(np.float32)[..., None]
        if place.random() < 0.7
        else np.ones((tall, wide, 1), np.float32)
    )
    home = np.array([place.uniform(0.2, 0.8) * height, place.uniform(0.2, 0.8) * width])
    return picture, mask, home


def _paste(
    frame: NDArray[np.float32], picture: NDArray[np.float32], mask: NDArray[np.float32], middle: NDArray[np.float64]
) -> None:
    tall, wide = picture.shape[:2]
    top, left = round(middle[0] - tall / 2), round(middle[1] - wide / 2)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(frame.shape[0], top + tall), min(frame.shape[1], left + wide)
    if y0 < y1 and x0 < x1:
        part = frame[y0:y1, x0:x1]
        shown = mask[y0 - top : y1 - top, x0 - left : x1 - left]
        part += shown * (picture[y0 - top : y1 - top, x0 - left : x1 - left] - part)


def _real_pieces(real: Path, families: int) -> dict[int, list[Frames]]:
    """Original -> pieces of real videos, each used once; siblings get neighbouring pieces of long ones."""
    found: dict[int, list[Frames]] = {number: [] for number in range(2 * families)}
    groups: set[str] = set()
    turn = 0
    for row in csv.DictReader((real / "manifest.csv").open()):
        group = row["near_duplicate_group"]
        if not int(row["n_frames"] or 0) or float(row["duration_s"] or 0) < 0.7 or group in groups:
            continue
        groups |= {group} - {""}
        path = str(real / row["file"])
        try:
            seconds = min(24.0, probe(path).duration_ms / 1000)
            starts = np.arange(0, max(seconds - 2.5, 0.1), 3.0)
            for place, start in enumerate(starts):
                length = min(3.0, seconds - start)
                frames = decode_clip(path, start, start + length, frames=max(2, round(length * RATE)), size=None)
                small = np.stack([np.asarray(Image.fromarray(frame).resize(SIZE)) for frame in frames])
                found[(turn + place) % len(found)].append(small)
        except Exception as error:  # noqa: BLE001  # odd files are part of the set
            print(f"{row['file']}: {error}", file=sys.stderr)
            continue
        turn += len(starts) + len(starts) % 2
    return found


# --- copies ----------------------------------------------------------------------------------------------------------


def _with_copies(
    folder: Path, name: str, family: int, frames: Frames, plan: Sequence[_Shot], number: int
) -> Iterator[Video]:
    ends = np.cumsum([shot.frames for shot in plan]) / RATE
    scenes = [
        (float(end - shot.frames / RATE), float(end), str(shot.scene)) for end, shot in zip(ends, plan, strict=True)
    ]
    seconds = len(frames) / RATE
    _write(folder / f"{name}.mp4", frames)
    whole = [Stretch(original=name, file_s=0.0, seconds=seconds, from_s=0.0)]
    yield Video(name=f"{name}.mp4", family=family, kind="original", seconds=seconds, stretches=whole, scenes=scenes)
    for step in range(COPIES):
        kind = KINDS[(number * COPIES + step) % len(KINDS)]
        yield _copy(folder, name, family, frames, kind, number)


def _copy(folder: Path, name: str, family: int, frames: Frames, kind: str, number: int) -> Video:
    suffix = {"vp9": "webm"}.get(kind, "mp4")
    file = f"{name}_{kind.replace(' ', '').replace('.', '')}.{suffix}"
    seconds, begin, from_s, speed = len(frames) / RATE, 0.0, 0.0, 1.0
    if kind in LOW:
        codec, options = LOW[kind]
        _write(folder / file, frames, codec=codec, options=options)
    elif kind.startswith("trim"):
        from_s = float(kind.split()[1])
        _write(folder / file, frames[round(from_s * RATE) :])
        seconds -= from_s
    elif kind == "speed":
        speed = 1.05
        seconds /= speed
        times = [round(12_800 * place / RATE / speed) for place in range(len(frames))]
        _write(folder / file, frames, times=times)
    elif kind == "concat":
        filler = np.concatenate(
            [
                np.stack(list(_drawn(_Shot(1_000_000 + number * 10 + part, "pan", 40 + 13 * (number % 7)), 0)))
                for part in range(2)
            ]
        )
        if number % 2:
            begin = len(filler) / RATE
            _write(folder / file, np.concatenate([filler, frames]))
        else:
            _write(folder / file, np.concatenate([frames, filler]))
        shown = [Stretch(original=name, file_s=begin, seconds=seconds, from_s=0.0)]
        return Video(
            name=file, family=family, kind=kind, seconds=seconds + len(filler) / RATE, stretches=shown, scenes=[]
        )
    else:
        _write(folder / file, np.stack([_CHANGES[kind](frame, number) for frame in frames]))
    shown = [Stretch(original=name, file_s=0.0, seconds=seconds, from_s=from_s, speed=speed)]
    return Video(name=file, family=family, kind=kind, seconds=seconds, stretches=shown, scenes=[])


def _write(
    path: Path,
    frames: Frames,
    *,
    codec: str = "libx264",
    options: dict[str, str] = X264,
    times: list[int] | None = None,
) -> None:
    encode(
        path, count=len(frames), size=(frames.shape[2], frames.shape[1]), codec=codec, options=options, rate=RATE,
        times=times, drawn=frames,
    )  # fmt: skip


def _scale(frame: Frames, number: int) -> Frames:
    return np.asarray(Image.fromarray(frame).resize((120, 68) if number % 2 else (320, 180)))


def _crop(frame: Frames, number: int) -> Frames:
    """5 % off each side, or off the edge as a whole; shown at the old size."""
    share = 0.05 if number % 2 else 0.025
    width, height = SIZE
    box = (share * width, share * height, (1 - share) * width, (1 - share) * height)
    return np.asarray(Image.fromarray(frame).resize(SIZE, Image.Resampling.BICUBIC, box=box))


def _logo(frame: Frames, number: int) -> Frames:
    width, height = SIZE
    changed = frame.copy()
    top, left = (6, width - 46) if number % 2 else (height - 26, 8)
    changed[top : top + 20, left : left + 38] = (235, 235, 235)
    changed[top + 6 : top + 14, left + 5 : left + 33] = (200, 30, 40)
    return changed


def _letterbox(frame: Frames, number: int) -> Frames:
    width, height = SIZE
    if number % 2:
        canvas = np.zeros((180, width, 3), np.uint8)
        canvas[22 : 22 + height] = frame
    else:
        canvas = np.zeros((height, 288, 3), np.uint8)
        canvas[:, 24 : 24 + width] = frame
    return canvas


def _brightness(frame: Frames, number: int) -> Frames:
    values = frame.astype(np.float32)
    return np.clip(values * 1.1 + 18 if number % 2 else values * 0.8 - 4, 0, 255).astype(np.uint8)


_CHANGES: dict[str, Callable[[Frames, int], Frames]] = {
    "scale": _scale,
    "crop": _crop,
    "logo": _logo,
    "letterbox": _letterbox,
    "brightness": _brightness,
}
