"""What a run of dedup tells: its report for a person, for tools, and the files that it leaves behind."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist import rendering as reports
from raydist.dedup.files import Redundant
from raydist.records import Report
from raydist.sheets import time_code

PAIR_COLUMNS = (
    "a_id", "b_id", "archive_b", "similarity", "kind", "found_by", "offset_s",
    "a_from_s", "a_to_s", "b_from_s", "b_to_s", "confidence",
)  # fmt: skip
"""Of a pair, as `--pairs` prints them; `a_id` and `b_id` are called `a` and `b`."""

_SHOWN = 10


def as_json(report: Report) -> dict[str, Any]:
    """The figures on the top level, then what every stage reports."""
    whole = reports.as_json(report)
    details = whole.pop("details", {})
    return {**details, **{key: value for key, value in whole.items() if key not in details}}


def render(report: Report) -> str:
    """The report in lines for a person."""
    found = report.details
    lines = [reports.render(report)]
    if "sweep" in found:
        return "\n".join([lines[0], *_sweep(found["sweep"])])
    for overlap in sorted(found["overlaps"], key=lambda row: row["a_from_s"] - row["a_to_s"])[:_SHOWN]:
        lines.append("  " + statement(overlap))
    if len(found["overlaps"]) > _SHOWN:
        lines.append(f"  and {len(found['overlaps']) - _SHOWN:,} more in the table of overlaps")
    files = found["files"]
    going = [file for file in files if file["may_go"]]
    if going:
        size = sum(file["bytes"] for file in going)
        lines.append(f"  {len(going):,} files ({size / 1e9:,.2f} GB) may go: each clip of theirs has a kept neighbour")
    for name, what in (("keep", "files to keep"), ("sheet", "look at the pairs"), ("json", "all of it")):
        if found.get(name):
            lines.append(f"  {what}: {found[name]}")
    return "\n".join(lines)


def statement(overlap: Mapping[str, Any]) -> str:
    """`B 0:30–5:00 is A 1:00–5:30`."""
    spans = {
        side: f"{time_code(overlap[f'{side}_from_s'])}–{time_code(overlap[f'{side}_to_s'])}" for side in ("a", "b")
    }
    other = f"{overlap['archive_b']}: " if overlap["archive_b"] else ""
    return f"{other}{overlap['b_video']} {spans['b']} is {overlap['a_video']} {spans['a']}"


def pair_rows(pairs: pa.Table) -> Iterator[dict[str, Any]]:
    """Pairs as `--pairs` prints them."""
    for row in pairs.select(list(PAIR_COLUMNS)).to_pylist():
        yield {{"a_id": "a", "b_id": "b"}.get(name, name): value for name, value in row.items()}


def file_row(file: Redundant) -> dict[str, Any]:
    """A file for JSON."""
    return {
        "video_id": file.video_id,
        "path": file.path.encode(errors="surrogateescape").decode(errors="replace"),
        "bytes": file.bytes,
        "may_go": file.may_go,
        "spans_s": [list(span) for span in file.spans_s],
        "shown_by": list(file.shown_by),
    }


def write_keep(folder: Path, paths: Sequence[str]) -> Path:
    """The files to keep, a path a line, in the bytes of the file system; in `keep0.txt` a path ends with a NUL."""
    file = folder / "keep.txt"
    (folder / "keep0.txt").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
    file.write_bytes(b"".join(os.fsencode(path) + b"\n" for path in paths))
    return file


def write_groups(folder: Path, groups: pa.Table) -> Path:
    """Groups as CSV, for a spreadsheet."""
    file = folder / "groups.csv"
    columns = ["group", "clip_id", "keep", "kept_by", "archive_b", "why"]
    with open(file, "w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(columns)
        for batch in groups.sort_by(
            [("group", "ascending"), ("keep", "descending"), ("clip_id", "ascending")]
        ).to_batches():
            rows.writerows(zip(*(batch[name].to_pylist() for name in columns), strict=True))
    return file


def write_json(folder: Path, document: Mapping[str, Any]) -> Path:
    """All of a run for other programs."""
    file = folder / "dedup.json"
    file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return file


def _sweep(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"  {'threshold':>9} {'pairs':>12} {'groups':>9} {'redundant':>9}   around it"
    for row in rows:
        head = f"  {row['threshold']:>9.3f} {row['pairs']:>12,} {row['groups']:>9,} {row['redundant']:>9,}   "
        below = [pair for pair in row["examples"] if pair["similarity"] < row["threshold"]]
        for example in (*row["examples"][len(below) :][:1], *below[-1:]):
            yield f"{head}{example['similarity']:.4f}  {example['a']}  {example['b']}"
            head = " " * len(head)
