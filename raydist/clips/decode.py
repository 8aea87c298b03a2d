"""decode: the frames of clips, exactly those that decoding the whole file would give.

Reads     one file at a time, opened once for all its spans
Gives     a `DecodedClip` a span: 8-bit RGB at the model's size, times, hashes, and what had to be filled
Promises  every span gives exactly one result; only what concerns the whole file is raised, as a SourceError. In a
          damaged file the frames are those that their packets' times ask for, and missing ones are filled and counted;
          what a decoder paints over lost blocks may differ from a full decode

In this process. What may hang or crash belongs into a `clips.child`.
"""

# Shape legend: T frames, H height, W width

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from raydist.clips.container import Head, Video, open_video, read_head
from raydist.clips.exact import ExactReader, Result
from raydist.clips.fast import FastReader
from raydist.clips.picture import Converter, Picture
from raydist.clips.probe import probe
from raydist.clips.resize import RULES, bilinear
from raydist.clips.sampling import SAMPLINGS, Choose, Chosen, choose, choose_thirds
from raydist.clips.sequential import read_all
from raydist.clips.source import Source, file_fingerprint, open_source, refuse_change, shown
from raydist.clips.stretch import SequentialNeededError
from raydist.errors import ClipError, SourceError
from raydist.records import DecodedClip, Limits, Span

__all__ = ["decode_clip", "decode_spans", "probe"]

_TO_THE_END_MS = 1 << 50
T = TypeVar("T")


def decode_clip(
    path: str | os.PathLike[str],
    start_s: float = 0.0,
    end_s: float | None = None,
    frames: int = 8,
    size: int | None = 224,
    resize: str = "viclip",
    sampling: str = "exact",
) -> NDArray[np.uint8]:
    """Frames of one clip of a file.

    Args:
        path: a video file: a path, `s3://`, `gs://` or `http(s)://`.
        start_s: seconds after the file's first presented frame.
        end_s: the clip ends before this; None: the end of the file.
        frames: how many, from the middles of equal intervals.
        size: edge of the square frames in pixels, by `fit` the longest edge of frames that are no squares; None: as
            decoded, whatever shape the pixels have on a screen.
        resize: the model's rule, such as `viclip` or `clip`; see `clips.resize`.
        sampling: `exact`, `fast` for frames nearby that cost less, or `thirds` for three frames of an interval.

    Returns:
        uint8 [T, H, W, 3], RGB, upright.

    Raises:
        ClipError: if the span is empty or holds no frame.
        SourceError: if the file cannot be decoded.
        ValueError: if a count, size or rule is out of bounds.
    """
    location = os.fspath(path)
    bounds = (start_s, _TO_THE_END_MS / 1000 if end_s is None else end_s)
    start_ms, end_ms = (round(bound * 1000) if math.isfinite(bound) else -1 for bound in bounds)
    if start_ms < 0 or end_ms <= start_ms:
        raise ClipError(f"[{start_s}, {end_s}) of {shown(location)}: expected 0 <= start < end, in seconds")
    span = Span(start_ms=start_ms, end_ms=end_ms)
    (clip,) = decode_spans(
        location, [span], frames=frames, size_px=size, resize=resize, sampling=sampling, hashes=False
    )
    if clip.frames is not None:
        return clip.frames
    if clip.reason == "no_frames" and not clip.detail:
        length_s = probe(location).duration_ms / 1000
        raise ClipError(f"[{start_s}, {end_s}) of {shown(location)} holds no frame; the file is {length_s:g} s long")
    raise SourceError(clip.reason, clip.detail)


def decode_spans(
    location: str,
    spans: Sequence[Span],
    *,
    frames: int = 8,
    size_px: int | None = 224,
    resize: str = "viclip",
    sampling: str = "exact",
    hashes: bool = True,
    fingerprint: str = "",
    limits: Limits | None = None,
    allow: Callable[[int], None] = lambda clips: None,
    waits: Callable[[float], None] = lambda seconds: None,
) -> Iterator[DecodedClip]:
    """Frames of several spans of one file.

    Args:
        location: the file: a path or an address.
        spans: in the order in which results are wanted; rising starts are cheapest.
        frames: T of each clip.
        size_px: edge of the frames; None: as decoded.
        resize: see `clips.resize`.
        sampling: see `clips.sampling`.
        hashes: whether the frames' hashes are wanted.
        fingerprint: of the file that was scanned; empty: any.
        limits: what a picture may need.
        allow: told before work that serves this many clips at once, so that a watcher grants as many clips' time.
        waits: told how many seconds a server may take to answer, so that a watcher does not take it for a hang.

    Yields:
        One clip a span, in order.

    Raises:
        SourceError: what concerns the whole file, before the first clip or in the place of a later one.
        ValueError: if `frames`, the size or the rule is out of bounds.
    """
    if frames < 1 or resize not in RULES or sampling not in SAMPLINGS or (size_px is not None and size_px < 1):
        raise ValueError(
            f"frames={frames}, size={size_px}, resize={resize!r}, sampling={sampling!r}: expected at least 1, at least "
            f"1 or None, one of {', '.join(RULES)}, one of {', '.join(SAMPLINGS)}"
        )
    rule = choose_thirds if sampling == "thirds" else choose
    plan = _Plan(frames, Converter(size_px, resize, hashes=hashes), rule, sampling == "fast", allow)
    limits = limits or Limits()
    with open_scanned(location, fingerprint, limits, waits) as source:
        for clip, cpu_s, bytes_read in in_turn(source, limits, spans, plan.clips, _failed):
            yield replace(clip, cpu_s=cpu_s, bytes_read=bytes_read)


@contextmanager
def open_scanned(location: str, fingerprint: str, limits: Limits, waits: Callable[[float], None]) -> Iterator[Source]:
    """Open a file for reading, if it is still the one that was scanned.

    Raises:
        SourceError: as `open_source`; changed.
    """
    with open_source(location, limits.remote, waits) as source:
        if fingerprint and file_fingerprint(source) != fingerprint:
            raise SourceError(
                "changed", f"{shown(location)} is not the file that was scanned; run `raydist scan` again"
            )
        yield source


def in_turn(
    source: Source,
    limits: Limits,
    spans: Sequence[Span],
    serve: Callable[[Video, Sequence[Span]], Iterator[T]],
    failed: Callable[[Span, str, str], T],
) -> Iterator[tuple[T, float, int]]:
    """One result a span; a span that does not fit into memory costs itself, two of them cost the rest.

    Args:
        serve: gives the results of spans of an open file, in order.
        failed: makes a result of a span, a reason and a detail.

    Yields:
        The result, its CPU seconds, and the bytes that a server sent for it.
    """
    done = failures = 0
    started, read = time.process_time(), 0
    while done < len(spans):
        try:
            with open_video(source, limits, quick=True) as video:
                for result in serve(video, spans[done:]):
                    refuse_change(source)
                    now = time.process_time()
                    done += 1
                    fetched, read = source.meter.bytes_read - read, source.meter.bytes_read
                    yield result, now - started, fetched
                    started = time.process_time()
        except MemoryError:
            failures += 1
            detail = f"{shown(source.location)} needs more memory than the limit allows"
            given_up = spans[done:] if failures > 1 else spans[done : done + 1]
            done += len(given_up)
            for span in given_up:
                yield failed(span, "too_large", detail), 0.0, 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is wanted of every span."""

    frames: int
    convert: Converter
    choose: Choose
    is_fast: bool
    allow: Callable[[int], None]

    def reader(self, video: Video, head: Head) -> ExactReader | FastReader:
        return (
            FastReader(video, head, self.convert)
            if self.is_fast
            else ExactReader(video, head, self.convert, self.choose)
        )

    def clips(self, video: Video, spans: Sequence[Span]) -> Iterator[DecodedClip]:
        """One clip a span of an open file."""
        self.convert.watch(video)
        for span, result in zip(spans, _results(video, spans, self), strict=True):
            yield _clip(span, result, video.codec)


def _results(video: Video, spans: Sequence[Span], plan: _Plan) -> Iterator[Result | SourceError]:
    """By the exact plan as long as it holds, then the rest in one pass over the file."""
    head = read_head(video)
    done = 0
    if head.clock is not None:
        reader = plan.reader(video, head)
        try:
            for span in spans:
                yield _read(reader, span, plan.frames)
                done += 1
        except SequentialNeededError as need:
            if need.count_frames:
                head = Head(None, head.packet)
    if done < len(spans):
        plan.allow(len(spans) - done)
        yield from read_all(video, head, spans[done:], plan.frames, plan.convert, plan.choose)


def _read(reader: ExactReader | FastReader, span: Span, frames: int) -> Result | SourceError:
    try:
        return reader.read(span, frames)
    except SourceError as error:  # a picture that is too large: the other spans may have none
        return error


def _failed(span: Span, reason: str, detail: str) -> DecodedClip:
    return DecodedClip(span=span, frames=None, reason=reason, detail=detail)


def _clip(span: Span, result: Result | SourceError, codec: str) -> DecodedClip:
    if isinstance(result, SourceError):
        return _failed(span, result.reason, result.detail)
    return _assemble(span, *result, codec)


def _assemble(span: Span, chosen: Chosen, pictures: dict[int, Picture], codec: str) -> DecodedClip:
    """Fill what is missing: the last good frame again, at the head the first good one."""
    if not pictures:
        why = f"none of its frames ({codec}) decodes" if chosen.keys else ""
        return DecodedClip(span=span, frames=None, reason="no_frames", detail=why)
    good = [i for i, key in enumerate(chosen.keys) if key in pictures]
    # Frame i shows what wanted frame sources[i] is.
    sources = [max((g for g in good if g <= i), default=good[0] if good else 0) for i in range(len(chosen.keys))]
    own = {i for i in good if i == 0 or chosen.keys[i] != chosen.keys[i - 1]}
    stand_in = next(iter(pictures.values()))
    shown_pictures = [pictures.get(chosen.keys[source], stand_in) for source in sources]
    times_ms = tuple(chosen.times_ms[source] for source in sources)
    return DecodedClip(
        span=span,
        frames=_stack([picture.pixels for picture in shown_pictures]),
        frame_times_ms=times_ms,
        offsets_ms=tuple(abs(time - exact) for time, exact in zip(times_ms, chosen.exact_ms, strict=True)),
        filled_frames=len(sources) - len(own),
        corrupt_frames=sum(picture.corrupt for picture in shown_pictures),
        frame_hashes=tuple(picture.hash for picture in shown_pictures if picture.hash is not None),
    )


def _stack(pixels: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """[T, H, W, 3]; where the size changes within a clip that is given as decoded, the first frame's size holds."""
    height, width = pixels[0].shape[:2]
    return np.stack([p if p.shape[:2] == (height, width) else bilinear(p, height, width) for p in pixels])
