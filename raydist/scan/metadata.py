"""The user's own columns: a CSV, JSONL or Parquet file with a `path` column, joined to `videos`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from raydist.clips.matching import named
from raydist.errors import UsageError
from raydist.store import commit, read, schema

_TEXT_PATHS = pyarrow.csv.ConvertOptions(column_types={"path": pa.string()})
"""`007.mp4` without its suffix is still a name, not the number 7."""

_READERS: dict[str, Callable[[str], pa.Table]] = {
    ".csv": lambda file: pyarrow.csv.read_csv(file, convert_options=_TEXT_PATHS),
    ".jsonl": pyarrow.json.read_json,
    ".ndjson": pyarrow.json.read_json,
    ".parquet": pyarrow.parquet.read_table,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What a metadata file holds."""

    file: str
    table: pa.Table
    own: tuple[str, ...]
    """All columns but `path`."""


def read_columns(file: str) -> Columns:
    """Read a metadata file.

    Raises:
        UsageError: unreadable file, no `path` column, no other column, or one that raydist owns.
    """
    suffix = os.path.splitext(file)[1].lower()
    if suffix not in _READERS:
        raise UsageError(f"--metadata {file!r}: expected a file that ends in {', '.join(_READERS)}")
    try:
        table = _READERS[suffix](os.path.expanduser(file))
    except FileNotFoundError as error:
        raise UsageError(f"--metadata {file!r} does not exist: expected a CSV, JSONL or Parquet file") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"--metadata {file!r} cannot be read: {error}") from error
    names = table.column_names
    own = tuple(name for name in names if name != "path")
    if len(own) != len(names) - 1 or len(set(own)) != len(own) or not own:
        raise UsageError(
            f"--metadata {file!r} has the columns {names}: expected one named 'path', and others of your own"
        )
    taken = sorted(set(own) & set(schema.VIDEOS.names))
    if taken:
        raise UsageError(f"--metadata {file!r}: raydist has a column {taken[0]!r} of its own; rename it in the file")
    return Columns(file=file, table=table, own=own)


def add(location: str, columns: Columns, places: Mapping[str, str]) -> list[str]:
    """Join the columns to `videos` by path and return notes. Columns of the same name are replaced.

    A path is a video id, an absolute path, or a path below a root; one that is below two roots matches neither. How
    its letters are composed does not matter.

    Raises:
        UsageError: a path that occurs twice.
    """
    known: set[str] = set()
    for batch in read.scan_batches(location, "videos", ["video_id"]):
        known.update(batch["video_id"].to_pylist())
    matched: dict[str, int] = {}
    unknown: list[str] = []
    for index, path in enumerate(str(value) for value in columns.table["path"].to_pylist()):
        found = named(path, places, known)
        video_id = found.pop() if len(found) == 1 else None
        if video_id is None:
            unknown.append(path)
        elif video_id in matched:
            raise UsageError(f"--metadata {columns.file!r}: {path!r} occurs twice; expected one line a video")
        else:
            matched[video_id] = index
    joined = columns.table.select(list(columns.own)).take(pa.array(list(matched.values()), pa.int64()))
    if matched:
        rows = joined.append_column("video_id", pa.array(list(matched), pa.string()))
        commit.add_columns(location, "videos", rows)
    notes = [f"metadata: {', '.join(columns.own)} for {len(matched):,} videos"]
    if unknown:
        notes.append(f"metadata: {len(unknown):,} lines match no video, such as {unknown[0]!r}")
    return notes
