"""A run's work, a row a unit, in Parquet files of the archive: neither the driver nor Ray's object store grows with it.

Writes    `runs/<run>/manifest/part-*.parquet`, deleted when the run is over
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raydist.runtime import units_of

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data


class Manifest:
    """Units of work on disk, in Parquet files of a bounded size; a row is what one task gets."""

    def __init__(self, folder: Path, rows_per_file: int = 4096) -> None:
        self.folder = folder
        self.rows = 0
        self._rows_per_file = rows_per_file

    def write(self, tables: Iterable[pa.Table]) -> Manifest:
        """Write all units; tables may be of any size."""
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True)
        number = 0
        for table in tables:
            for start in range(0, table.num_rows, self._rows_per_file):
                part = table.slice(start, self._rows_per_file)
                pq.write_table(part, self.folder / f"part-{number:06d}.parquet")
                self.rows += part.num_rows
                number += 1
        return self

    @staticmethod
    def sweep(runs: Path, others: Callable[[], Sequence[object]]) -> None:
        """Delete what runs that were killed left behind, unless `others` are at work.

        In this order: a run that wrote one of the folders and is alive has had its lease before, so it is noticed.
        """
        left = list(runs.glob("*/manifest"))
        if left and not others():
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)

    def units(self) -> Iterator[pa.Table]:
        """The units one by one, for so few that Ray is not worth its start."""
        import pyarrow.parquet as pq

        for path in sorted(self.folder.glob("part-*.parquet")):
            table = pq.read_table(path)
            yield from (table.slice(row, 1) for row in range(table.num_rows))

    def dataset(self) -> ray.data.Dataset:
        """The units as a lazily read dataset of one unit a block."""
        return units_of(sorted(str(path) for path in self.folder.glob("part-*.parquet")))

    def remove(self) -> None:
        """Delete the files; the run is over."""
        for path in self.folder.glob("part-*.parquet"):
            path.unlink(missing_ok=True)
        if self.folder.is_dir():
            self.folder.rmdir()
