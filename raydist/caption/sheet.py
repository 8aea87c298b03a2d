"""The page of a review of captions: suspects first, what is repeated, what was cut, and clips drawn at random.

Promises  one self-contained page without a script; names and captions are escaped: a file called `<script>` is shown
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa

from raydist.caption.present import Present
from raydist.caption.repeated import Repeated
from raydist.caption.suspects import Doubts, Suspect
from raydist.clips.decoder import Geometry
from raydist.clips.naming import locate
from raydist.config import Config
from raydist.errors import ResourceError
from raydist.frames.pool import FileSpans, Pool
from raydist.records import Span
from raydist.sheets import THUMB_HEIGHT_PX, THUMB_WIDTH_PX, link_of, strip, time_code
from raydist.store import read, roots

_FRAMES = 6
_CHILDREN = 2
_LINES = 60
"""Rows of a table, and of a list."""
_LETTERS = 200
_TEMPLATE = Path(__file__).with_name("review.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the page shows; rows are those of `Present`."""

    doubts: Doubts | None
    moved: Sequence[str]
    repeated: Repeated
    cut: Sequence[int]
    """Rows of captions."""
    sample: Sequence[int]
    """Rows of clips."""
    most: int
    """Suspects."""


def write(path: Path, config: Config, there: Present, shown: Shown) -> None:
    """Write the page.

    Raises:
        ResourceError: it cannot be written.
    """
    suspects = shown.doubts.suspects[: shown.most] if shown.doubts else ()
    rows = {int(there.clip_of[each.caption]) for each in suspects} | {each.other for each in suspects} - {-1}
    films = _Films(config, there, sorted(rows | set(shown.sample)))
    captions = _captions(there, shown.doubts, sorted(rows | set(shown.sample)))
    clips = len(np.unique(there.clip_of))
    facts = [(f"{there.captions.num_rows:,}", "captions"), (f"{clips:,}", "clips")]
    if shown.doubts is not None:
        facts += [(f"{len(shown.doubts.suspects):,}", "suspects"), (f"{len(shown.moved):,}", "shifted videos")]
    facts += [(f"{shown.repeated.count:,}", "repeated"), (f"{len(shown.cut):,}", "cut")]
    page = _template().render(
        facts=facts,
        compared=shown.doubts is not None,
        moved=shown.moved[:_LINES],
        suspects=[
            {
                **films.card(int(there.clip_of[each.caption])),
                "caption": there.captions["caption"][each.caption].as_py(),
                "origin": there.captions["origin"][each.caption].as_py(),
                "says": _says(each),
                "other": films.card(each.other) if each.other >= 0 else None,
            }
            for each in suspects
        ],
        suspect_count=len(shown.doubts.suspects) if shown.doubts else 0,
        repeats=[
            {"caption": short(each.caption), "clips": f"{each.clips:,}", "forms": each.forms, "ids": each.clip_ids}
            for each in shown.repeated.repeats[:_LINES]
        ],
        repeat_count=shown.repeated.count,
        alone=f"{shown.repeated.clips:,} of {clips:,} clips ({shown.repeated.clips / max(1, clips):.0%})",
        monotonous=[
            {"video": name, "clips": f"{count:,}", "caption": short(caption)}
            for name, count, caption in shown.repeated.videos[:_LINES]
        ],
        cut=[
            {
                "clip_id": there.clips["clip_id"][int(there.clip_of[row])].as_py(),
                "caption": there.captions["caption"][row].as_py(),
            }
            for row in shown.cut[:_LINES]
        ],
        cut_count=len(shown.cut),
        sample=[{**films.card(row), "captions": captions[row]} for row in shown.sample],
    )
    _replace(path, page)


def short(text: str) -> str:
    """The beginning of a long caption."""
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 2]} …"


def _says(each: Suspect) -> str:
    if each.other >= 0:
        cosines = f"cosine {each.other_similarity:.2f} there, {each.similarity:.2f} here"
        return f"fits another clip of the video better: {cosines}"
    return f"{each.better:.0%} of random clips fit it better; cosine {each.similarity:.2f}"


def _captions(there: Present, doubts: Doubts | None, rows: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Of clips: their captions, as the page shows them."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for caption in np.flatnonzero(np.isin(there.clip_of, list(rows))).tolist():
        row = there.captions.slice(caption, 1).to_pylist()[0]
        similarity = float(doubts.similarity_N[caption]) if doubts is not None else float("nan")
        cosine = f"{similarity:.2f}" if np.isfinite(similarity) else ""
        found[int(there.clip_of[caption])].append({**row, "cosine": cosine})
    return found


class _Films:
    """Strips of frames of some clips, and what else a card shows of them."""

    def __init__(self, config: Config, there: Present, rows: Sequence[int]) -> None:
        location = config.require_archive()
        wanted = there.clips.take(pa.array(rows, pa.int64())).to_pylist()
        self._clips: Mapping[int, dict[str, Any]] = dict(zip(rows, wanted, strict=True))
        places = roots.places(location, config.roots)
        videos = sorted({clip["video_id"] for clip in wanted})
        columns = ["video_id", "root", "path", "file_fingerprint"]
        self._files = {
            row["video_id"]: (locate(places[row["root"]], row["path"]), row["file_fingerprint"])
            for row in read.rows_by_key(location, "videos", videos, columns, key="video_id").to_pylist()
            if row["root"] in places
        }
        spans: dict[str, dict[int, Span]] = defaultdict(dict)
        for row, clip in self._clips.items():
            if clip["video_id"] in self._files:
                spans[clip["video_id"]][row] = Span(start_ms=clip["start_ms"], end_ms=clip["end_ms"])
        files = [FileSpans(*self._files[video], own) for video, own in spans.items()]
        geometry = Geometry(frames=_FRAMES, sampling="exact", size_px=THUMB_WIDTH_PX, resize="squash-bicubic")
        pool = Pool(config.limits(), _CHILDREN)
        lines = np.linspace(0, THUMB_WIDTH_PX - 1, THUMB_HEIGHT_PX).round().astype(int)
        try:
            self._strips = {
                row: strip(np.ascontiguousarray(frames[:, lines])) for row, frames in pool.decode(files, geometry)
            }
        finally:
            pool.close()

    def card(self, row: int) -> dict[str, Any]:
        """Of one clip."""
        clip = self._clips[row]
        start_s, end_s = clip["start_ms"] / 1000, clip["end_ms"] / 1000
        path, _ = self._files.get(clip["video_id"], ("", ""))
        link = link_of(path.encode(errors="surrogateescape").decode(errors="replace"))
        return {
            "clip_id": clip["clip_id"],
            "span": f"{time_code(start_s)}–{time_code(end_s)}",
            "strip": self._strips.get(row, ""),
            "link": f"{link}#t={start_s:g},{end_s:g}" if link else "",
        }


def _replace(path: Path, page: str) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8", errors="replace")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ResourceError(
            f"the page {str(path)!r} cannot be written ({error}): make room, or name another"
        ) from error


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
