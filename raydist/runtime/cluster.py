"""What a cluster offers: its nodes, what it may grow to, and what it wrote to its disks.

Reads     Ray's table of nodes; the autoscaler's configuration, where the cluster has one that tells; `[ray]`
Promises  a cluster that tells nothing of its growth is taken as it is: `ray.max_cpus` and `ray.max_gpus` say otherwise
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from raydist.runtime.resources import Node, Resources
from raydist.sections import Ray

_LAUNCHER = "~/ray_bootstrap_config.yaml"
"""Where Ray's cluster launcher leaves its configuration on the head node."""


def offered(section: Ray, *, local: bool) -> Resources:
    """What this run may use; inside a Ray session.

    Args:
        local: Ray runs on this machine alone, and does not grow.
    """
    each = there()
    cpus, gpus = sum(node.cpus for node in each), sum(node.gpus for node in each)
    most, largest = ({}, 0.0) if local else _most(each)
    return Resources(
        cpus=cpus,
        gpus=gpus,
        nodes=len(each),
        each=each,
        max_cpus=max(cpus, section.max_cpus or most.get("CPU", 0.0)),
        max_gpus=max(gpus, section.max_gpus or most.get("GPU", 0.0)),
        node_cpus=largest,
    )


def there() -> tuple[Node, ...]:
    """The nodes of the cluster at this moment; inside a Ray session."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own gap
    return tuple(_node(node["Resources"], node["NodeID"]) for node in nodes if node["Alive"])


def spilled_bytes() -> int:
    """What the object stores of all nodes wrote to their disks since the cluster started; 0 where it does not say."""
    try:
        import ray._private.state
        from ray._private.internal_api import get_memory_info_reply

        reply = get_memory_info_reply(ray._private.state.state, timeout_seconds=5.0)  # type: ignore[no-untyped-call]
        return int(reply.store_stats.spilled_bytes_total)
    except Exception:  # noqa: BLE001  # a note in a report: Ray names no narrower type, and no run fails for it
        return 0


def _node(resources: dict[str, float], name: str) -> Node:
    return Node(
        id=name,
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory_bytes=int(resources.get("memory", 0)),
        store_bytes=int(resources.get("object_store_memory", 0)),
    )


def _most(there: tuple[Node, ...]) -> tuple[dict[str, float], float]:
    """CPUs and GPUs once the autoscaler has started all that it may, and the cores of its largest machine; empty and 0
    where nothing tells."""
    try:
        import ray._private.state

        told = ray._private.state.state.get_max_resources_from_cluster_config() or {}
        if told:
            return {name: float(count) for name, count in told.items()}, 0.0
        return _launched(Path(os.path.expanduser(_LAUNCHER)), there)
    except Exception:  # noqa: BLE001  # no public call tells it, and the settings do
        return {}, 0.0


def _launched(path: Path, there: tuple[Node, ...]) -> tuple[dict[str, float], float]:
    """From the configuration of Ray's cluster launcher: nodes of each type times what a node has.

    It does not know the size of machines that somebody has: they count as the smallest of those that are there.
    """
    if not path.is_file():
        return {}, 0.0
    import yaml  # type: ignore[import-untyped]

    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    limit = config.get("max_workers", math.inf)
    head = config.get("head_node_type", "")
    most: dict[str, float] = {"CPU": 0.0, "GPU": 0.0}
    known = {"CPU": min(node.cpus for node in there), "GPU": min(node.gpus for node in there)}
    largest = 0.0
    for name, kind in config.get("available_node_types", {}).items():
        count = min(kind.get("max_workers", 0), limit) + (name == head)
        sizes = kind.get("resources")
        largest = max(largest, sizes.get("CPU", 0)) if sizes else largest
        for what in most:
            most[what] += count * (sizes or known).get(what, 0)
    return most, largest
