"""fast: about the frames of a span, for the least decoding.

Reads     where the container has an index, only the key packets that it chooses, and the heads of groups of pictures
          that reach into an interval without one
Gives     what `sampling.choose_cheap` says; where nothing is sound or a span has few frames, what `exact` gives
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from raydist.clips.container import Head, Video
from raydist.clips.exact import ExactReader, Result
from raydist.clips.picture import Converter
from raydist.clips.sampling import Chosen, cheap_reach, choose, choose_cheap, intervals
from raydist.clips.stretch import Stretch
from raydist.records import Span

_FEW = 3
"""With fewer frames to an interval than this, EXACT costs about the same."""


class FastReader:
    """Reads spans of one open file by their cheap frames."""

    def __init__(self, video: Video, head: Head, convert: Converter) -> None:
        self._exact = ExactReader(video, head, convert)
        self._video = video
        self._head = head
        self._clock = self._exact.stretches.clock
        self._index: tuple[list[int], list[int]] | None = None

    def read(self, span: Span, frames: int) -> Result:
        """The wanted frames of a span, and the pictures of those that decode.

        Raises:
            SequentialNeededError, SourceError: as `ExactReader.read`.
        """
        low, high = self._exact.bounds(span)
        if (high - low) * self._video.base * self._video.rate < _FEW * frames:
            return self._exact.read(span, frames)
        return self._by_index(low, high, frames) or self._by_packets(span, frames)

    def _by_index(self, low: int, high: int, frames: int) -> Result | None:
        """Without reading the whole span; None where the index does not allow that."""
        ticks, keys = self._indexed()
        inside = ticks[bisect_left(ticks, low) : bisect_left(ticks, high)]
        end = self._clock.first + (self._video.stream.duration or 0)
        if high > end:
            return None
        spans = intervals(low, high, frames)
        reach = cheap_reach(keys, spans)
        stretch = self._exact.stretches.heads(reach) if reach else None
        if stretch is None:
            return None
        exact = choose(inside, frames) if len(inside) > len(keys) else [sum(interval) // 2 for interval in spans]
        return self._read(stretch, stretch.ticks(min(stretch.times), high), spans, exact)

    def _by_packets(self, span: Span, frames: int) -> Result:
        stretch, ticks = self._exact.stretch(span)
        if len(ticks) < _FEW * frames:
            return self._exact.read(span, frames)
        spans = intervals(ticks[0], ticks[-1] + 1, frames)
        keys = stretch.key_ticks() if self._video.trusts_keys else []
        reach = cheap_reach(keys, spans)
        within = [tick for tick in ticks if _is_within(tick, keys, reach)] if reach else []
        return self._read(stretch, within, spans, choose(ticks, frames)) or self._exact.read(span, frames)

    def _read(
        self, stretch: Stretch, ticks: list[int], spans: list[tuple[int, int]], exact: list[int]
    ) -> Result | None:
        chosen = choose_cheap(ticks, stretch.key_ticks(), spans)
        pictures = self._exact.sound_pictures(stretch, chosen) if chosen else None
        if chosen is None or pictures is None:
            return None
        ms = self._clock.ms
        return Chosen(chosen, [ms(tick) for tick in chosen], [ms(tick) for tick in exact]), pictures

    def _indexed(self) -> tuple[list[int], list[int]]:
        """Ticks of the frames, and of the key frames, that the container's index knows, as near as it knows them."""
        if self._index is None:
            entries = [entry for entry in self._video.stream.index_entries if not entry.is_discard]
            first = self._head.packet
            if not entries or first.pts is None or not self._video.trusts_keys:
                self._index = [], []
            else:
                # An index of all packets has decoding times, which run ahead; one of key frames has their own times.
                ahead = first.pts - entries[0].timestamp
                ticks = sorted(entry.timestamp + ahead for entry in entries)
                self._index = ticks, sorted(entry.timestamp + ahead for entry in entries if entry.is_keyframe)
        return self._index


def _is_within(tick: int, keys: list[int], reach: dict[int, int]) -> bool:
    """Whether a frame is decoded on the way to what is reached in its group of pictures."""
    before = bisect_right(keys, tick) - 1
    return before >= 0 and tick <= reach.get(keys[before], keys[before] - 1)
