"""The review sheet: pairs side by side, the most doubtful first, and what a person decides about them.

Takes     pairs, decisions, the files that they lie in
Gives     one self-contained HTML page; it saves decisions as a list that `raydist dedup --decisions` reads
Promises  names are escaped: a file called `<script>` is shown, not run
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.clips.decoder import Geometry
from raydist.clips.naming import locate
from raydist.config import Config
from raydist.dedup.decisions import Said
from raydist.dedup.groups import Rules
from raydist.dedup.summary import statement
from raydist.frames.pool import FileSpans, Pool
from raydist.records import Span
from raydist.sheets import THUMB_HEIGHT_PX, THUMB_WIDTH_PX, link_of, strip, time_code
from raydist.store import read, roots

# Shape legend: T frames, H height, W width, 3 colours

PAIRS_SHOWN = 60
_FRAMES = 6
_CHILDREN = 2
_TEMPLATE = Path(__file__).with_name("review.html")
_STATEMENTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Pairs under a heading."""

    heading: str
    pairs: Sequence[Mapping[str, Any]]
    """Rows of `schema.PAIRS`."""
    note: str = ""


def write(
    file: str | Path,
    config: Config,
    pairs: pa.Table,
    said: Said,
    rules: Rules,
    reference: str,
    details: Mapping[str, Any],
) -> Path:
    """The review sheet of a run; where it is.

    Args:
        file: where to write it.
        config: the archive, its roots, limits of decoding.
        pairs: rows of `schema.PAIRS`, the most doubtful first.
        said: decisions.
        rules: which pairs count.
        reference: location of the other archive; "" for none.
        details: figures of the run.
    """
    shown = pairs.to_pylist()
    what = "copies" if rules.copies_only else "pairs"
    return write_parts(
        file,
        config,
        [Part(heading="Pairs, the most doubtful first", pairs=shown, note=_note(len(shown), details["pairs_known"]))],
        said,
        reference,
        title="Duplicates",
        lead=f"Two clips a card. Groups and keepers follow from {what}; say what is wrong, save, and run dedup again.",
        facts=[(f"{details[name]:,}", name) for name in ("clips", "pairs", "copies", "groups", "redundant")],
        statements=[statement(row) for row in details["overlaps"][:_STATEMENTS]],
    )


def doubtful(pairs: pa.Table, threshold: float) -> pa.Table:
    """The most doubtful pairs: those nearest to the border between copy and look-alike, unread ones to the threshold.

    Args:
        pairs: `a`, `b`, `archive_b`, `confidence`, `similarity` of all that are stored.
        threshold: of the vectors.
    """
    sure = np.abs(pc.fill_null(pairs["confidence"], float("nan")).to_numpy() - 0.5)
    cosines = pc.fill_null(pairs["similarity"], 1.0).to_numpy()
    vague = np.minimum(np.abs(cosines - threshold) / (1 - threshold), 1.0) / 2
    order = np.argsort(np.where(np.isnan(sure), vague, sure), kind="stable")[:PAIRS_SHOWN]
    return pairs.take(pa.array(order))


def write_parts(
    file: str | Path,
    config: Config,
    parts: Sequence[Part],
    said: Said,
    reference: str,
    *,
    title: str,
    lead: str,
    facts: Sequence[tuple[str, str]] = (),
    statements: Sequence[str] = (),
) -> Path:
    """A sheet of pairs; where it is."""
    stretches = _stretches(parts)
    pictures = _Pictures(config, reference)
    strips = pictures.of(stretches)
    number = iter(range(len(stretches)))
    shown = [
        {
            "heading": part.heading,
            "note": part.note,
            "pairs": [_card(pair, said, strips, pictures, next(number)) for pair in part.pairs],
        }
        for part in parts
    ]
    path = Path(file).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    html = _template().render(
        title=title, lead=lead, facts=facts, statements=statements, parts=shown, nonce=secrets.token_urlsafe(16)
    )
    path.write_text(html, encoding="utf-8")
    return path


def _note(shown: int, count: int) -> str:
    return f"{shown:,} of {count:,} pairs." if shown < count else ""


Stretch = tuple[str, str, float, float]
"""Archive ("" is this one), video id, start and end in the file in seconds."""


def _stretch(pair: Mapping[str, Any], side: str) -> Stretch:
    """What of a clip is shown: the overlap of copies, else all of it."""
    start, end = pair[f"{side}_from_s"], pair[f"{side}_to_s"]
    if start is None or end is None or end - start < 0.1:
        start, end = map(float, pair[f"{side}_id"].rpartition("#t=")[2].split(","))
    return (pair["archive_b"] if side == "b" else "", pair[f"{side}_video"], start, end)


def _stretches(parts: Sequence[Part]) -> list[Stretch]:
    return [_stretch(pair, side) for part in parts for pair in part.pairs for side in "ab"]


class _Pictures:
    """Strips of frames of stretches of files, here and in the other archive."""

    def __init__(self, config: Config, reference: str) -> None:
        self._config = config
        self._locations = {"": config.require_archive(), "b": reference or config.require_archive()}
        self._places = {side: roots.places(where, config.roots) for side, where in self._locations.items()}
        self._files: dict[tuple[str, str], tuple[str, str]] = {}

    def path(self, stretch: Stretch) -> str:
        """The file, for a link."""
        path, _ = self._files.get(stretch[:2], ("", ""))
        return path.encode(errors="surrogateescape").decode(errors="replace")

    def of(self, stretches: Sequence[Stretch]) -> dict[Stretch, str]:
        """A strip of each stretch that decodes, as a `data:` URI."""
        for archive in {stretch[0] for stretch in stretches}:
            self._look_up(archive, sorted({stretch[1] for stretch in stretches if stretch[0] == archive}))
        by_file: dict[tuple[str, str], dict[int, Span]] = defaultdict(dict)
        for number, (archive, video, start, end) in enumerate(stretches):
            if (archive, video) in self._files:
                by_file[archive, video][number] = Span(start_ms=round(1000 * start), end_ms=round(1000 * end))
        files = [FileSpans(*self._files[name], _sorted(spans)) for name, spans in by_file.items()]
        geometry = Geometry(frames=_FRAMES, sampling="exact", size_px=THUMB_WIDTH_PX, resize="squash-bicubic")
        pool = Pool(self._config.limits(), _CHILDREN)
        try:
            return {stretches[number]: strip(_shaped(frames)) for number, frames in pool.decode(files, geometry)}
        finally:
            pool.close()

    def _look_up(self, archive: str, videos: Sequence[str]) -> None:
        side = "b" if archive else ""
        columns = ["video_id", "root", "path", "file_fingerprint"]
        for row in read.rows_by_key(self._locations[side], "videos", videos, columns, key="video_id").to_pylist():
            path = locate(self._places[side][row["root"]], row["path"])
            self._files[archive, row["video_id"]] = (path, row["file_fingerprint"])


def _sorted(spans: Mapping[int, Span]) -> dict[int, Span]:
    """In the order of the file, as a decoder goes through it."""
    return dict(sorted(spans.items(), key=lambda item: (item[1].start_ms, item[1].end_ms)))


def _shaped(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Square pictures in the shape of thumbnails."""
    rows = np.linspace(0, frames_THWC.shape[1] - 1, THUMB_HEIGHT_PX).round().astype(int)
    return np.ascontiguousarray(frames_THWC[:, rows])


def _card(
    pair: Mapping[str, Any], said: Said, strips: Mapping[Stretch, str], pictures: _Pictures, number: int
) -> dict[str, Any]:
    sides = {}
    for side in "ab":
        stretch = _stretch(pair, side)
        link = link_of(pictures.path(stretch))
        sides[side] = {
            "clip_id": pair[f"{side}_id"],
            "archive": stretch[0],
            "span": f"{time_code(stretch[2])}–{time_code(stretch[3])}",
            "strip": strips.get(stretch, ""),
            "link": f"{link}#t={stretch[2]:g},{stretch[3]:g}" if link else "",
        }
    verdict = said.of_pair(pair["a_id"], pair["b_id"], pair["archive_b"])
    shown = {name: pair[name] for name in ("kind", "similarity", "confidence", "offset_s", "archive_b")}
    return {**shown, **sides, "said": verdict, "number": number}


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
