"""The sheet as one picture: each hit a strip of frames with its time code, score and caption beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from raydist.sheets.letters import cleaned, font_for, fonts, lines
from raydist.sheets.page import Hit, Row, fitted, time_code

WIDTH_PX = 1280
_MARGIN_PX, _GAP_PX, _BETWEEN_PX = 24, 12, 28
_FRAME_WIDTH_PX, _FRAME_HEIGHT_PX, _FRAMES = 192, 144, 4
_TITLE_PT, _QUERY_PT, _FIGURE_PT, _TEXT_PT, _NAME_PT = 34, 26, 22, 19, 15
_INK, _GREY, _LINE, _PAPER = (28, 29, 34), (104, 106, 117), (222, 222, 228), (255, 255, 255)
CLIPS = "raydist:clip"
"""Text entries of the file: the ids of the clips on it."""

MAX_HEIGHT_PX = 60_000
"""A PNG of more is one that few programs open."""


def picture_sheet(title: str, rows: Sequence[Row]) -> bytes:
    """A PNG of `WIDTH_PX` pixels: all queries below each other, each over its hits.

    Raises:
        ValueError: if it would be higher than `MAX_HEIGHT_PX`.
    """
    head = _words(title, _TITLE_PT, _INK, WIDTH_PX - 2 * _MARGIN_PX, 2)
    blocks = [head, *(_block(row) for row in rows)]
    height = sum(block.height for block in blocks) + _BETWEEN_PX * (len(blocks) - 1) + 2 * _MARGIN_PX
    if height > MAX_HEIGHT_PX:
        raise ValueError(f"a picture of {height:,} pixels, expected at most {MAX_HEIGHT_PX:,}")
    page = Image.new("RGB", (WIDTH_PX, height), _PAPER)
    draw, top = ImageDraw.Draw(page), _MARGIN_PX
    for number, block in enumerate(blocks):
        if number:
            line = top - _BETWEEN_PX // 2
            draw.line((_MARGIN_PX, line, WIDTH_PX - _MARGIN_PX, line), _LINE, 1)
        page.paste(block, (_MARGIN_PX, top))
        top += block.height + _BETWEEN_PX
    file = io.BytesIO()
    shown = PngInfo()
    for name in dict.fromkeys(hit.clip_id for row in rows for hit in row.hits):
        shown.add_itxt(CLIPS, name)
    page.save(file, "PNG", optimize=True, pnginfo=shown)
    return file.getvalue()


def _block(row: Row) -> Image.Image:
    """A query over its hits."""
    width = WIDTH_PX - 2 * _MARGIN_PX
    parts = [_words(row.query, _QUERY_PT, _INK, width, 2)]
    if row.note:
        parts.append(_words(row.note, _TEXT_PT, _GREY, width, 1))
    parts += [_hit(rank, hit, width) for rank, hit in enumerate(row.hits, start=1)]
    if not row.hits:
        parts.append(_words(row.empty or "Nothing was found.", _TEXT_PT, _GREY, width, 2))
    block = Image.new("RGB", (width, sum(part.height + _GAP_PX for part in parts) - _GAP_PX), _PAPER)
    top = 0
    for part in parts:
        block.paste(part, (0, top))
        top += part.height + _GAP_PX
    return block


def _hit(rank: int, hit: Hit, width: int) -> Image.Image:
    """Four frames, and what is to say of them."""
    film = _FRAMES * _FRAME_WIDTH_PX + (_FRAMES - 1) * 2
    card = Image.new("RGB", (width, _FRAME_HEIGHT_PX), _PAPER)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, film - 1, _FRAME_HEIGHT_PX - 1), (0, 0, 0))
    count = 0 if hit.frames is None else len(hit.frames)
    if hit.frames is not None and count:
        for place in range(_FRAMES):
            frame_HWC = hit.frames[round(place * (count - 1) / (_FRAMES - 1))]
            picture = fitted(frame_HWC, _FRAME_WIDTH_PX, _FRAME_HEIGHT_PX)
            card.paste(picture, (place * (_FRAME_WIDTH_PX + 2), 0))
    else:
        draw.text((film // 2, _FRAME_HEIGHT_PX // 2), "no picture", _LINE, fonts(_TEXT_PT)[0], anchor="mm")
    left = film + 18
    room = width - left
    figures = f"{hit.label or rank} | {time_code(hit.start_s)} - {time_code(hit.end_s)} | {hit.score:.3f}"
    texts = [(figures, _FIGURE_PT, _INK, 1), (hit.caption, _TEXT_PT, _INK, 2), (hit.clip_id, _NAME_PT, _GREY, 3)]
    top = 0
    for text, size, colour, count in texts:
        if text:
            words = _words(text, size, colour, room, count)
            card.paste(words, (left, top))
            top += words.height + 4
    return card


def _words(text: str, size: int, colour: tuple[int, int, int], width: int, count: int) -> Image.Image:
    """Some lines of text on paper."""
    plain = cleaned(text) or " "
    font = font_for(plain, size)
    found = lines(plain, font, width, count)
    step = round(size * 1.3)
    picture = Image.new("RGB", (width, step * len(found)), _PAPER)
    draw = ImageDraw.Draw(picture)
    for place, line in enumerate(found):
        draw.text((0, place * step), line, colour, font)
    return picture
