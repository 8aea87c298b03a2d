"""The sheet of a search: every query with the moments that it found, as a page that plays them or as a picture."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from raydist import address
from raydist.clips.child import Child
from raydist.clips.naming import locate
from raydist.config import Config
from raydist.errors import ResourceError, UsageError
from raydist.progress import bar
from raydist.records import Limits, Span
from raydist.search.results import floors_of
from raydist.sheets import Hit, Row, contact_sheet, picture_sheet
from raydist.store import read, roots

_FRAMES, _SIZE_PX = 8, 320
_COLUMNS = ["video_id", "root", "path", "file_fingerprint", "width", "height", "rotation", "start_offset_s"]

# Shape legend: T frames, H height, W width, 3 colours

Moment = tuple[str, int, int]
"""Video id, start and end in milliseconds."""


def check(out: str) -> Path:
    """The file that a sheet will be.

    Raises:
        UsageError: another suffix than .html and .png, or a folder that is not there.
    """
    file = Path(out).expanduser().absolute()
    if file.suffix.lower() not in (".html", ".htm", ".png"):
        raise UsageError(f"--sheet {out!r}: expected a file that ends in .html or .png")
    if not file.parent.is_dir():
        raise UsageError(f"--sheet {out!r}: the folder {str(file.parent)!r} does not exist")
    return file


def write(config: Config, labels: Sequence[str], hits: pa.Table, out: str) -> Path:
    """Write the sheet of some hits; where it is.

    Args:
        config: `archive`, `roots`, and what decoding may cost.
        labels: of the queries, in the order of `hits`; a query that found nothing is shown too.
        hits: columns of `results.HITS`.

    Raises:
        ResourceError: the file cannot be written.
        UsageError: see `check`; or more hits than a picture can hold.
    """
    file = check(out)
    found = _by_query(labels, hits.to_pylist())
    videos = _videos(config, {hit["video_id"] for own in found for hit in own})
    frames = _frames(config.limits(), videos, {_moment(hit) for own in found for hit in own})
    floors = floors_of(hits) or [None] * len(labels)
    rows = [
        Row(query=label, hits=[_hit(hit, videos, frames) for hit in own], note=_note(own), empty=_empty(floor))
        for label, own, floor in zip(labels, found, floors, strict=True)
    ]
    data = _picture(rows, out) if file.suffix.lower() == ".png" else _page(rows).encode()
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ResourceError(f"--sheet {out!r} cannot be written ({error}): make room there, or name another") from error
    return file


def _page(rows: Sequence[Row]) -> str:
    return contact_sheet(
        "raydist search",
        rows,
        lead=(
            "Moments that were found, best first, with the cosine of their best clip. A moment plays where its file "
            "lies on this machine and the browser knows its codec; its name opens the file."
        ),
        playable=True,
    )


def _picture(rows: Sequence[Row], out: str) -> bytes:
    try:
        return picture_sheet("raydist search", rows)
    except ValueError as error:
        raise UsageError(f"--sheet {out!r}: {error}; write an .html sheet, or ask for fewer hits") from error


def _note(hits: Sequence[Mapping[str, Any]]) -> str:
    videos = len({hit["video_id"] for hit in hits})
    return f"{len(hits)} moments of {videos} videos" if len(hits) > 1 else ""


def _empty(floor: float | None) -> str:
    return "No clip matches." if floor is None else f"Nothing in the archive reaches the cut-off, {floor:.3f}."


def _by_query(labels: Sequence[str], hits: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Hits of each query: a new one begins where the label changes or the rank falls."""
    found: list[list[dict[str, Any]]] = [[] for _ in labels]
    place, last = 0, 0
    for hit in hits:
        if hit["rank"] <= last:
            place += 1
        while labels[place] != hit["query"]:
            place += 1
        found[place].append(hit)
        last = hit["rank"]
    return found


def _moment(hit: Mapping[str, Any]) -> Moment:
    return hit["video_id"], round(hit["start_s"] * 1000), round(hit["end_s"] * 1000)


def _videos(config: Config, video_ids: set[str]) -> dict[str, dict[str, Any]]:
    """Rows of `videos`, with `place`: the file on this machine, or its address."""
    location = config.require_archive()
    places = roots.places(location, config.roots)
    rows = read.rows_by_key(location, "videos", sorted(video_ids), _COLUMNS, key="video_id").to_pylist()
    return {row["video_id"]: {**row, "place": locate(places[row["root"]], row["path"])} for row in rows}


def _hit(
    hit: Mapping[str, Any], videos: Mapping[str, Mapping[str, Any]], frames: Mapping[Moment, NDArray[np.uint8]]
) -> Hit:
    video = videos.get(hit["video_id"], {})
    place = video.get("place", "")
    is_there = address.is_address(place) or os.path.exists(place)
    return Hit(
        clip_id=hit["clip_id"],
        score=hit["score"],
        start_s=hit["start_s"],
        end_s=hit["end_s"],
        frames=frames.get(_moment(hit)),
        caption=hit["caption"] or "",
        path=hit["path"] if is_there else "",
        offset_s=video.get("start_offset_s") or 0.0,
    )


def _frames(
    limits: Limits, videos: Mapping[str, Mapping[str, Any]], wanted: set[Moment]
) -> dict[Moment, NDArray[np.uint8]]:
    """Frames [T, H, W, 3] of moments, each file opened once; what does not decode is left out."""
    found: dict[Moment, NDArray[np.uint8]] = {}
    child = Child(limits)
    try:
        with bar("drawing the sheet", len(wanted)) as progress:
            for name, video in videos.items():
                own = sorted(moment for moment in wanted if moment[0] == name)
                clips = child.decode(
                    video["place"],
                    [Span(start_ms=start_ms, end_ms=end_ms) for _, start_ms, end_ms in own],
                    frames=_FRAMES,
                    size_px=_SIZE_PX,
                    resize="squash-bicubic",
                    hashes=False,
                    fingerprint=video["file_fingerprint"] or "",
                )
                for moment, clip in zip(own, clips, strict=True):
                    if clip.frames is not None:
                        found[moment] = _in_shape(clip.frames, video)
                    progress.advance()
    finally:
        child.close()
    return found


def _in_shape(frames_THW3: NDArray[np.uint8], video: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Squashed frames, in the video's shape again."""
    sides = (video["width"] or 1, video["height"] or 1)
    width, height = sides[::-1] if (video["rotation"] or 0) % 180 else sides
    scale = _SIZE_PX / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames_THW3])
