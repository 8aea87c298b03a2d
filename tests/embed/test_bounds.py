"""Datasets of many small blocks: queues stay short, statistics are dropped, and neither ever stops the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydist import runtime
from raydist.runtime import bounds

pytestmark = pytest.mark.usefixtures("cluster")

UNITS = 600


class Seen:
    """What a dataset's loop held at each of its steps."""

    waiting = 0
    noted = 0
    steps = 0

    def before_execution_starts(self, executor: Any) -> None: ...

    def on_execution_step(self, executor: Any) -> None:
        for operator, state in executor._topology.items():
            Seen.steps += 1
            if operator.name.startswith("MapBatches"):
                Seen.noted = max(Seen.noted, len(operator._output_blocks_stats))
            Seen.waiting = max(Seen.waiting, sum(queue.num_blocks for queue in state.input_queues))

    def after_execution_succeeds(self, executor: Any) -> None: ...

    def after_execution_fails(self, executor: Any, error: Exception) -> None: ...


@pytest.fixture
def seen() -> Iterator[type[Seen]]:
    import ray.data

    callbacks: list[Any] = ray.data.DataContext.get_current().custom_execution_callback_classes
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find this file
    Seen.waiting = Seen.noted = Seen.steps = 0
    callbacks.append(Seen)
    yield Seen
    callbacks.remove(Seen)
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def part(tmp_path: Path) -> str:
    """A file of so many rows, each a unit."""
    path = tmp_path / "part-000000.parquet"
    pq.write_table(pa.table({"number": list(range(UNITS))}), path)
    return str(path)


class Slow:
    """An actor that takes its time."""

    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(0.01)
        return table


def mapped(part: str, batch: int | None) -> list[int]:
    from ray.data import ActorPoolStrategy

    units = runtime.units_of([part])
    dataset = units.map_batches(
        Slow, batch_size=batch, batch_format="pyarrow", compute=ActorPoolStrategy(size=1), num_cpus=0.1
    )
    return [number for block in runtime.blocks(dataset) for number in block["number"].to_pylist()]


def test_what_waits_between_two_steps_does_not_grow_with_the_manifest(part: str, seen: type[Seen]) -> None:
    assert sorted(mapped(part, None)) == list(range(UNITS))
    assert seen.steps > 0
    assert seen.waiting < UNITS // 4  # some of them are taken before a block's size is known
    assert seen.noted < UNITS // 4


def test_a_batch_of_more_blocks_than_may_wait_is_gathered_all_the_same(part: str, seen: type[Seen]) -> None:
    assert UNITS // 2 > 10 * bounds.FEWEST
    assert sorted(mapped(part, UNITS // 2)) == list(range(UNITS))
