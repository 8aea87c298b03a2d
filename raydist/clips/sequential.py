"""sequential: all wanted frames of a file in one pass from its start.

For files whose times are missing or repeat, that cannot seek, or whose key flags lie. Where packets do not stand for
frames one to one, a first pass counts the frames; otherwise the packets' times say which frames there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from av.video.frame import VideoFrame

from raydist.clips.container import Head, Video, no_frames, presented
from raydist.clips.exact import Chosen, choose
from raydist.clips.picture import Converter, Picture
from raydist.clips.timeline import Timeline, timeline
from raydist.records import Span


def read_all(
    video: Video, head: Head, spans: Sequence[Span], frames: int, convert: Converter
) -> Iterator[tuple[Chosen, dict[int, Picture]]]:
    """The wanted frames of each span, in order, and the pictures of those that decode.

    A picture's key is the frame's place in order of output (counted frames) or its time.

    Raises:
        SourceError: no_frames, too_large.
    """
    if head.clock is None:
        line, keys = _counted(video)
    else:
        line, keys = _by_packets(video, head)
    chosen = [_chosen(line, keys, span, frames) for span in spans]
    yield from _pictures(video, chosen, convert, by_time=head.clock is not None)


def _counted(video: Video) -> tuple[Timeline, list[int]]:
    times = [frame.pts for frame in _frames(video)]
    if not times:
        raise no_frames(video, "none of its packets decodes")
    line = timeline(times if video.trusts_times else [None] * len(times), video.base, video.rate)
    return line, line.places


def _by_packets(video: Video, head: Head) -> tuple[Timeline, list[int]]:
    assert head.clock is not None
    video.rewind()
    times = {
        packet.pts
        for packet in video.packets()
        if packet.pts is not None and packet.pts >= head.clock.first and presented(packet)
    }
    ticks = sorted(times)
    return Timeline(head.clock, ticks, list(range(len(ticks)))), ticks


def _chosen(line: Timeline, keys: list[int], span: Span, frames: int) -> Chosen:
    inside = [i for i, tick in enumerate(line.ticks) if span.start_ms <= line.clock.ms(tick) < span.end_ms]
    ranks = choose(inside, frames)
    return Chosen([keys[i] for i in ranks], [line.clock.ms(line.ticks[i]) for i in ranks])


def _pictures(
    video: Video, chosen: list[Chosen], convert: Converter, *, by_time: bool
) -> Iterator[tuple[Chosen, dict[int, Picture]]]:
    waiting: dict[int, int] = {}
    """Key -> the last span that wants it."""
    for number, choice in enumerate(chosen):
        waiting.update(dict.fromkeys(choice.keys, number))
    ends = [max(choice.keys, default=-1) for choice in chosen]
    pictures: dict[int, Picture] = {}
    done = 0
    for place, frame in enumerate(_frames(video)):
        key = frame.pts if by_time else place
        if key is None:
            continue
        if key in waiting and key not in pictures:
            picture = convert(frame)
            if picture is not None:
                pictures[key] = picture
        while done < len(chosen) and (not chosen[done].keys or key >= ends[done]):
            yield _own(chosen[done], pictures)
            pictures = {old: kept for old, kept in pictures.items() if waiting[old] > done}
            done += 1
        if done == len(chosen):
            return
    for choice in chosen[done:]:
        yield _own(choice, pictures)


def _own(choice: Chosen, pictures: dict[int, Picture]) -> tuple[Chosen, dict[int, Picture]]:
    return choice, {key: pictures[key] for key in choice.keys if key in pictures}


def _frames(video: Video) -> Iterator[VideoFrame]:
    video.rewind()
    for packet in video.packets():
        yield from video.decode(packet)[0]
    yield from video.decode(None)[0]
