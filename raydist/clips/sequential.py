"""sequential: all wanted frames of a file in one pass from its start.

For files whose times are missing or repeat, that cannot seek, or whose key flags lie. Where packets do not stand for
frames one to one, a first pass counts the frames; otherwise the packets' times say which frames there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from av.video.frame import VideoFrame

from raydist.clips.container import Head, Video, no_frames
from raydist.clips.exact import Result
from raydist.clips.picture import Converter, Picture
from raydist.clips.sampling import Choose, Chosen, choose
from raydist.clips.timeline import timeline
from raydist.records import Span


@dataclass(frozen=True, slots=True)
class _Lineup:
    """The presented frames of a file, in order of presentation."""

    keys: list[int]
    """How the pass recognises each: its time, or its place in order of output."""
    times_ms: list[int]
    by_time: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the pass looks for in one span."""

    chosen: Chosen
    first: int
    last: int
    """Keys of the span's first and last presented frame."""


def read_all(
    video: Video, head: Head, spans: Sequence[Span], frames: int, convert: Converter, choose: Choose = choose
) -> Iterator[Result]:
    """The wanted frames of each span, in order, and the pictures of those that decode.

    Where none of a span's wanted frames decodes but another of its frames does, that one is given under no wanted key,
    to stand for all.

    Raises:
        SourceError: no_frames, too_large.
    """
    lineup = _counted(video) if head.clock is None else _by_packets(video, head)
    yield from _pictures(video, lineup, [_wanted(lineup, span, frames, choose) for span in spans], convert)


def _counted(video: Video) -> _Lineup:
    times = [frame.pts for frame in _frames(video)]
    if not times:
        raise no_frames(video, "none of its packets decodes")
    line = timeline(times if video.trusts_times else [None] * len(times), video.base, video.rate)
    return _Lineup(line.places, [line.clock.ms(tick) for tick in line.ticks], by_time=False)


def _by_packets(video: Video, head: Head) -> _Lineup:
    assert head.clock is not None
    video.rewind()
    ticks = sorted(
        {
            packet.pts
            for packet in video.packets()
            if packet.pts is not None and packet.pts >= head.clock.first and video.presented(packet)
        }
    )
    return _Lineup(ticks, [head.clock.ms(tick) for tick in ticks], by_time=True)


def _wanted(lineup: _Lineup, span: Span, frames: int, choose: Choose) -> _Wanted:
    inside = [place for place, ms in enumerate(lineup.times_ms) if span.start_ms <= ms < span.end_ms]
    picked = choose(inside, frames)
    times_ms = [lineup.times_ms[place] for place in picked]
    chosen = Chosen([lineup.keys[place] for place in picked], times_ms, times_ms)
    if not inside:
        return _Wanted(chosen, 0, -1)
    return _Wanted(chosen, lineup.keys[inside[0]], lineup.keys[inside[-1]])


def _pictures(video: Video, lineup: _Lineup, wanted: list[_Wanted], convert: Converter) -> Iterator[Result]:
    last_user = {key: number for number, want in enumerate(wanted) for key in want.chosen.keys}
    pictures: dict[int, Picture] = {}
    spare: dict[int, Picture] = {}
    done = 0
    for place, frame in enumerate(_frames(video)):
        key = frame.pts if lineup.by_time else place
        if key is None:
            continue
        into = pictures if key in last_user else spare
        if (into is pictures and key not in pictures) or (not spare and wanted[done].first <= key <= wanted[done].last):
            picture = convert(frame)
            if picture is not None:
                into[key] = picture
        while done < len(wanted) and key >= max(wanted[done].chosen.keys, default=key):
            yield _result(wanted[done].chosen, pictures, spare, lineup)
            pictures = {old: kept for old, kept in pictures.items() if last_user[old] > done}
            spare = {}
            done += 1
        if done == len(wanted):
            return
    for want in wanted[done:]:
        yield _result(want.chosen, pictures, spare, lineup)
        spare = {}


def _result(chosen: Chosen, pictures: dict[int, Picture], spare: dict[int, Picture], lineup: _Lineup) -> Result:
    own = {key: pictures[key] for key in chosen.keys if key in pictures}
    if own or not spare:
        return chosen, own
    time_ms = lineup.times_ms[lineup.keys.index(next(iter(spare)))]
    return Chosen(chosen.keys, [time_ms] * len(chosen.keys), chosen.exact_ms), spare


def _frames(video: Video) -> Iterator[VideoFrame]:
    video.rewind()
    for packet in video.packets():
        yield from video.decode(packet)[0]
    yield from video.decode(None)[0]
