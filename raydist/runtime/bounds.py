"""What keeps a dataset of millions of blocks small: short queues, few readers, no statistics of blocks that are done.

Ray Data bounds what waits between two steps by the bytes in its object store. Small blocks are not kept there but in
the driver (30 KB a unit of work, 1 GB in a million clips), and a manifest is made of small ones. So what waits is
bounded by number too: a step stops while the next one has a multiple of what it works on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from raydist import gauges, progress
from raydist.errors import ResourceError
from raydist.runtime.cluster import there

if TYPE_CHECKING:
    from ray.data import DataContext

FEWEST = 8
"""Blocks that may wait for a step that has hardly begun."""

TIMES = 4
"""Blocks that may wait for a step, as a multiple of those that it works on: nobody runs dry between two looks."""

UNREAD = 64
"""Blocks that may wait for the driver while it commits."""

READERS = 2
"""Tasks that read units, or deal them out, at a time. They ask for no core, so nothing else bounds them, and each is a
process."""

WAITS_S = 60.0
"""After so long without a result it is said which actors have no place."""

GONE_S = 180.0
"""After so long without a result a run that can be planned anew ends where actors lost their places with a node."""

GIVES_UP_S = 1_800.0
"""The same of a run that cannot: a node that starts anew is waited for."""

PLANNED = "raydist_planned"
"""Set in a dataset's context: (ids of the nodes that it was planned for, after how many seconds it ends without one of
them); on a cluster that grows nothing, as another machine comes."""

_SHOWN_EACH_S = 1.0
_ACTORS = "MapBatches("


def set_in(context: DataContext) -> None:
    """Bound the datasets that are made with this context."""
    from ray.data._internal.execution import backpressure_policy as ray_policies

    callbacks: list[Any] = context.custom_execution_callback_classes
    if Watch not in callbacks:
        callbacks.append(Watch)
    policies = [*ray_policies.ENABLED_BACKPRESSURE_POLICIES, ShortQueues]
    context.set_config(ray_policies.ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)
    # Ray Data would end what stands still for half an hour: a night that waits for a machine, a provider's batch job.
    context.execution_no_progress_timeout_s = -1


class PlacesLostError(ResourceError):
    """A node went away, and what is left has no place for its actors.

    Ray gives an actor's work to that same actor again, and an encoder its batches in order: where one decoder finds no
    place, all may wait for it.
    """


_lost: list[PlacesLostError] = []
"""That of the dataset that ran last. Its loop has a thread of its own, and the driver may sit in a commit that waits
for what went with the node."""


def check_places() -> None:
    """Whether the dataset's loop has ended for that reason.

    Raises:
        PlacesLostError: so it has.
    """
    if _lost:
        raise _lost[0]


class ShortQueues:
    """A backpressure policy of Ray Data: asked before a step starts a task, and before a task's output is read."""

    name = "ShortQueues"

    def __init__(self, context: DataContext, topology: Any, resources: Any) -> None:
        self._topology = topology

    def can_add_input(self, operator: Any) -> bool:
        """Whether the step may start another task."""
        if not _is_pool(operator) and operator.num_active_tasks() >= READERS:
            return False
        return self._room(operator) > 0

    def max_task_output_bytes_to_read(self, operator: Any) -> int | None:
        """How much may be taken over from the step's running tasks; None: anything, while no block's size is known."""
        room = self._room(operator)
        size_bytes = operator.metrics.average_bytes_per_output
        if room > 0:
            return max(1, int(room * size_bytes)) if size_bytes else None
        return 0

    def _room(self, operator: Any) -> int:
        """How many blocks more may wait behind the step. What the next one gathers for a batch is not counted: it may
        need more blocks than these for one."""
        nexts = operator.output_dependencies
        if not nexts:
            return UNREAD - int(self._topology[operator].output_queue.num_blocks)
        rooms: list[int] = [
            max(FEWEST, TIMES * step.num_active_tasks())
            - sum(int(queue.num_blocks) for queue in self._topology[step].input_queues)
            for step in nexts
        ]
        return min(rooms)


class Watch:
    """An execution callback of Ray Data: called at each step of its loop."""

    def __init__(self) -> None:
        self._shown = 0.0
        self._came, self._came_at = -1, time.monotonic()

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing is lost yet."""
        _lost.clear()

    def on_execution_step(self, executor: Any) -> None:
        """Drop the statistics of blocks that are done, which nobody reads; show the queues, and what is waited for."""
        now = time.monotonic()
        show = now - self._shown >= _SHOWN_EACH_S
        for operator, state in executor._topology.items():
            noted = getattr(operator, "_output_blocks_stats", None)
            if noted:
                noted.clear()
            if show and operator.name.startswith(_ACTORS):
                stage = operator.name[len(_ACTORS) : -1].lower()
                gauges.show("raydist_queue_blocks", state.total_enqueued_input_blocks(), stage=stage)
        if show:
            self._shown = now
            gauges.refresh()
            progress.wait_for(self._waits(executor, now))

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing is waited for."""
        progress.wait_for("")

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing is waited for."""
        progress.wait_for("")

    def _waits(self, executor: Any, now: float) -> str:
        """Actors without a place, where nothing has come for long; "" where something comes, or all have one."""
        came = sum(operator.metrics.num_task_outputs_generated for operator in executor._topology if _is_pool(operator))
        if came != self._came:
            self._came, self._came_at = came, now
        if now - self._came_at < WAITS_S:
            return ""
        missing = " and ".join(f"{count} {name}" for name, count in map(_missing, executor._topology) if count)
        if not missing:
            return ""
        nodes, after_s = executor._data_context.get_config(PLANNED, (frozenset(), GIVES_UP_S))
        if now - self._came_at > after_s and self._may_end(executor, nodes):
            _lost.append(PlacesLostError(f"nothing has come for {after_s:.0f} s, and {missing} found no place again"))
            check_places()
        return f"waiting for a place for {missing}: did a node go away, or has none come yet?"

    def _may_end(self, executor: Any, nodes: frozenset[str]) -> bool:
        """Only where one of the nodes has gone: actors may load yet, or wait for another job. Not without a GPU where
        one is needed: another machine that has one is waited for."""
        asks_gpus = [step for step in filter(_is_pool, executor._topology) if step._ray_remote_args.get("num_gpus")]
        has_gpus = all(step.get_actor_info().running for step in asks_gpus)
        return has_gpus and not nodes <= {node.id for node in there()}


def _is_pool(operator: Any) -> bool:
    return operator.name.startswith(_ACTORS) and hasattr(operator, "get_actor_info")


def _missing(operator: Any) -> tuple[str, int]:
    """Of a step: its actors in words, and how many of them have not started, or not again."""
    if not _is_pool(operator):
        return "", 0
    told = operator.get_actor_info()
    asked = getattr(operator, "_ray_remote_args", {})
    size = f"{asked['num_gpus']:g} GPU" if asked.get("num_gpus") else f"{asked.get('num_cpus', 1):g} CPU"
    count = told.pending + told.restarting
    return f"{operator.name[len(_ACTORS) : -1].lower()}{'s' * (count != 1)} ({size} each)", count
