"""Datasets of many small blocks: queues stay short, statistics are dropped, and neither ever stops the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydist import runtime
from raydist.runtime import bounds, cluster

pytestmark = pytest.mark.usefixtures("cluster")

UNITS = 600


class Seen:
    """What a dataset's loop held at each of its steps."""

    waiting = 0
    noted = 0
    reading = 0
    steps = 0

    def before_execution_starts(self, executor: Any) -> None: ...

    def on_execution_step(self, executor: Any) -> None:
        for operator, state in executor._topology.items():
            Seen.steps += 1
            if operator.name.startswith("MapBatches"):
                Seen.noted = max(Seen.noted, len(operator._output_blocks_stats))
            else:
                Seen.reading = max(Seen.reading, operator.num_active_tasks())
            Seen.waiting = max(Seen.waiting, sum(queue.num_blocks for queue in state.input_queues))

    def after_execution_succeeds(self, executor: Any) -> None: ...

    def after_execution_fails(self, executor: Any, error: Exception) -> None: ...


@pytest.fixture
def seen() -> Iterator[type[Seen]]:
    import ray.data

    callbacks: list[Any] = ray.data.DataContext.get_current().custom_execution_callback_classes
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find this file
    Seen.waiting = Seen.noted = Seen.reading = Seen.steps = 0
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


def mapped(parts: str | list[str], batch: int | None) -> list[int]:
    from ray.data import ActorPoolStrategy

    units = runtime.units_of([parts] if isinstance(parts, str) else parts)
    dataset = units.map_batches(
        Slow, batch_size=batch, batch_format="pyarrow", compute=ActorPoolStrategy(size=1), num_cpus=0.1
    )
    one = runtime.Resources(cpus=3, gpus=0, nodes=1)
    return [number for block in runtime.blocks(dataset, one) for number in block["number"].to_pylist()]


def test_what_waits_between_two_steps_does_not_grow_with_the_manifest(part: str, seen: type[Seen]) -> None:
    assert sorted(mapped(part, None)) == list(range(UNITS))
    assert seen.steps > 0
    assert seen.waiting < UNITS // 4  # some of them are taken before a block's size is known
    assert seen.noted < UNITS // 4


def test_units_are_read_by_few_processes_however_many_files_there_are(part: str, seen: type[Seen]) -> None:
    """Readers ask for no core. Of a night's manifest Ray Data made 130 processes, which held 16 GB."""
    parts = [part]
    for number in range(1, 20):
        parts.append(part.replace("000000", f"{number:06d}"))
        pq.write_table(pa.table({"number": [number * UNITS + row for row in range(20)]}), parts[-1])
    assert len(mapped(parts, 100)) == UNITS + 19 * 20
    assert 0 < seen.reading <= bounds.READERS


def test_what_waits_for_a_machine_for_hours_goes_on(part: str) -> None:
    assert runtime.units_of([part]).context.execution_no_progress_timeout_s == -1


def test_a_batch_of_more_blocks_than_may_wait_is_gathered_all_the_same(part: str, seen: type[Seen]) -> None:
    assert UNITS // 2 > 10 * bounds.FEWEST
    assert sorted(mapped(part, UNITS // 2)) == list(range(UNITS))


class Pool:
    """A step of which an actor has no place; with a GPU or without."""

    name = "MapBatches(Slow)"

    def __init__(self, running: int, gpus: float) -> None:
        self._ray_remote_args = {"num_cpus": 1, "num_gpus": gpus}
        self._told = SimpleNamespace(running=running, pending=0, restarting=1)
        self.metrics = SimpleNamespace(num_task_outputs_generated=7)

    def get_actor_info(self) -> SimpleNamespace:
        return self._told


def stands_still(*pools: Pool, nodes: frozenset[str] = frozenset(), for_s: float = bounds.GONE_S + 1) -> str:
    """What is said when nothing has come for long."""
    watch = bounds.Watch()
    watch.before_execution_starts(None)
    context = SimpleNamespace(get_config=lambda name, default: (nodes, bounds.GONE_S))
    executor = SimpleNamespace(_topology=dict.fromkeys(pools), _data_context=context)
    watch._waits(executor, time.monotonic())
    return watch._waits(executor, time.monotonic() + for_s)


def test_a_run_ends_for_want_of_places_only_where_a_node_took_them_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_lost", [])
    there = frozenset(node.id for node in cluster.there())
    gone = there | {"one that went"}
    assert len(there) == 1
    assert stands_still(Pool(1, 0)).startswith("waiting for a place for 1 slow (1 CPU each)")
    assert stands_still(Pool(1, 0), nodes=there).startswith("waiting")
    assert stands_still(Pool(1, 0), nodes=gone, for_s=bounds.GONE_S - 60).startswith("waiting")
    assert stands_still(Pool(1, 0), Pool(0, 1), nodes=gone).startswith("waiting")
    bounds.check_places()
    with pytest.raises(runtime.PlacesLostError, match=r"1 slow .1 CPU each. and 1 slow .1 GPU each. found no place"):
        stands_still(Pool(1, 0), Pool(1, 1), nodes=gone)
    with pytest.raises(runtime.PlacesLostError):
        bounds.check_places()
    stands_still(Pool(1, 0))
    bounds.check_places()
