"""The user's own columns: a CSV, JSONL or Parquet file with a `path` column, joined to `videos`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from raydist.clips import naming
from raydist.errors import UsageError
from raydist.store import commit, read, schema

_READERS = {
    ".csv": pyarrow.csv.read_csv,
    ".jsonl": pyarrow.json.read_json,
    ".ndjson": pyarrow.json.read_json,
    ".parquet": pyarrow.parquet.read_table,
}


def add(location: str, file: str, places: Mapping[str, str]) -> list[str]:
    """Join the file's columns to `videos` by path and return notes. Columns of the same name are replaced.

    A path is a video id, an absolute path, or a path below a root.

    Raises:
        UsageError: unreadable file, no `path` column, a path twice, or a column that raydist owns.
    """
    table = _read(file)
    own = [name for name in table.column_names if name != "path"]
    taken = sorted(set(own) & set(schema.VIDEOS.names))
    if taken:
        raise UsageError(f"--metadata {file!r}: raydist has a column {taken[0]!r} of its own; rename it in the file")
    ids = read.scan_batches(location, "videos", ["video_id", "root", "path"])
    by_path = _by_path(ids, places)
    matched: dict[str, int] = {}
    unknown: list[str] = []
    for index, path in enumerate(str(value) for value in table["path"].to_pylist()):
        video_id = by_path.get(path) or by_path.get(os.path.realpath(path) if os.path.isabs(path) else path)
        if video_id is None:
            unknown.append(path)
        elif video_id in matched:
            raise UsageError(f"--metadata {file!r}: {path!r} occurs twice; expected one line a video")
        else:
            matched[video_id] = index
    joined = table.select(own).take(pa.array(list(matched.values()), pa.int64()))
    commit.add_columns(location, "videos", joined.append_column("video_id", pa.array(list(matched), pa.string())))
    notes = [f"metadata: {', '.join(own)} for {len(matched):,} videos"]
    if unknown:
        notes.append(f"metadata: {len(unknown):,} lines match no video, such as {unknown[0]!r}")
    return notes


def _read(file: str) -> pa.Table:
    suffix = os.path.splitext(file)[1].lower()
    if suffix not in _READERS:
        raise UsageError(f"--metadata {file!r}: expected a file that ends in {', '.join(_READERS)}")
    try:
        table = _READERS[suffix](file)
    except FileNotFoundError as error:
        raise UsageError(f"--metadata {file!r} does not exist: expected a CSV, JSONL or Parquet file") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"--metadata {file!r} cannot be read: {error}") from error
    if "path" not in table.column_names:
        raise UsageError(f"--metadata {file!r} has the columns {table.column_names}: expected one named 'path'")
    return table


def _by_path(batches: Iterable[pa.RecordBatch], places: Mapping[str, str]) -> dict[str, str]:
    """Every way to name a video -> its id; a path below two roots names none."""
    names: dict[str, str] = {}
    relative: dict[str, list[str]] = {}
    for batch in batches:
        for row in batch.to_pylist():
            names[row["video_id"]] = row["video_id"]
            names[naming.locate(places[row["root"]], row["path"])] = row["video_id"]
            relative.setdefault(row["path"], []).append(row["video_id"])
    names.update({path: ids[0] for path, ids in relative.items() if len(ids) == 1})
    return names
