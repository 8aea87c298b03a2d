"""Units of work as a Ray dataset, and what comes out of it.

Promises  the driver's memory does not grow with the number of units: the files are read as the work goes on, and what
          Ray notes of each block for its statistics is dropped (`_Watch`)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from raydist import gauges

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

_SHOWN_EACH_S = 1.0


def units_of(files: Sequence[str], filesystem: Any = None) -> ray.data.Dataset:
    """The rows of Parquet files as a lazily read dataset of one row a block.

    Args:
        filesystem: of `pyarrow.fs`, where the files are not on a disk that all machines see.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it is configured when it is imported, just now
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # The newer reader lists files with workers of its own: ten more processes for a manifest of one file, and now
    # and then a traceback from one of its threads on stderr.
    context.use_datasource_v2 = False
    callbacks: list[Any] = context.custom_execution_callback_classes
    if _Watch not in callbacks:
        callbacks.append(_Watch)
    rows = ray.data.read_parquet(list(files), filesystem=filesystem, num_cpus=0.1)
    return rows.repartition(target_num_rows_per_block=1)


class _Watch:
    """Looks after a running dataset; Ray calls it at each step of its loop (a `ray.data` ExecutionCallback)."""

    def __init__(self) -> None:
        self._shown = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing to do."""

    def on_execution_step(self, executor: Any) -> None:
        """Drop the statistics of blocks that are done, which nobody reads: 1 KB each, 0.4 GB in a million clips."""
        now = time.monotonic()
        show = now - self._shown >= _SHOWN_EACH_S
        for operator, state in executor._topology.items():
            noted = getattr(operator, "_output_blocks_stats", None)
            if noted:
                noted.clear()
            if show and operator.name.startswith("MapBatches("):
                stage = operator.name[len("MapBatches(") : -1].lower()
                gauges.show("raydist_queue_blocks", state.total_enqueued_input_blocks(), stage=stage)
        if show:
            self._shown = now

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing to do."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing to do."""


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
