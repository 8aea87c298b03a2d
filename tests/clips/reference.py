"""reference: what clips must show, by decoding the whole file in the plainest way."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from videos import full_decode

from raydist.clips.picture import Converter
from raydist.clips.sampling import middle_ranks
from raydist.records import DecodedClip, Span

Frames = list[NDArray[np.uint8]]


def spans_of(duration_ms: int, count: int = 6) -> list[Span]:
    """The whole file, and some pieces of it, some of them of a frame or less."""
    dice = random.Random(duration_ms)
    spans = [Span(start_ms=0, end_ms=duration_ms)]
    for _ in range(count):
        start = dice.randrange(duration_ms)
        spans.append(Span(start_ms=start, end_ms=start + dice.choice([20, 300, 2000])))
    return spans


def expected(path: Path, spans: list[Span], times_ms: list[int] | None = None) -> list[Frames | None]:
    """What a full decode shows for each span; None where the span has no frame."""
    frames = full_decode(path)
    if times_ms is None:
        frames.sort(key=lambda frame: frame.pts)
        first, base = frames[0].pts, frames[0].time_base
        times_ms = [(frame.pts - first) * base.numerator * 1000 // base.denominator for frame in frames]
    convert = Converter(None, "viclip")
    shown: list[Frames | None] = []
    for span in spans:
        inside = [i for i, time in enumerate(times_ms) if span.start_ms <= time < span.end_ms]
        picked = [inside[rank] for rank in middle_ranks(len(inside), 8)] if inside else None
        shown.append(picked and [convert(frames[i]).pixels for i in picked])  # type: ignore[union-attr]
    return shown


def same(clip: DecodedClip, shown: Frames | None) -> bool:
    if shown is None:
        return clip.frames is None and clip.reason == "no_frames"
    return clip.frames is not None and np.array_equal(clip.frames, np.stack(shown))
