"""bitstream: what a packet's first bytes say that FFmpeg's flags do not."""

from __future__ import annotations

from collections.abc import Iterator

_SUPERFRAME_MARK = 0b110


def is_hidden(codec: str, data: memoryview) -> bool:
    """Whether a packet holds only a picture that is never shown (VP8 and VP9's alternate references).

    Source: RFC 6386 section 9.1; VP9 bitstream specification, section 6.2 and annex B.
    """
    if codec == "vp8":
        return not data[0] & 0x10
    if codec == "vp9":
        bits = f"{data[0]:08b}"
        place = 5 if bits[2:4] == "11" else 4  # profile 3 has a reserved bit
        shows_existing, shows = bits[place] == "1", bits[place + 2 : place + 3] != "0"
        return not shows_existing and not shows and data[-1] >> 5 != _SUPERFRAME_MARK
    return False


def hevc_picture(data: memoryview, length_bytes: int) -> tuple[int, bool] | None:
    """Temporal sub-layer of the first picture in an HEVC packet, and whether that layer refers to it; None: no picture.

    Args:
        length_bytes: of each NAL unit's length field; 0: start codes (Annex B).

    Source: ITU-T H.265, section 7.3.1.2 and table 7-1: even types below 16 are sub-layer non-reference pictures.
    """
    for start in _nal_starts(data, length_bytes):
        kind = (data[start] >> 1) & 0x3F if start + 1 < len(data) else 63
        if kind < _FIRST_NON_PICTURE:
            return max(0, (data[start + 1] & 7) - 1), kind >= 16 or kind % 2 == 1
    return None


class LeadingPictures:
    """Tells which pictures of HEVC are never shown because what they build on is not in the stream.

    Those are the skipped leading pictures of a broken link, or of a random access point behind an end of sequence.

    Source: ITU-T H.265, section 8.1.3 (NoRaslOutputFlag) and table 7-1.
    """

    def __init__(self, length_bytes: int) -> None:
        self._length_bytes = length_bytes
        self.forget()

    def forget(self) -> None:
        """Reading goes on elsewhere."""
        self._ended = self._broken = False

    def drops(self, data: memoryview) -> bool:
        """Whether the picture of the next packet, in decoding order, is never shown."""
        dropped = False
        for start in _nal_starts(data, self._length_bytes):
            kind = (data[start] >> 1) & 0x3F if start < len(data) else -1
            if kind in _RASL:
                dropped = self._broken
            elif kind in _RANDOM_ACCESS:
                self._broken = kind in _BROKEN_LINK or (kind == _CLEAN_RANDOM_ACCESS and self._ended)
                self._ended = False
            elif kind in _END:
                self._ended = True
        return dropped


_RASL = frozenset({8, 9})
_BROKEN_LINK = frozenset({16, 17, 18})
_CLEAN_RANDOM_ACCESS = 21
_RANDOM_ACCESS = frozenset(range(16, 24))
_END = frozenset({36, 37})
_FIRST_NON_PICTURE = 32


def hevc_length_bytes(extradata: bytes | None) -> int:
    """Size of the length fields of an HEVC stream; 0 for start codes. Source: ISO/IEC 14496-15, hvcC."""
    if extradata and len(extradata) > 22 and extradata[0] == 1:
        return (extradata[21] & 3) + 1
    return 0


class ParameterSets:
    """Tells whether packets can be decoded with what their file's header says, from the first of them on.

    Source: ITU-T H.264 and H.265, table 7-1 each; ISO/IEC 14496-15, avcC and hvcC.
    """

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._is_hevc = codec == "hevc"
        self._header = extradata
        self._has_units = codec in ("h264", "hevc")
        self._length_bytes = hevc_length_bytes(extradata) if self._is_hevc else h264_length_bytes(extradata)

    def begins(self, data: memoryview) -> bool:
        """Whether a packet's picture lets no later one reach behind it, of a codec that has other key frames too."""
        if not self._has_units:
            return True
        starts = _CLEAN_STARTS if self._is_hevc else _IDR
        return next((kind in starts for kind, _ in self._units(data) if kind in self._pictures()), False)

    def know(self, data: memoryview) -> bool:
        """Whether a packet brings no parameter set that the header does not have."""
        if not self._has_units:
            return True
        sets = _HEVC_SETS if self._is_hevc else _H264_SETS
        return all(kind not in sets or bytes(unit) in self._header for kind, unit in self._units(data))

    def _pictures(self) -> range:
        return range(_FIRST_NON_PICTURE) if self._is_hevc else _H264_PICTURES

    def _units(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Kind and bytes of each NAL unit; none where the units have no length fields."""
        place, size = 0, self._length_bytes
        while size and place + size < len(data):
            start = place + size
            place = start + int.from_bytes(data[start - size : start], "big")
            yield (data[start] >> 1) & 0x3F if self._is_hevc else data[start] & 0x1F, data[start:place]


_IDR = frozenset({5})
_H264_PICTURES = range(1, 6)
_H264_SETS = frozenset({7, 8, 13, 15})
_CLEAN_STARTS = frozenset(range(16, 22))
_HEVC_SETS = frozenset({32, 33, 34})


def h264_length_bytes(extradata: bytes) -> int:
    """Size of the length fields of an H.264 stream; 0 for start codes. Source: ISO/IEC 14496-15, avcC."""
    return (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 0


def _nal_starts(data: memoryview, length_bytes: int) -> list[int]:
    starts: list[int] = []
    if not length_bytes:
        place = 0
        head = bytes(data[:4096])  # parameter sets come first and are short
        while (place := head.find(b"\0\0\1", place)) >= 0:
            place += 3
            starts.append(place)
        return starts
    place = 0
    while place + length_bytes < len(data) and len(starts) < 16:
        starts.append(place + length_bytes)
        place += length_bytes + int.from_bytes(data[place : place + length_bytes], "big")
    return starts
