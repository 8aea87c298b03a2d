"""videos: small real videos for tests, encoded on the spot; every frame of one differs from every other.

`encode` draws and encodes, `join` puts encodes behind each other without encoding again (long files cheaply),
`rotate` marks an mp4 as shot on its side, `full_decode` is the plain reading of a whole file to compare with.
"""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from numpy.typing import NDArray

TICK = Fraction(1, 12_800)

# Many references between frames, B-frames among them, and as few key frames as people's files have.
X264 = {"preset": "veryfast", "crf": "28", "bf": "3", "g": "60", "threads": "1"}
X265 = {
    "preset": "ultrafast",
    "crf": "32",
    "x265-params": "bframes=3:keyint=40:min-keyint=40:log-level=none:pools=none",
}
VP9 = {"cpu-used": "8", "deadline": "realtime", "g": "30", "crf": "45", "b": "0", "lag-in-frames": "8", "threads": "1"}


def draw(count: int, width: int, height: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Frames [H, W, C]: a textured background that drifts, a square that moves, and the frame's number in bars."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 216, (height // 8 + 2, width // 8 + 2, 3))
    background = np.kron(coarse, np.ones((8, 8, 1), dtype=np.int64)).astype(np.uint8)
    step_y, step_x = (int(step) for step in random.integers(1, 4, 2))
    side = max(4, height // 4)
    for number in range(count):
        frame = np.roll(background, (number // 3, number // 2), (0, 1))[:height, :width].copy()
        top, left = number * step_y % (height - side), number * step_x % (width - side)
        frame[top : top + side, left : left + side] = random.integers(0, 256, 3)
        for bit in range(12):
            frame[:4, bit * 4 : bit * 4 + 4] = 255 * (number >> bit & 1)
        yield frame


def encode(
    path: Path,
    *,
    count: int = 100,
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    options: Mapping[str, str] = X264,
    rate: int = 25,
    times: Sequence[int] | None = None,
    seed: int = 0,
    drawn: Iterable[NDArray[np.uint8]] | None = None,
) -> Path:
    """Draw `count` frames of (width, height) and encode them.

    Args:
        times: of each frame in ticks of 1/12800 s; None: `rate` frames a second.
        drawn: frames [H, W, C] in the place of those that `draw` gives.
    """
    with usual_priority(), av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options))
        stream.width, stream.height = size
        stream.pix_fmt = {"gif": "rgb8", "apng": "rgb24", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if times is not None:
            stream.codec_context.time_base = TICK
        for number, picture in enumerate(draw(count, *size, seed) if drawn is None else drawn):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@contextmanager
def usual_priority() -> Iterator[None]:
    """SVT-AV1 gives the thread that starts it real-time priority where it may, and leaves it so.

    All that the process starts afterwards would have it too, and starve the machine.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def join(paths: Sequence[Path], out: Path) -> Path:
    """Put mp4 encodes of one codec, size and 25 frames a second behind each other, packet by packet."""
    with av.open(str(out), "w") as target:
        stream = None
        offset = 0
        for path in paths:
            with av.open(str(path)) as source:
                given = source.streams.video[0]
                if stream is None:
                    stream = target.add_stream_from_template(given)
                end = 0
                for packet in source.demux(given):
                    if packet.dts is None or packet.pts is None:
                        continue
                    assert packet.time_base == TICK, "join takes what encode wrote as mp4"
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = stream
                    target.mux(packet)
                offset += end
    return out


def rotate(path: Path, out: Path, matrix: tuple[float, float, float, float] = (0, 1, -1, 0)) -> Path:
    """The same mp4 with a display matrix: (x, y) is shown at (a x + c y, b x + d y). The default turns clockwise."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(number * 65_536) for number in matrix)
    turned = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    out.write_bytes(bytes(data))
    return out


def full_decode(path: Path | str) -> list[VideoFrame]:
    """Every frame of the first video stream in order of output: one thread, from the start, errors passed over."""
    frames: list[VideoFrame] = []
    with open(path, "rb") as file, av.open(file) as container:
        stream = next(s for s in container.streams.video if not s.disposition & 1024)
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        for packet in container.demux(stream):
            try:
                frames += stream.codec_context.decode(packet if packet.size else None)
            except FFmpegError:
                continue
        for frame in frames:
            frame.time_base = stream.time_base  # some decoders leave it out
    return frames
