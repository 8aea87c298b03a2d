"""pictures: what a person looks at to see a model learn: the strips that captions retrieve, and a map of similarities.

Takes    values only: captions, frames, scores, a matrix
Gives    encoded pictures: JPEG of strips, PNG of the map
Promise  any caption can be drawn; letters that no font of this machine has become boxes
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from raydist.sheets.letters import Font, cleaned, font_for, fonts, lines

# Shape legend: T frames, H height, W width, C = 3 colours; in maps V clips (down), T captions (across)

RIGHT, WRONG = (22, 163, 74), (220, 60, 50)
FRAME_PX = 6
"""Width of the coloured frame around a strip."""
FILM_PX = 782
"""Width of a strip within its frame: 8 frames of 96 pixels and the gaps between."""
_FRAME_SIDE_PX, _GAP_PX, _MARGIN_PX, _MARK_PX = 96, 2, 14, 82
WIDTH_PX = 2 * _MARGIN_PX + _MARK_PX + FILM_PX + 2 * FRAME_PX
_BETWEEN_PX = 36
# TensorBoard shows pictures at about 0.4 of their size until they are clicked: letters must be read at that too.
_CAPTION_PT, _RANK_PT, _SCORE_PT, _LINE_PX = 31, 27, 27, 38
_INK, _GREY, _LINE, _PAPER = (24, 24, 27), (95, 95, 105), (222, 222, 228), (255, 255, 255)

MAP_CELLS, _MAP_PX, _TONES = 256, 512, 63

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """A caption and the best clips that it retrieves."""

    caption: str
    strips: Sequence[NDArray[np.uint8]]
    """[T, H, W, C] RGB each, best first."""
    right: Sequence[bool]
    """Whether a strip is the clip that the caption describes."""
    scores: Sequence[float]
    """Cosine of each."""
    rank: float
    """Of the right clip, from 1; ties count half."""
    candidates: int = 0
    """Clips that were searched; 0: not said."""


def retrieved(rows: Sequence[Retrieved]) -> bytes:
    """All captions below each other, each over its strips, as one JPEG of `WIDTH_PX` pixels.

    The right clip has a green frame and a tick, others a red frame and a cross.
    """
    blocks = [_block(number, row) for number, row in enumerate(rows, start=1)]
    height = sum(block.height for block in blocks) + _BETWEEN_PX * (len(blocks) - 1) + 2 * _MARGIN_PX
    page = Image.new("RGB", (WIDTH_PX, max(height, 2 * _MARGIN_PX)), _PAPER)
    draw, top = ImageDraw.Draw(page), _MARGIN_PX
    for number, block in enumerate(blocks):
        if number:
            line = top - _BETWEEN_PX // 2
            draw.line((_MARGIN_PX, line, WIDTH_PX - _MARGIN_PX, line), _LINE, 1)
        page.paste(block, (0, top))
        top += block.height + _BETWEEN_PX
    return _encoded(page, "JPEG", quality=65, optimize=True)


def _block(number: int, row: Retrieved) -> Image.Image:
    """One caption with its rank and strips, `WIDTH_PX` wide."""
    note = f"rank {row.rank:g}" + f" of {row.candidates}" * bool(row.candidates)
    note_font = fonts(_RANK_PT)[0]
    room = WIDTH_PX - 3 * _MARGIN_PX - _MARK_PX - int(note_font.getlength(note)) - 28
    text = cleaned(row.caption) or "(no words)"
    font = font_for(text, _CAPTION_PT)
    words = lines(text, font, room, 2)
    films = [_film(strip) for strip in row.strips]
    head = _LINE_PX * len(words) + 10
    block = Image.new("RGB", (WIDTH_PX, head + sum(film.height + 2 * FRAME_PX + 6 for film in films)), _PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((_MARGIN_PX + _MARK_PX // 2 - 7, 0), f"{number}", _GREY, fonts(_CAPTION_PT)[0], anchor="ma")
    for place, line in enumerate(words):
        draw.text((_MARGIN_PX + _MARK_PX, _LINE_PX * place), line, _INK, font)
    _chip(draw, WIDTH_PX - _MARGIN_PX, note, note_font, RIGHT if row.rank <= 1 else WRONG if row.rank > 10 else _GREY)
    top = head
    for film, right, score in zip(films, row.right, row.scores, strict=True):
        colour = RIGHT if right else WRONG
        left = _MARGIN_PX + _MARK_PX
        whole = film.height + 2 * FRAME_PX
        draw.rectangle((left, top, left + film.width + 2 * FRAME_PX - 1, top + whole - 1), colour)
        block.paste(film, (left + FRAME_PX, top + FRAME_PX))
        middle = _MARGIN_PX + _MARK_PX // 2 - 7
        _mark(draw, (middle, top + whole // 2 - 18), right)
        draw.text((middle, top + whole // 2 + 26), f"{score:.2f}", _GREY, fonts(_SCORE_PT)[0], anchor="mm")
        top += whole + 6
    return block


def _chip(draw: ImageDraw.ImageDraw, right: int, text: str, font: Font, colour: Colour) -> None:
    """White words on a rounded field that ends at `right`."""
    draw.rounded_rectangle((right - int(font.getlength(text)) - 28, 0, right, 36), 18, colour)
    draw.text((right - 14, 18), text, _PAPER, font, anchor="rm")


_TICK = (((-10, 0), (-3, 8), (11, -8)),)
_CROSS = (((-8, -8), (8, 8)), ((-8, 8), (8, -8)))


def _mark(draw: ImageDraw.ImageDraw, centre: tuple[int, int], right: bool) -> None:
    """A disc with a tick or a cross: told apart by shape too, for eyes that do not tell red from green."""
    across, down = centre
    draw.ellipse((across - 22, down - 22, across + 22, down + 22), RIGHT if right else WRONG)
    for stroke in _TICK if right else _CROSS:
        draw.line([(across + x, down + y) for x, y in stroke], _PAPER, 5, joint="curve")


def _film(frames_THWC: NDArray[np.uint8]) -> Image.Image:
    """Frames side by side, each fitted into a square on black."""
    count = max(1, len(frames_THWC))
    side = max(1, min(_FRAME_SIDE_PX, (FILM_PX - _GAP_PX * (count - 1)) // count))
    film = Image.new("RGB", (FILM_PX, side))
    for number, frame_HWC in enumerate(frames_THWC):
        picture = Image.fromarray(np.ascontiguousarray(frame_HWC))
        scale = side / max(picture.size)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        left = number * (side + _GAP_PX) + (side - size[0]) // 2
        film.paste(picture.resize(size, Image.Resampling.BICUBIC), (left, (side - size[1]) // 2))
    return film


def heat_map(similarity_VT: NDArray[np.floating]) -> bytes:
    """Similarities as a PNG, a clip a row and a caption a column; of more than 256 an even choice is shown.

    Colours reach from the map's lowest to its highest values, which the bar states. Where there are as many clips as
    captions the right pairs are taken to be the diagonal, and the heading gives their mean and that of the others.

    Raises:
        ValueError: if the matrix is empty or not one.
    """
    if similarity_VT.ndim != 2 or not similarity_VT.size:
        raise ValueError(f"similarities {similarity_VT.shape}: expected [clips, captions], neither of them 0")
    rows, columns = (_spread(length) for length in similarity_VT.shape)
    shown_VT = np.nan_to_num(similarity_VT[np.ix_(rows, columns)].astype(np.float64))
    low, high = (float(limit) for limit in np.quantile(shown_VT, (0.01, 0.999)))
    part_VT = np.rint(_TONES * np.clip((shown_VT - low) / max(high - low, 1e-9), 0, 1)) / _TONES
    scale = max(1, _MAP_PX // max(part_VT.shape))
    cells_HWC = np.repeat(np.repeat(_colours(part_VT), scale, axis=0), scale, axis=1)
    cells = Image.fromarray(cells_HWC)
    few = _legend(cells, similarity_VT, low, high).quantize(
        256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    return _encoded(few, "PNG", optimize=True)


def _legend(cells: Image.Image, similarity_VT: NDArray[np.floating], low: float, high: float) -> Image.Image:
    """The map with its heading, its axes and a bar of colours."""
    left, top, side = 40, 84, max(cells.height, 240)
    bar = left + cells.width + 20
    page = Image.new("RGB", (max(bar + 110, 640), top + side + 14), _PAPER)
    draw, large, small = ImageDraw.Draw(page), fonts(28)[0], fonts(24)[0]
    clips, captions = similarity_VT.shape
    draw.text((left, 6), _heading(similarity_VT), _INK, large)
    draw.text((left, top - 6), f"{captions} captions", _GREY, small, anchor="ls")
    beside = Image.new("RGB", (side, 32), _PAPER)
    ImageDraw.Draw(beside).text((side - 2, 24), f"{clips} clips", _GREY, small, anchor="rs")
    page.paste(beside.transpose(Image.Transpose.ROTATE_90), (2, top))
    page.paste(cells, (left, top))
    page.paste(Image.fromarray(_colours(np.linspace(1, 0, side)[:, None].repeat(22, axis=1))), (bar, top))
    draw.text((bar + 32, top), f"{high:.2f}", _INK, small, anchor="lt")
    draw.text((bar + 32, top + side), f"{low:.2f}", _INK, small, anchor="ls")
    return page


def _heading(similarity_VT: NDArray[np.floating]) -> str:
    clips, captions = similarity_VT.shape
    if clips != captions or clips < 2:
        return "similarity of clips and captions"
    right = float(np.trace(similarity_VT)) / clips
    others = (float(similarity_VT.sum()) - right * clips) / (clips * (clips - 1))
    return f"right pairs (diagonal) {right:.3f}, others {others:.3f}"


def _spread(length: int) -> NDArray[np.int64]:
    """At most `MAP_CELLS` places of so many, evenly spread; the same for the same length."""
    return np.unique(np.linspace(0, length - 1, min(length, MAP_CELLS)).round().astype(np.int64))


# Viridis at nine even places (Nuñez, Anderton and Renslow 2018; the map is in the public domain).
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 45, 123),
        (59, 82, 139),
        (44, 114, 142),
        (33, 145, 140),
        (40, 174, 128),
        (94, 201, 98),
        (173, 220, 48),
        (253, 231, 37),
    ],
    dtype=np.float64,
)


def _colours(part_HW: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[H, W, C]: 0 is dark blue, 1 yellow."""
    places = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(part_HW, places, _VIRIDIS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()
