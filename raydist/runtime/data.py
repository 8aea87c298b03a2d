"""Units of work as a Ray dataset, and what comes out of it.

Promises  the driver's memory does not grow with the number of units: the files are read as the work goes on, and queues
          and statistics are kept small (`bounds`)
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from raydist.runtime import bounds
from raydist.runtime.held import got
from raydist.runtime.resources import Resources

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data


_READER_CPUS = 0
"""Logical ones: where a node was lost, the actors that start elsewhere may take all that are left, and the run would
wait for ever for its readers. What they do is light: `LIGHT_CPUS` keeps a core for it, `bounds.READERS` bounds it."""


def units_of(files: Sequence[str], filesystem: Any = None) -> ray.data.Dataset:
    """The rows of Parquet files as a lazily read dataset of one row a block.

    Args:
        filesystem: of `pyarrow.fs`, where the files are not on a disk that all machines see.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it is configured when it is imported, just now
    # The only way left to name a strategy (`Plan.worker_args`); nothing is to replace it.
    warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # The newer reader lists files with workers of its own: ten more processes for a manifest of one file, and now
    # and then a traceback from one of its threads on stderr.
    context.use_datasource_v2 = False
    bounds.set_in(context)
    # A task a file, not two for each core of the cluster: two at a time would hand out a few units each, and start a
    # process on every node in turn.
    rows = ray.data.read_parquet(list(files), filesystem=filesystem, override_num_blocks=max(1, len(files)))
    for step in (rows, rows.repartition(target_num_rows_per_block=1)):
        # There is no argument for these of a repartition, which would ask for a whole core of one node: decoders and
        # encoders may have left that on none. Ray's own strategy stays where a process is warm.
        asked = step._logical_plan.dag.ray_remote_args  # type: ignore[attr-defined]  # of these operators
        asked |= {"num_cpus": _READER_CPUS, "scheduling_strategy": "DEFAULT"}
        rows = step
    return rows


def references(
    dataset: ray.data.Dataset, resources: Resources | None, *, again: bool = False
) -> Generator[tuple[Any, int], None, None]:
    """Run the dataset and yield a reference to each block, with its rows, as it is done.

    Args:
        resources: what it was planned for. Where they do not grow, it ends once actors have lost their places for good;
            None: never.
        again: the caller plans the rest anew then; else a node that comes back is waited for longer.

    Raises:
        PlacesLostError: so it was.
    """
    fixed = resources is not None and not resources.grows
    nodes = frozenset(node.id for node in resources.each) if resources is not None and fixed else frozenset[str]()
    dataset.context.set_config(bounds.PLANNED, (nodes, bounds.GONE_S if again else bounds.GIVES_UP_S))
    try:
        for bundle in dataset.iter_internal_ref_bundles():
            for block in bundle.blocks:
                yield block.ref, block.metadata.num_rows or 0
    except bounds.PlacesLostError as lost:
        if again:
            raise
        message = f"{lost}: a node went away; the same command goes on with the nodes that are left"
        raise bounds.PlacesLostError(message) from None


def blocks(dataset: ray.data.Dataset, resources: Resources) -> Iterator[pa.Table]:
    """Run the dataset and yield its blocks as they are done; see `references`."""
    for reference, _ in references(dataset, resources):
        yield got(reference)
