"""bench pictures: CPU of one decoded frame on its way to a model's size, and what faster ways would change.

Answers: what do colours, resize and hash cost a frame, and is there a faster way worth another embedding?

    python tests/benchmarks/pictures.py --repeat 15

`ours` is what a clip takes, bit for bit the model's own resize, hash included; the steps are its parts. The other ways
give other values: `near colours` has swscale's fast path (no interpolation of colours) before our resize, the rest let
swscale scale straight to the size. The hash is left out there: they have no full picture for it.
Their drift is 1 - cos between embeddings of clips by the bundled `tiny` model. One JSON line a way; all in one process
and one thread, in turn.
"""

# Shape legend: T frames, H height, W width, C = 3 colours

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "clips")]

from shots import draw  # noqa: E402
from videos import X264, encode, full_decode  # noqa: E402  # the tests' own encoder

import raydist  # noqa: E402
from raydist.clips.picture import Converter  # noqa: E402
from raydist.clips.resize import planes_of, resize_planes  # noqa: E402
from raydist.clips.signature import planes_hash  # noqa: E402

CLIPS, FRAMES = 8, 8
SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080)}
FULL = Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
EXACT = Interpolation.BILINEAR | FULL

Way = Callable[[VideoFrame, int], NDArray[np.uint8]]


def main() -> None:
    """Measure; a JSON line for each size and way."""
    options = argparse.ArgumentParser()
    options.add_argument("--repeat", type=int, default=15)
    options.add_argument("--size", type=int, default=224, help="edge of the model's frames")
    given = options.parse_args()
    for name, (width, height) in SIZES.items():
        clips = [_frames(width, height, seed) for seed in range(CLIPS)]
        costs = _costs(clips[0], given.size, given.repeat)
        for way, cpu_ms in costs.items():
            drift = _drift(clips, WAYS[way]) if way in WAYS else None
            figures = {"bench": "pictures", "frame": name, "size": given.size, "way": way, "cpu_ms": round(cpu_ms, 3)}
            if drift is not None:
                figures |= {"drift_mean": round(drift[0], 6), "drift_max": round(drift[1], 6)}
            print(json.dumps(figures | {"machine": platform.machine(), "python": platform.python_version()}))


def _frames(width: int, height: int, seed: int) -> list[VideoFrame]:
    with tempfile.TemporaryDirectory() as folder:
        path = encode(
            Path(folder) / "clip.mp4", size=(width, height), options=X264, drawn=draw(FRAMES, width, height, seed)
        )
        return full_decode(path)


def _costs(frames: list[VideoFrame], size: int, repeat: int) -> dict[str, float]:
    """Median CPU milliseconds a frame of each step and way, all in turn."""
    kept = VideoReformatter(), VideoReformatter()
    rgb_HWC = kept[0].reformat(frames[0], format="rgb24", interpolation=EXACT, threads=1).to_ndarray()
    red, green, blue = planes_of(rgb_HWC)
    planes = np.ascontiguousarray(red), np.ascontiguousarray(green), np.ascontiguousarray(blue)
    whole = {rule: Converter(size, rule) for rule in ("viclip", "clip")}
    tasks: dict[str, Callable[[VideoFrame], object]] = {
        "ours, viclip": whole["viclip"],
        "ours, clip": whole["clip"],
        "step: colours to planes": lambda frame: kept[1].reformat(frame, format="gbrp", interpolation=EXACT, threads=1),
        "step: colours to triples": lambda frame: kept[0].reformat(
            frame, format="rgb24", interpolation=EXACT, threads=1
        ),
        "step: resize, viclip": lambda _: resize_planes(planes, size, "viclip"),
        "step: resize, clip": lambda _: resize_planes(planes, size, "clip"),
        "step: hash": lambda _: planes_hash(planes),
    }
    tasks |= {name: lambda frame, way=way: way(frame, size) for name, way in WAYS.items()}
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeat + 1):
        for name, task in tasks.items():
            started = time.process_time()
            for frame in frames:
                task(frame)
            if turn:  # the first one fills caches
                taken[name].append(1000 * (time.process_time() - started) / len(frames))
    return {name: median(costs) for name, costs in taken.items()}


def _straight(flags: Interpolation) -> Way:
    scaler = VideoReformatter()

    def way(frame: VideoFrame, size: int) -> NDArray[np.uint8]:
        small = scaler.reformat(frame, size, size, format="rgb24", interpolation=flags, threads=1)
        return np.asarray(small.to_ndarray())

    return way


def _near_colours() -> Way:
    scaler = VideoReformatter()

    def way(frame: VideoFrame, size: int) -> NDArray[np.uint8]:
        rgb = scaler.reformat(frame, format="gbrp", interpolation=Interpolation.BILINEAR, threads=1)
        green, blue, red = (
            np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[:, : plane.width] for plane in rgb.planes
        )
        return resize_planes((red, green, blue), size, "viclip")

    return way


WAYS: dict[str, Way] = {
    "near colours": _near_colours(),
    "straight, fast bilinear": _straight(Interpolation.FAST_BILINEAR),
    "straight, bilinear": _straight(Interpolation.BILINEAR),
    "straight, area": _straight(Interpolation.AREA),
    "straight, bicubic, full chroma": _straight(Interpolation.BICUBIC | FULL),
    "straight, point": _straight(Interpolation.POINT),
}


def _drift(clips: list[list[VideoFrame]], way: Way) -> tuple[float, float]:
    """1 - cos against our frames, mean and max over clips."""
    encoder = raydist.load_encoder("tiny", device="cpu")
    size = encoder.info.size_px
    exact = Converter(size, encoder.info.resize)
    ours = np.stack([np.stack([exact(frame).pixels for frame in clip]) for clip in clips])  # type: ignore[union-attr]
    theirs = np.stack([np.stack([way(frame, size) for frame in clip]) for clip in clips])
    cosines = (encoder.encode_frames(ours) * encoder.encode_frames(theirs)).sum(axis=1)
    return float(1 - cosines.mean()), float(1 - cosines.min())


if __name__ == "__main__":
    main()
