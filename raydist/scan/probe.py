"""Probing files in parallel: units of work, and the Ray actor that looks at each file in a child process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from raydist.clips.child import Child
from raydist.clips.naming import locate
from raydist.errors import SourceError
from raydist.records import Limits, Probe
from raydist.scan.walk import Candidate

FILES_A_UNIT = 32
"""A probe takes some milliseconds; a unit pays Ray's overhead of about ten once."""

_FILE = pa.struct(
    [
        ("video_id", pa.string()),
        ("root", pa.string()),
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("modified_ns", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
UNITS = pa.schema([("files", pa.list_(_FILE))])

PROBED = pa.schema(
    [
        *_FILE,
        ("file_fingerprint", pa.string()),
        ("duration_ms", pa.int64()),
        ("frames", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("rotation", pa.int32()),
        ("fps", pa.float64()),
        ("codec", pa.string()),
        ("container", pa.string()),
        ("bit_rate", pa.int64()),
        ("has_audio", pa.bool_()),
        ("start_offset_s", pa.float64()),
        ("gaps_ms", pa.list_(pa.list_(pa.int64(), 2))),
    ]
)


def units(candidates: Iterable[Candidate], files_a_table: int = 4096) -> Iterator[pa.Table]:
    """Pack files into units, a table of many at a time."""
    packed: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    for candidate in candidates:
        files.append({name: getattr(candidate, name) for name in _FILE.names})
        if len(files) == FILES_A_UNIT:
            packed.append({"files": files})
            files = []
        if len(packed) * FILES_A_UNIT >= files_a_table:
            yield pa.Table.from_pylist(packed, UNITS)
            packed = []
    if files:
        packed.append({"files": files})
    if packed:
        yield pa.Table.from_pylist(packed, UNITS)


class Prober:
    """A Ray actor: units in, a row for each file out."""

    def __init__(self, roots: Mapping[str, str], limits: Limits) -> None:
        self._roots = dict(roots)
        self._child = Child(limits)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Probe the files of all units."""
        rows = [self._probe(file) for unit in table["files"].to_pylist() for file in unit]
        return pa.Table.from_pylist(rows, PROBED)

    def close(self) -> None:
        """End the child process."""
        self._child.close()

    def _probe(self, file: dict[str, Any]) -> dict[str, Any]:
        if file["reason"]:
            return file
        try:
            probe = self._child.probe(locate(self._roots[file["root"]], file["path"]))
        except SourceError as error:
            return {**file, "reason": error.reason, "detail": error.detail}
        return {**file, **{name: getattr(probe, name) for name in Probe.__slots__}}
