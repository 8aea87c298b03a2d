"""Hits as a table, and in lines for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from raydist.clips import naming
from raydist.config import Config
from raydist.search.found import Asked, Row
from raydist.store import read, roots

HITS = pa.schema(
    {
        "query": pa.string(),
        "rank": pa.int32(),
        "score": pa.float32(),
        "clip_id": pa.string(),
        "video_id": pa.string(),
        "path": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "caption": pa.string(),
    }
)

FLOORS = b"raydist:floors"
"""Metadata of a table of hits: a JSON list, for each query the least cosine of a hit, or null."""


def assembled(location: str, config: Config, asked: Sequence[Asked], found: Sequence[Sequence[Row]]) -> pa.Table:
    """Hits with where their file is on this machine and what their caption says, query after query."""
    hits = [hit for own in found for hit in own]
    paths = _paths(location, config, {hit["video_id"] for hit in hits})
    captions = _captions(location, hits)
    rows = [
        {
            "query": one.query.label,
            "rank": rank,
            **{name: hit[name] for name in ("score", "clip_id", "video_id", "start_s", "end_s")},
            "path": paths.get(hit["video_id"], ""),
            "caption": captions.get((hit["clip_key"], hit["fingerprint"])),
        }
        for one, own in zip(asked, found, strict=True)
        for rank, hit in enumerate(own, start=1)
    ]
    floors = json.dumps([one.floor for one in asked]).encode()
    return pa.Table.from_pylist(rows, schema=HITS).replace_schema_metadata({FLOORS: floors})


def floors_of(hits: pa.Table) -> list[float | None]:
    """For each query, the least cosine that a hit had to have; None where there was no cut-off."""
    floors: list[float | None] = json.loads((hits.schema.metadata or {}).get(FLOORS, b"[]"))
    return floors


def _paths(location: str, config: Config, video_ids: set[str]) -> dict[str, str]:
    places = roots.places(location, config.roots)
    rows = read.rows_by_key(location, "videos", sorted(video_ids), ["video_id", "root", "path"], key="video_id")
    # A name that is not UTF-8 cannot stand in a table of strings: it is shown with replacement characters.
    return {
        row["video_id"]: naming.locate(places[row["root"]], row["path"])
        .encode(errors="surrogateescape")
        .decode(errors="replace")
        for row in rows.to_pylist()
    }


def _captions(location: str, hits: Sequence[Row]) -> dict[tuple[int, str], str]:
    if read.open_table(location, "captions") is None:
        return {}
    keys = sorted({hit["clip_key"] for hit in hits})
    rows = read.rows_by_key(location, "captions", keys, ["clip_key", "fingerprint", "number", "caption"])
    ordered = sorted(rows.to_pylist(), key=lambda row: -row["number"])
    return {(row["clip_key"], row["fingerprint"]): row["caption"] for row in ordered}


def render(hits: Sequence[Mapping[str, Any]]) -> str:
    """Hits in lines for a person; one that is more than its clip says from when to when."""
    if not hits:
        return "no clip matches"
    lines = []
    for hit in hits:
        if hit.get("query") and hit["rank"] == 1:
            lines.append(f"{hit['query']}:")
        caption = f"  {hit['caption']}" if hit["caption"] else ""
        lines.append(f"{hit['rank']:>4}  {hit['score']:.3f}  {_printable(hit['clip_id'])}{_moment(hit)}{caption}")
    return "\n".join(lines)


def _moment(hit: Mapping[str, Any]) -> str:
    _, span = naming.parse_clip_id(hit["clip_id"])
    start_ms, end_ms = (round(hit[name] * 1000) for name in ("start_s", "end_s"))
    if (start_ms, end_ms) == (span.start_ms, span.end_ms):
        return ""
    return f"  ({naming.format_seconds(start_ms)}-{naming.format_seconds(end_ms)} s)"


def _printable(text: str) -> str:
    """A name on one line of a terminal, whatever bytes it holds."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
