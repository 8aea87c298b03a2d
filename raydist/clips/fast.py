"""fast: about the frames of a span, for the least decoding.

Reads     where the container has an index, only the key packets that it chooses, and the heads of groups of pictures
          that reach into an interval without one
Gives     what `sampling.choose_cheap` says, and how far that is from the exact frames: of Matroska, whose index holds
          key frames only, as if its rate were constant; where nothing is sound or a span has few frames, what `exact`
          gives
"""

from __future__ import annotations

from bisect import bisect_right

import av

from raydist.clips.container import Head, Video
from raydist.clips.exact import ExactReader, Result
from raydist.clips.picture import Converter
from raydist.clips.sampling import Chosen, cheap_reach, choose, choose_cheap, intervals
from raydist.clips.stretch import Stretch
from raydist.records import Span

_FEW = 3
"""With fewer frames to an interval than this, EXACT costs about the same."""


class _Index:
    """What a container's index says of a stream, as near as it knows: a frame may lie about a frame's length away."""

    def __init__(self, video: Video, head: Head, first_tick: int) -> None:
        """Made before any span is read: of Matroska without an index FFmpeg makes one of what was read so far."""
        self._video = video
        # Matroska's index is read at the first seek.
        usable = video.trusts_keys and head.packet.pts is not None and video.seek(first_tick)
        entries = video.stream.index_entries
        usable = usable and len(entries) > 0
        # An index of all packets has decoding times, which run ahead; one of key frames has their own times.
        self.is_whole = "mp4" in video.container.format.name
        self._ahead = (head.packet.pts or 0) - entries[0].timestamp if usable and self.is_whole else 0
        self.last = entries[len(entries) - 1].timestamp + self._ahead if usable else first_tick - 1
        """Tick of the last entry."""
        if video.stream.duration is not None:
            self.end = first_tick + video.stream.duration
        else:
            self.end = int((video.container.duration or 0) / (av.time_base * video.base))

    def around(self, low: int, high: int) -> tuple[list[int], list[int]]:
        """Ticks of the frames in [low, high), where all frames are known, and of the key frames from the last one at or
        before `low` on."""
        entries = self._video.stream.index_entries  # not kept: they are gone with a container that is opened anew
        start = entries.search_timestamp(low - self._ahead, backward=True)
        stop = entries.search_timestamp(high - self._ahead, backward=True, any_frame=True)
        shown = [entry for entry in entries[max(0, start) : stop + 1] if not entry.is_discard]
        ticks = [entry.timestamp + self._ahead for entry in shown] if self.is_whole else []
        keys = [entry.timestamp + self._ahead for entry in shown if entry.is_keyframe]
        return [tick for tick in ticks if low <= tick < high], [tick for tick in keys if tick < high]


class FastReader:
    """Reads spans of one open file by their cheap frames."""

    def __init__(self, video: Video, head: Head, convert: Converter) -> None:
        self._exact = ExactReader(video, head, convert)
        self._video = video
        self._clock = self._exact.stretches.clock
        self._index = _Index(video, head, self._clock.first)

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
        spans = intervals(low, high, frames)
        if high > self._index.end or self._index.last < (low if self._index.is_whole else spans[-1][0]):
            return None
        ticks, keys = self._index.around(low, high)
        reach = cheap_reach(keys, spans)
        stretch = self._exact.stretches.heads(reach) if reach else None
        if stretch is None:
            return None
        # Without the frames' times: where they are at a constant rate, half to one frame before an interval's middle.
        before = int(3 / (4 * self._video.rate * self._video.base))
        exact = choose(ticks, frames) if ticks else [sum(interval) // 2 - before for interval in spans]
        return self._read(stretch, stretch.ticks(low, high), spans, exact)

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


def _is_within(tick: int, keys: list[int], reach: dict[int, int]) -> bool:
    """Whether a frame is decoded on the way to what is reached in its group of pictures."""
    before = bisect_right(keys, tick) - 1
    return before >= 0 and tick <= reach.get(keys[before], keys[before] - 1)
