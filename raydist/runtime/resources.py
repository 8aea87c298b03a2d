"""What a cluster offers to a run: its machines, and what it may grow to.

Promises  a device that the cluster has not and will not get is refused; one that it will get is counted on
"""

from __future__ import annotations

from dataclasses import dataclass

from raydist.errors import ResourceError

LIGHT_CPUS = 1.0
"""Kept free for reading the manifest: a plan whose actors hold every core would wait for ever."""

NODE_CPUS = 8.0
"""Of a machine that will come, where nothing tells: a guess, for sharing work out to machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one machine offers."""

    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0
    """For processes; 0: unknown."""
    store_bytes: int = 0
    """Of the object store; 0: unknown."""
    id: str = ""
    """Ray's name of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the cluster offers to this run."""

    cpus: float
    gpus: float
    nodes: int
    each: tuple[Node, ...] = ()
    """Those nodes; empty: all alike."""
    max_cpus: float = 0.0
    """What it may grow to by itself, its present CPUs included; no more than these: it does not grow."""
    max_gpus: float = 0.0
    node_cpus: float = 0.0
    """Of the largest machine that may come; 0: unknown."""

    @property
    def grows(self) -> bool:
        """Whether more machines come when work waits for them."""
        return self.max_cpus > self.cpus or self.max_gpus > self.gpus

    @property
    def most_cpus(self) -> float:
        """Now, or once it has grown."""
        return max(self.cpus, self.max_cpus)

    @property
    def most_gpus(self) -> float:
        """Now, or once it has grown."""
        return max(self.gpus, self.max_gpus)

    @property
    def largest_cpus(self) -> float:
        """Of the largest machine that is there or may come; a guess where none is there and nothing tells."""
        there = max(node.cpus for node in self.machines())
        return max(there, self.node_cpus) or min(NODE_CPUS, self.most_cpus)

    def threads(self, processes: int = 1) -> int:
        """Of each of so many processes that compute on CPUs: its share of the cores, of one machine at most."""
        cores = self.cpus if self.cpus >= 1 else self.most_cpus
        return max(1, int(min((cores - LIGHT_CPUS) // max(1, processes), self.largest_cpus)))

    def machines(self) -> tuple[Node, ...]:
        """The nodes that are there."""
        count = max(1, self.nodes)
        whole, rest = divmod(int(self.gpus), count)
        return self.each or tuple(Node(cpus=self.cpus / count, gpus=whole + (at < rest)) for at in range(count))

    def use_gpu(self, device: str, setting: str) -> bool:
        """Whether a stage computes on GPUs.

        Args:
            device: `auto`, `cpu` or `cuda`, the value of `setting`.

        Raises:
            ResourceError: `cuda`, and the cluster has no GPU and will get none.
        """
        if device == "cuda" and self.most_gpus < 1:
            raise ResourceError(
                f"{setting}=cuda, but the cluster has no GPU: add one, or set {setting}=cpu (a cluster that gets GPU "
                "nodes when they are asked for: set ray.max_gpus)"
            )
        return device != "cpu" and self.most_gpus >= 1
