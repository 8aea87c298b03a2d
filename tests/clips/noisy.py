"""noisy: large mp4s at a chosen bit rate, cheaply: short encodes of noise, put behind each other as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

SIZES = {2: (256, 144), 5: (320, 240), 12: (480, 360)}
"""Mbit/s -> a picture size at which noise gives that rate without filler."""
_RATE, _PART_S, _SOUND_HZ = 25, 6, 48_000


@dataclass(frozen=True)
class Need:
    """What a span cannot do without."""

    span_bytes: int
    """Of the packets of the video stream that are shown in it."""
    index_bytes: int


def noisy(folder: Path, mbit: int, megabytes: int, *, moov_first: bool, sound: bool = False) -> Path:
    """An H.264 mp4 of at least so many MB, a key frame every 2 s, its index at the front or at the end."""
    parts = [folder / f"part-{mbit}-{sound}-{seed}.mp4" for seed in range(2)]
    for seed, part in enumerate(parts):
        if not part.exists():
            _part(part, mbit, seed, sound)
    turns = megabytes * 1_000_000 // sum(part.stat().st_size for part in parts) + 1
    out = folder / f"{mbit}-{'front' if moov_first else 'end'}-{sound}.mp4"
    return _joined(parts * turns, out, {"movflags": "+faststart"} if moov_first else {})


def need(path: Path, start_ms: int, end_ms: int) -> Need:
    """What a span of a file needs at least."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        entries = list(stream.index_entries)
        base = float(stream.time_base or 0)
        first = entries[0].timestamp
        inside = [e.size for e in entries if start_ms <= (e.timestamp - first) * base * 1000 < end_ms]
    return Need(sum(inside), _box(path, b"moov"))


def _box(path: Path, name: bytes) -> int:
    with path.open("rb") as file:
        while head := file.read(16):
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:], "big") if size == 1 else size
            if head[4:8] == name:
                return size
            file.seek(size - len(head), 1)
    raise ValueError(f"{path} has no box {name!r}")


def _part(path: Path, mbit: int, seed: int, sound: bool) -> None:
    random = np.random.default_rng(seed)
    width, height = SIZES[mbit]
    ground = random.integers(0, 256, (height + 64, width + 64), dtype=np.uint8) // 2
    grey = np.full((height // 2, width), 128, np.uint8)
    options = {"preset": "ultrafast", "g": str(2 * _RATE), "bf": "2", "threads": "1"}
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=_RATE, options=options)
        video.width, video.height, video.pix_fmt, video.bit_rate = width, height, "yuv420p", mbit * 1_000_000
        audio = container.add_stream("aac", rate=_SOUND_HZ) if sound else None
        for number in range(_PART_S * _RATE):
            top, left = number % 64, number * 3 % 64
            noise = random.integers(0, 64, (height, width), dtype=np.uint8)
            luma = ground[top : top + height, left : left + width] + noise
            container.mux(video.encode(VideoFrame.from_ndarray(np.concatenate([luma, grey]), format="yuv420p")))
            if audio is not None:
                count = _SOUND_HZ // _RATE
                wave = random.uniform(-0.5, 0.5, (1, count)).astype(np.float32)
                frame = AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = _SOUND_HZ, number * count
                container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))


def _joined(parts: Sequence[Path], out: Path, options: dict[str, str]) -> Path:
    with av.open(str(out), "w", options=options) as target:
        streams: list[av.stream.Stream] = []
        offset_s = 0.0
        for part in parts:
            with av.open(str(part)) as source:
                if not streams:
                    streams = [target.add_stream_from_template(stream) for stream in source.streams]
                for packet in source.demux():
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    ticks = round(offset_s / float(packet.time_base))
                    packet.pts += ticks
                    packet.dts += ticks
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)
            offset_s += _PART_S + 0.1  # a part's sound is a little longer than its pictures
    return out
