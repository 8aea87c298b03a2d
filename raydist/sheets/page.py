"""The page: HTML from values, without a script or anything outside itself but the films that it plays."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from raydist import address

# Shape legend: T frames, H height, W width, C = 3 colours

THUMB_WIDTH_PX, THUMB_HEIGHT_PX = 160, 120
_POSTER_WIDTH_PX, _POSTER_HEIGHT_PX = 320, 240
_STILLS = 4
_PLAYED = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".ogv", ".3gp")
"""What some browser plays, by its suffix; what is in it decides."""
_TEMPLATE = Path(__file__).with_name("sheets.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One moment that was found."""

    clip_id: str
    score: float
    """Cosine."""
    start_s: float
    end_s: float
    frames: NDArray[np.uint8] | None = None
    """[T, H, W, 3] RGB, or None where the clip could not be decoded."""
    caption: str = ""
    right: bool | None = None
    """Whether it is what was asked for, where that is known."""
    path: str = ""
    """The file on this machine, for the link; empty: no link."""
    offset_s: float = 0.0
    """The container's time of the first frame, from which players count."""
    label: str = ""
    """Shown in the corner of the picture; empty: its place in the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A query and its hits, best first."""

    query: str
    hits: Sequence[Hit]
    note: str = ""
    """Said beside the query, such as the rank of the right clip."""
    heading: str = ""
    """Of the part of the page that begins with this row; empty: it goes on."""
    empty: str = ""
    """Said where there are no hits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Figures or names in rows, above the queries."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False
    """Whether a person has to open it."""


def contact_sheet(
    title: str,
    rows: Sequence[Row],
    *,
    lead: str = "",
    facts: Sequence[tuple[str, str]] = (),
    tables: Sequence[Table] = (),
    playable: bool = False,
) -> str:
    """The page as HTML.

    Args:
        title: heading of the page.
        rows: one for each query.
        lead: a sentence below the heading.
        facts: (figure, what it counts), shown as tiles, such as ("93.8%", "right clip first").
        tables: shown before the rows.
        playable: each moment can be played from its file, by a browser that knows the codec, as long as the file is
            where it was; else pictures move under the pointer.
    """
    return _template().render(
        title=title,
        playable=playable,
        lead=lead,
        facts=facts,
        tables=tables,
        rows=[(row, [_card(rank, hit, playable) for rank, hit in enumerate(row.hits, start=1)]) for row in rows],
    )


def time_code(seconds: float) -> str:
    """`1:02:03.5`; hours only where there are some, tenths only where they are not 0."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    whole, part = divmod(rest, 10)
    shown = f"{minutes:02}" if hours else f"{minutes}"
    return f"{hours}:" * bool(hours) + f"{shown}:{whole:02}" + f".{part}" * bool(part)


def strip(frames_THWC: NDArray[np.uint8]) -> str:
    """All frames side by side as one JPEG, as a `data:` URI; each is fitted into a thumbnail on black."""
    film = Image.new("RGB", (THUMB_WIDTH_PX * len(frames_THWC), THUMB_HEIGHT_PX))
    for number, frame_HWC in enumerate(frames_THWC):
        film.paste(fitted(frame_HWC, THUMB_WIDTH_PX, THUMB_HEIGHT_PX), (number * THUMB_WIDTH_PX, 0))
    return _as_uri(film)


def fitted(frame_HWC: NDArray[np.uint8], width_px: int, height_px: int) -> Image.Image:
    """The whole frame in its own shape, on black."""
    picture = Image.fromarray(np.ascontiguousarray(frame_HWC))
    scale = min(width_px / picture.width, height_px / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    page = Image.new("RGB", (width_px, height_px))
    page.paste(picture.resize(size, Image.Resampling.LANCZOS), ((width_px - size[0]) // 2, (height_px - size[1]) // 2))
    return page


def _as_uri(film: Image.Image) -> str:
    file = io.BytesIO()
    film.save(file, "JPEG", quality=72, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    rank: int
    hit: Hit
    count: int
    still: float
    """Where the middle frame is on the film, in percent of its way."""
    stills: list[float]
    """The same for the frames that are shown below it, first to last."""
    film: Markup
    poster: Markup
    """The middle frame, large, for a film that is not played yet."""
    link: str
    plays: bool
    """Whether a film stands in the place of the moving pictures."""
    start: str
    end: str


def _card(rank: int, hit: Hit, playable: bool) -> _Card:
    frames = hit.frames if hit.frames is not None and len(hit.frames) else None
    # The URI is base64 that was made here; it is the only text that goes into the page as it is.
    film = Markup(f"url({strip(frames)})") if frames is not None else Markup("none")
    count = 0 if frames is None else len(frames)
    link = link_of(hit.path)
    plays = playable and bool(link) and Path(hit.path).suffix.lower() in _PLAYED
    middle = frames[count // 2] if plays and frames is not None else None
    return _Card(
        rank=rank,
        hit=hit,
        count=count,
        still=100 * (count // 2) / max(1, count - 1),
        stills=[100 * round(k * (count - 1) / (_STILLS - 1)) / max(1, count - 1) for k in range(_STILLS)],
        film=film,
        poster=Markup("" if middle is None else _as_uri(fitted(middle, _POSTER_WIDTH_PX, _POSTER_HEIGHT_PX))),
        link=link and link + _fragment(hit),
        plays=plays,
        start=time_code(hit.start_s),
        end=time_code(hit.end_s),
    )


def _fragment(hit: Hit) -> str:
    """The span as a player counts it (https://www.w3.org/TR/media-frags/)."""
    start_ms, end_ms = (round((time + hit.offset_s) * 1000) for time in (hit.start_s, hit.end_s))
    return f"#t={max(0, start_ms) / 1000:.12g},{max(0, end_ms) / 1000:.12g}"


def link_of(path: str) -> str:
    """What a browser opens; empty for what it cannot."""
    if address.is_address(path):
        return path if address.scheme_of(path) in address.WEB else ""
    return Path(path).as_uri() if Path(path).is_absolute() else ""


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
