"""clip: one demo clip, from a combination and a seed to frames and to an H.264 file.

Promises: the same combination and seed draw the same pictures; another seed draws other ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydist.demo import looks, motions, objects, scenes
from raydist.demo.paint import HEIGHT_PX, WIDTH_PX
from raydist.demo.words import COLOURS, MOTIONS, OBJECTS, SCENES, Combination

FPS = 12
MIN_FRAMES, MAX_FRAMES = 24, 32
"""At this rate; at another one clips last as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A clip that is ready to be drawn, frame by frame and in any order."""

    frames: int
    scene: scenes.Scene
    sprite: Image.Image
    path: motions.Path
    look: looks.Look
    fps: int
    _sized: dict[int, Image.Image] = field(default_factory=dict)

    def draw(self, number: int) -> Image.Image:
        """Frame `number` as an RGB picture of `WIDTH_PX` x `HEIGHT_PX`."""
        frame = self.scene.frame(number / self.fps)
        place = self.path(number / (self.frames - 1))
        side = max(8, round(2 * place.radius * HEIGHT_PX / objects.REACH))
        picture = self._sized.get(side)
        if picture is None:
            picture = self.sprite.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
            self._sized[side] = picture
        left = round(place.x * WIDTH_PX - side / 2)
        top = round(place.y * HEIGHT_PX - side / 2)
        frame.paste(picture, (left, top), picture)
        return self.look(frame, number)


def prepare(shown: Combination, seed: int, *, faded: bool = False, fps: int = FPS) -> Drawing:
    """Decide everything about a clip: length, path, background, tilt.

    Args:
        faded: as film that has faded, see `looks`.
    """
    places = (
        OBJECTS.index(shown.object),
        list(COLOURS).index(shown.colour),
        list(MOTIONS).index(shown.motion),
        list(SCENES).index(shown.scene),
    )
    rng = np.random.default_rng((seed, *places))
    tint = rng.uniform(-8, 8, 3)
    red, green, blue = (
        int(np.clip(value + change, 0, 255)) for value, change in zip(COLOURS[shown.colour], tint, strict=True)
    )
    sprite = objects.sprite(shown.object, (red, green, blue), shown.scene in scenes.DARK, rng.uniform(-12, 12))
    if shown.object == "fish" and shown.motion == "left":
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    fewest, most = (frames * fps // FPS for frames in (MIN_FRAMES, MAX_FRAMES))
    return Drawing(
        frames=int(rng.integers(fewest, most + 1)),
        scene=scenes.scene(shown.scene, rng),
        sprite=sprite,
        path=motions.path(shown.motion, rng),
        look=looks.faded(rng) if faded else looks.plain,
        fps=fps,
    )


def render(shown: Combination, seed: int) -> NDArray[np.uint8]:
    """All frames of a clip, [T, H, W, 3] RGB."""
    drawing = prepare(shown, seed)
    return np.stack([np.asarray(drawing.draw(number)) for number in range(drawing.frames)])


def write(shown: Combination, seed: int, file: Path, *, faded: bool = False, fps: int = FPS) -> int:
    """Write a clip as H.264 in MP4 and return its number of frames; `faded` and `fps` as for `prepare`."""
    drawing = prepare(shown, seed, faded=faded, fps=fps)
    encode((drawing.draw(number) for number in range(drawing.frames)), file, drawing.fps)
    return drawing.frames


def encode(frames: Iterable[Image.Image], file: Path | BinaryIO, fps: int = FPS) -> None:
    """Encode RGB pictures of one size."""
    with av.open(str(file) if isinstance(file, Path) else file, "w", format="mp4") as container:
        # Without the macroblock tree: it reads memory that libx264 never wrote, and the same pictures give other bytes
        # from time to time.
        options = {"preset": "veryfast", "crf": "23", "threads": "1", "bf": "0", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for frame in _video_frames(frames):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _video_frames(frames: Iterable[Image.Image]) -> Iterator[av.VideoFrame]:
    for number, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
        frame.pts = number
        yield frame
