"""av1: which pictures of an AV1 stream build on which.

An AV1 decoder keeps everything that one frame takes from another (pixels, motion vectors, probabilities, segmentation,
film grain) in eight slots, and each frame header names the slots that it reads and those that it fills. Frames that no
wanted frame leads back to can be left out without changing a bit.

Source of the syntax: AV1 Bitstream & Decoding Process Specification, sections 5.3 to 5.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SLOTS = 8
ALL_SLOTS = (1 << SLOTS) - 1

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_CHOOSE = 2
"""The frame header decides (SELECT_SCREEN_CONTENT_TOOLS, SELECT_INTEGER_MV)."""
_HEADER_BYTES = 64
"""More than a header has up to the last field that is read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What one frame of a temporal unit reads and fills."""

    reads: int
    """Bit i: slot i."""
    fills: int
    is_key: bool = False
    is_shown: bool = True
    shows_slot: bool = False
    """It is no frame of its own but shows again what is in the slot that it reads."""


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The fields of a sequence header that a frame header depends on."""

    reduced: bool
    screen_content: int
    integer_mv: int
    order_hint_bits: int
    frame_id_bits: int
    delta_id_bits: int
    time_bits: int
    """Of a presentation time in each shown frame; 0: none."""
    removal_bits: int
    """Of a buffer removal time; 0: none."""
    points: tuple[tuple[int, bool], ...]
    """Of each operating point: its layers, and whether it has removal times."""


class _Bits:
    """Big-endian bits; reading beyond the end raises IndexError."""

    def __init__(self, data: memoryview) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("the header ends too soon")
        return (self._value >> self._left) & ((1 << count) - 1)

    def uvlc(self) -> None:
        zeros = 0
        while not self.take(1):
            zeros += 1
        self.take(zeros)


class Reader:
    """Frames of temporal units, given in decoding order from a key packet on."""

    def __init__(self, extradata: bytes | None) -> None:
        """Args: extradata: of the container (`av1C`), which may hold the sequence header."""
        self._sequence: _Sequence | None = None
        if extradata and len(extradata) > 4:
            try:
                for _, kind, data, _ in _units(memoryview(extradata)[4:]):
                    if kind == _SEQUENCE_HEADER:
                        self._sequence = _sequence(_Bits(data))
            except IndexError:
                self._sequence = None

    def frames(self, packet: memoryview) -> list[tuple[int, Frame]]:
        """The frames of one temporal unit, each with the byte at which its units begin.

        Raises:
            ValueError: if its headers cannot be read.
        """
        found: list[tuple[int, Frame]] = []
        try:
            for start, kind, data, layers in _units(packet):
                if kind == _SEQUENCE_HEADER:
                    self._sequence = _sequence(_Bits(data[: 8 * _HEADER_BYTES]))
                elif kind in (_FRAME_HEADER, _FRAME):
                    if self._sequence is None:
                        raise ValueError("a frame before any sequence header")
                    found.append((start, _frame(_Bits(data[:_HEADER_BYTES]), self._sequence, layers)))
        except IndexError as error:
            raise ValueError(f"a damaged temporal unit: {error}") from error
        if not found:
            raise ValueError("a temporal unit without a frame")
        return found


def _units(data: memoryview) -> Iterator[tuple[int, int, memoryview, tuple[int, int]]]:
    """Start, type, payload and (temporal, spatial) layer of each OBU."""
    place = 0
    while place < len(data):
        start = place
        head = data[place]
        place += 1
        layers = (0, 0)
        if head & 4:
            layers = (data[place] >> 5, data[place] >> 3 & 3)
            place += 1
        size = len(data) - place
        if head & 2:
            size = shift = 0
            while True:
                byte = data[place]
                place += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        if place + size > len(data):
            raise IndexError("a unit longer than its packet")
        yield start, head >> 3 & 15, data[place : place + size], layers
        place += size


def _sequence(bits: _Bits) -> _Sequence:
    """Section 5.5."""
    bits.take(4)  # profile, still picture
    reduced = bool(bits.take(1))
    if reduced:
        bits.take(5)
    points, time_bits, removal_bits = (((0, False),), 0, 0) if reduced else _operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width_bits + height_bits)
    frame_id_bits = delta_id_bits = 0
    if not reduced and bits.take(1):
        delta_id_bits = bits.take(4) + 2
        frame_id_bits = bits.take(3) + delta_id_bits + 1
    bits.take(3)
    if reduced:
        return _Sequence(True, _CHOOSE, _CHOOSE, 0, 0, 0, 0, 0, points)
    bits.take(4)
    has_order = bits.take(1)
    if has_order:
        bits.take(2)
    screen_content = _CHOOSE if bits.take(1) else bits.take(1)
    integer_mv = _CHOOSE
    if screen_content > 0 and not bits.take(1):
        integer_mv = bits.take(1)
    order_hint_bits = bits.take(3) + 1 if has_order else 0
    return _Sequence(
        False,
        screen_content,
        integer_mv,
        order_hint_bits,
        frame_id_bits,
        delta_id_bits,
        time_bits,
        removal_bits,
        points,
    )


def _operating_points(bits: _Bits) -> tuple[tuple[tuple[int, bool], ...], int, int]:
    """The timing and the operating points of a sequence header, and the bits of times in frame headers."""
    delay_bits = time_bits = removal_bits = 0
    if bits.take(1):
        bits.take(64)
        has_equal_intervals = bits.take(1)
        if has_equal_intervals:
            bits.uvlc()
        if bits.take(1):
            delay_bits = bits.take(5) + 1
            bits.take(32)
            removal_bits = bits.take(5) + 1
            time_bits = bits.take(5) + 1
            if has_equal_intervals:
                time_bits = 0
    has_delay = bits.take(1)
    points: list[tuple[int, bool]] = []
    for _ in range(bits.take(5) + 1):
        layers = bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        has_removal_times = delay_bits > 0 and bool(bits.take(1))
        if has_removal_times:
            bits.take(2 * delay_bits + 1)
        points.append((layers, has_removal_times))
        if has_delay and bits.take(1):
            bits.take(4)
    return tuple(points), time_bits, removal_bits


def _frame(bits: _Bits, sequence: _Sequence, layers: tuple[int, int]) -> Frame:
    """Section 5.9.2, up to the last field that names a slot."""
    if sequence.reduced:
        return Frame(0, ALL_SLOTS, is_key=True)
    if bits.take(1):
        return Frame(1 << bits.take(3), 0, shows_slot=True)
    kind, shown = bits.take(2), bool(bits.take(1))
    if shown:
        bits.take(sequence.time_bits)
    else:
        bits.take(1)
    fills_all = kind == _SWITCH or (kind == _KEY and shown)
    resilient = fills_all or bool(bits.take(1))
    bits.take(1)
    screen_content = bits.take(1) if sequence.screen_content == _CHOOSE else sequence.screen_content
    if screen_content and sequence.integer_mv == _CHOOSE:
        bits.take(1)
    bits.take(sequence.frame_id_bits)
    if kind != _SWITCH:
        bits.take(1)
    bits.take(sequence.order_hint_bits)
    is_intra = kind in (_KEY, _INTRA_ONLY)
    if not is_intra and not resilient:
        bits.take(3)
    if sequence.removal_bits and bits.take(1):
        for point, removal in sequence.points:
            if removal and (point == 0 or (point >> layers[0] & 1 and point >> (layers[1] + 8) & 1)):
                bits.take(sequence.removal_bits)
    fills = ALL_SLOTS if fills_all else bits.take(SLOTS)
    if is_intra:
        return Frame(0, fills, is_key=kind == _KEY, is_shown=shown)
    if resilient and sequence.order_hint_bits:
        bits.take(SLOTS * sequence.order_hint_bits)
    if sequence.order_hint_bits and bits.take(1):
        return Frame(
            ALL_SLOTS, fills, is_shown=shown
        )  # the slots follow from order hints; all of them are a safe answer
    reads = 0
    for _ in range(7):
        reads |= 1 << bits.take(3)
        bits.take(sequence.delta_id_bits)
    return Frame(reads, fills, is_shown=shown)
