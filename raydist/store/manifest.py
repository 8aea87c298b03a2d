"""A run's work, a row a unit, in Parquet files of the archive: neither the driver nor Ray's object store grows with it.

Writes    `runs/<run>/manifest/part-*.parquet`, deleted when the run is over
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raydist.errors import StoreError
from raydist.runtime import units_of
from raydist.store import buckets, objects, runs
from raydist.store.location import is_uri, join
from raydist.store.patience import Patience, patiently

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

_NAME = "manifest"
_LEFT = f"*/{_NAME}/part-*.parquet"


class Manifest:
    """Units of work in Parquet files of a bounded size, in a folder or a bucket; a row is what one task gets."""

    def __init__(self, place: str | Path, rows_per_file: int = 4096) -> None:
        self.place = str(place)
        self.rows = 0
        self._written: list[str] = []
        self._rows_per_file = rows_per_file

    @classmethod
    def of_run(cls, location: str, run: str, rows_per_file: int = 4096) -> Manifest:
        """A run's manifest in the archive, which workers on every machine read."""
        return cls(join(location, runs.FOLDER, run, _NAME), rows_per_file)

    def write(self, tables: Iterable[pa.Table]) -> Manifest:
        """Write all units; tables may be of any size.

        Raises:
            AwayError: the bucket's server stays away for as long as commits wait for it.
        """
        import pyarrow.parquet as pq

        number = len(self._written)
        for table in tables:
            for start in range(0, table.num_rows, self._rows_per_file):
                part = table.slice(start, self._rows_per_file)
                data = io.BytesIO()
                pq.write_table(part, data)
                name, written = f"part-{number:06d}.parquet", data.getvalue()
                # What was planned until here is not planned anew for a restart of the server.
                patiently(partial(objects.replace, self.place, name, written), Patience(tries=1))
                self._written.append(name)
                self.rows += part.num_rows
                number += 1
        return self

    @staticmethod
    def sweep(location: str, others: Callable[[], Sequence[object]]) -> None:
        """Delete what runs that were killed left behind, unless `others` are at work.

        In this order: a run that wrote one of the manifests and is alive has had its lease before, so it is noticed.
        """
        left = runs.listed(location, _LEFT)
        if left and not others():
            for run in {name.partition("/")[0] for name in left}:
                runs.discard(location, run, [f"{_NAME}/**"])

    def units(self) -> Iterator[pa.Table]:
        """The units one by one, for so few that Ray is not worth its start."""
        import pyarrow.parquet as pq

        for name in self._written:
            table = pq.read_table(io.BytesIO(objects.read(self.place, name) or b""))
            yield from (table.slice(row, 1) for row in range(table.num_rows))

    def dataset(self) -> ray.data.Dataset:
        """The units as a lazily read dataset of one unit a block."""
        parts = [join(self.place, name) for name in self._written]
        if not is_uri(self.place):
            return units_of(parts)
        return units_of([part.partition("://")[2] for part in parts], buckets.file_system(self.place))

    def remove(self) -> None:
        """Delete the files; the work is over. What stays because the storage is away is swept by the next run."""
        self.rows, self._written = 0, []  # by these names: a deletion that fails must not bring old units back
        with suppress(StoreError, OSError):
            objects.delete_all(self.place, self._parts())
            if not is_uri(self.place) and Path(self.place).is_dir():
                Path(self.place).rmdir()

    def _parts(self) -> list[str]:
        return sorted(entry.name for entry in objects.entries(self.place, "") if entry.name.startswith("part-"))
