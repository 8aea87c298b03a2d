"""Units of work as a Ray dataset, and what comes out of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data


def units_of(files: Sequence[str]) -> ray.data.Dataset:
    """The rows of Parquet files as a lazily read dataset of one row a block."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it is configured when it is imported, just now
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # The newer reader lists files with workers of its own: ten more processes for a manifest of one file, and now
    # and then a traceback from one of its threads on stderr.
    context.use_datasource_v2 = False
    return ray.data.read_parquet(list(files), num_cpus=0.1).repartition(target_num_rows_per_block=1)


def references(dataset: ray.data.Dataset) -> Iterator[tuple[Any, int]]:
    """Run the dataset and yield a reference to each block, with its rows, as it is done."""
    for bundle in dataset.iter_internal_ref_bundles():
        for block in bundle.blocks:
            yield block.ref, block.metadata.num_rows or 0


def blocks(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """Run the dataset and yield its blocks as they are done."""
    import ray

    for reference, _ in references(dataset):
        yield ray.get(reference)
