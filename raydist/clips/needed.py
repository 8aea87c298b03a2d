"""needed: which packets, and which parts of them, must be decoded for some frames to come out bit for bit.

AV1 frames name what they build on, so only the frames that lead to a wanted one are kept. HEVC pictures say in which
temporal sub-layer they lie and whether their own layer refers to them. Of other codecs a decoder skips by itself what
no other frame refers to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from av.packet import Packet
from av.video.stream import VideoStream

from raydist.clips import av1
from raydist.clips.bitstream import hevc_length_bytes, hevc_picture


class Needs(Protocol):
    """What the packets of a stretch need of each other."""

    def note(self, packet: Packet[VideoStream]) -> None:
        """Look at the next packet, in decoding order."""

    def of(self, first: int, last: int, wanted: Collection[int]) -> dict[int, list[slice]] | None:
        """Places of the packets to decode of first..last so that those at `wanted` come out, and the parts of each.

        No parts: all of it. None: it cannot be told, so everything is needed.
        """


def needs(codec: str, extradata: bytes | None) -> Needs | None:
    """For a codec whose packets say so; None for others."""
    if codec == "av1":
        return _Av1(extradata)
    if codec == "hevc":
        return _Hevc(extradata)
    return None


class _Av1:
    def __init__(self, extradata: bytes | None) -> None:
        self._reader = av1.Reader(extradata)
        self._packets: list[list[tuple[slice, av1.Frame]] | None] = []

    def note(self, packet: Packet[VideoStream]) -> None:
        data = memoryview(packet)
        try:
            frames = self._reader.frames(data)
        except ValueError:
            self._packets.append(None)
            return
        ends = [start for start, _ in frames[1:]] + [len(data)]
        self._packets.append([(slice(start, end), frame) for (start, frame), end in zip(frames, ends, strict=True)])

    def of(self, first: int, last: int, wanted: Collection[int]) -> dict[int, list[slice]] | None:
        sources = self._sources(first, last)
        if sources is None:
            return None
        open_ends = [node for node in sources if node[0] in wanted and self._frames(node[0])[node[1]][1].is_shown]
        kept: set[tuple[int, int]] = set()
        while open_ends:
            node = open_ends.pop()
            if node in kept:
                continue
            kept.add(node)
            for source in sources[node]:
                if source is None:
                    return None
                open_ends.append(source)
        parts: dict[int, list[slice]] = {}
        for place, number in sorted(kept):
            parts.setdefault(place, []).append(self._frames(place)[number][0])
        return {place: self._trimmed(place, cuts) for place, cuts in parts.items()}

    def _frames(self, place: int) -> list[tuple[slice, av1.Frame]]:
        return self._packets[place] or []

    def _trimmed(self, place: int, cuts: list[slice]) -> list[slice]:
        """With what stands before the first frame of the packet, such as a sequence header."""
        frames = self._frames(place)
        head = frames[0][0].start
        return [] if len(cuts) == len(frames) else [*([slice(0, head)] if head else []), *cuts]

    def _sources(self, first: int, last: int) -> dict[tuple[int, int], list[tuple[int, int] | None]] | None:
        """Frame -> the frames that it reads; None stands for one before the first packet."""
        sources: dict[tuple[int, int], list[tuple[int, int] | None]] = {}
        slots: list[tuple[int, int] | None] = [None] * av1.SLOTS
        keys: set[tuple[int, int]] = set()
        for place in range(first, last + 1):
            frames = self._packets[place]
            if frames is None:
                return None
            for number, (_, frame) in enumerate(frames):
                node = (place, number)
                read = [slots[slot] for slot in range(av1.SLOTS) if frame.reads >> slot & 1]
                sources[node] = list(dict.fromkeys(read))
                # A key frame that is shown later than it is sent starts everything anew when it is shown.
                restarts = frame.shows_slot and read[0] in keys
                if frame.is_key or restarts:
                    keys.add(node)
                fills = av1.ALL_SLOTS if restarts else frame.fills
                slots = [node if fills >> slot & 1 else old for slot, old in enumerate(slots)]
        return sources


class _Hevc:
    """A picture may refer to lower sub-layers and to the reference pictures of its own, never to higher ones.

    Source: ITU-T H.265, section 7.4.2.2 (nal_unit_type, TemporalId).
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._length_bytes = hevc_length_bytes(extradata)
        self._pictures: list[tuple[int, bool] | None] = []

    def note(self, packet: Packet[VideoStream]) -> None:
        self._pictures.append(hevc_picture(memoryview(packet), self._length_bytes))

    def of(self, first: int, last: int, wanted: Collection[int]) -> dict[int, list[slice]] | None:
        kept: dict[int, list[slice]] = {}
        highest = -1
        for place in range(last, first - 1, -1):
            picture = self._pictures[place]
            if picture is None:  # no picture in it, such as parameter sets alone
                kept[place] = []
                continue
            layer, is_reference = picture
            if place in wanted or place == first or layer < highest or (layer == highest and is_reference):
                kept[place] = []
                highest = max(highest, layer)
        return kept
