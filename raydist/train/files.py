"""The run's own small files in its folder of the archive, which may be on an object store: tables of pairs.

Promises  a table is there whole or not at all
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from raydist.errors import TrainError
from raydist.store import objects
from raydist.store.location import join


def folder_of(location: str, run: str) -> str:
    """A run's folder in the archive, as a path or an address; with `store.objects` it is a place of files."""
    return join(location, "runs", run)


def write_table(folder: str, name: str, table: pa.Table) -> None:
    """Keep a table in the run's folder."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    objects.replace(folder, name, sink.getvalue().to_pybytes())


def read_table(folder: str, name: str) -> pa.Table:
    """What `write_table` wrote.

    Raises:
        TrainError: it is gone.
    """
    data = objects.read(folder, name)
    if data is None:
        raise TrainError(
            f"{join(folder, name)!r} is gone, without which the run cannot go on: expected what it wrote when it "
            "began. Bring it back, or train under another name with --run"
        )
    return pq.read_table(pa.BufferReader(data))
