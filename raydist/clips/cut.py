"""cut: spans of a file as small mp4 files of their own, without sound.

Reads     one file at a time, opened once for all its spans
Gives     a `Cut` a span: a copy of the file's packets where that is exactly the span, else encoded anew and small
Promises  every span gives exactly one result, in order; each picture of a cut is a frame of its span, at its time after
          the span's first frame, and upright; only what concerns the whole file is raised, as a SourceError

In this process. What may hang or crash belongs into a `clips.child`.
"""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from raydist.clips.container import Head, Video, read_head
from raydist.clips.decode import in_turn, open_scanned
from raydist.clips.encode import even, small_mp4
from raydist.clips.exact import ExactReader, Result
from raydist.clips.picture import Converter
from raydist.clips.remux import Copier
from raydist.clips.resize import bilinear, fitted_size
from raydist.clips.sampling import choose_even
from raydist.clips.sequential import read_all
from raydist.clips.source import shown
from raydist.clips.stretch import SequentialNeededError
from raydist.errors import SourceError
from raydist.records import CUT_RATE, Cut, Limits, Span

__all__ = ["Cut", "cut_spans"]

_PICTURES_BYTES = 192 << 20
"""Of a clip's pictures before they are encoded: a long clip or large pictures get fewer a second."""
_FEWEST = 8


def cut_spans(
    location: str,
    spans: Sequence[Span],
    *,
    max_px: int,
    max_bytes: int,
    rate: int = CUT_RATE,
    fingerprint: str = "",
    limits: Limits | None = None,
    allow: Callable[[int], None] = lambda clips: None,
    waits: Callable[[float], None] = lambda seconds: None,
) -> Iterator[Cut]:
    """Several spans of one file, each as an mp4.

    Args:
        location: the file: a path or an address.
        spans: in the order in which results are wanted; rising starts are cheapest.
        max_px: longest edge of the pictures.
        max_bytes: of one result.
        rate: pictures a second of what is encoded anew, at most.
        fingerprint: of the file that was scanned; empty: any.
        limits: what a picture may need.
        allow: told before work that serves this many spans at once, so that a watcher grants as many spans' time.
        waits: told how many seconds a server may take to answer, so that a watcher does not take it for a hang.

    Yields:
        One cut a span, in order.

    Raises:
        SourceError: what concerns the whole file, before the first cut or in the place of a later one.
        ValueError: if a size or the rate is out of bounds.
    """
    if max_px < 2 or max_bytes < 1 or rate < 1:
        raise ValueError(
            f"max_px={max_px}, max_bytes={max_bytes}, rate={rate}: expected at least 2, at least 1, at least 1"
        )
    limits = limits or Limits()
    cutter = _Cutter(max_px, max_bytes, rate, allow)
    with open_scanned(location, fingerprint, limits, waits) as source:
        for cut, cpu_s, bytes_read in in_turn(source, limits, spans, cutter.cuts, _failed):
            yield replace(cut, cpu_s=cpu_s, bytes_read=bytes_read)


@dataclass(frozen=True, slots=True)
class _Cutter:
    """What is wanted of every span."""

    max_px: int
    max_bytes: int
    rate: int
    allow: Callable[[int], None]

    def cuts(self, video: Video, spans: Sequence[Span]) -> Iterator[Cut]:
        """One cut a span of an open file: by the exact plan as long as it holds, then the rest in one pass."""
        convert = Converter(self.max_px, "fit", hashes=False)
        convert.watch(video)
        head = read_head(video)
        done = 0
        if head.clock is not None:
            reader = ExactReader(video, head, convert, choose_even)
            copier = Copier(video, self.max_px, self.max_bytes)
            try:
                for span in spans:
                    yield self._cut(reader, copier, span)
                    done += 1
            except SequentialNeededError as need:
                if need.count_frames:
                    head = Head(None, head.packet)
        if done < len(spans):
            self.allow(len(spans) - done)
            frames = max(self._frames(video, span) for span in spans[done:])
            rest = read_all(video, head, spans[done:], frames, convert, choose_even)
            for span, result in zip(spans[done:], rest, strict=True):
                yield self._encoded(video, span, result)

    def _frames(self, video: Video, span: Span) -> int:
        """How many frames of a span are taken, at most."""
        width, height = (edge or self.max_px for edge in (video.decoder.width, video.decoder.height))
        wide, high = fitted_size(width, height, self.max_px)
        return min(
            -(-(span.end_ms - span.start_ms) * self.rate // 1000), max(_FEWEST, _PICTURES_BYTES // (wide * high * 3))
        )

    def _cut(self, reader: ExactReader, copier: Copier, span: Span) -> Cut:
        video = reader.stretches.video
        try:
            stretch, ticks = reader.stretch(span)
            copy = copier.copy(stretch, ticks, reader.bounds(span)[1]) if ticks else None
            if copy is not None:
                return Cut(span=span, data=copy.data, width_px=copy.width_px, height_px=copy.height_px, copied=True)
            return self._encoded(video, span, reader.read_stretch(stretch, ticks, self._frames(video, span)))
        except SourceError as error:  # a picture that is too large: the other spans may have none
            return _failed(span, error.reason, error.detail)

    def _encoded(self, video: Video, span: Span, result: Result) -> Cut:
        chosen, pictures = result
        times_ms = dict(zip(chosen.keys, chosen.times_ms, strict=True))
        # A picture under no wanted key stands for all: it has the time that all of them were given.
        shown_ms = {key: times_ms.get(key, chosen.times_ms[0]) for key in pictures} if chosen.keys else {}
        if not shown_ms:
            why = f"none of its frames ({video.codec}) decodes" if chosen.keys else "no frame begins in it"
            where = f"[{span.start_ms / 1000:g}, {span.end_ms / 1000:g}) of {shown(video.source.location)}"
            return _failed(span, "no_frames", f"{where}: {why}")
        at_ms = {shown_ms[key]: key for key in sorted(pictures, reverse=True)}  # of frames with one time the first
        order_ms = sorted(at_ms)
        height, width = pictures[at_ms[order_ms[0]]].pixels.shape[:2]
        pixels = (pictures.pop(at_ms[time_ms]).pixels for time_ms in order_ms)
        alike = [even(p if p.shape[:2] == (height, width) else bilinear(p, height, width)) for p in pixels]
        data = small_mp4(alike, order_ms, span.end_ms, self.rate, self.max_bytes)
        high, wide = alike[0].shape[:2]
        if data is None:
            detail = (
                f"{len(alike)} pictures of {wide} x {high} take more than {self.max_bytes:,} bytes, however they are "
                "encoded: lower caption.frame_px, or send frames"
            )
            return _failed(span, "too_big", detail)
        return Cut(span=span, data=data, width_px=wide, height_px=high)


def _failed(span: Span, reason: str, detail: str) -> Cut:
    return Cut(span=span, reason=reason, detail=detail)
