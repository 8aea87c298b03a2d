"""How many processes a run uses, and what each takes of the cluster.

Reads     the nodes of the cluster (CPUs, GPUs, memory, object store), what it may grow to, and a stage's settings
Promises  what a plan takes fits into the nodes that are there, node by node: more would wait for ever. A cluster that
          grows by itself is asked for more, never refused. Ray places by cores alone, so where a node has less memory
          than cores for decoders, each asks for so many cores that the node gets no more than its memory holds

Decoders go where there are CPUs, encoders where there are GPUs. Ray gives work without a GPU to nodes without one first
(its `scheduler_avoid_gpu_nodes`), so decoders reach a GPU's node only when the others are full, and cores that its
encoders need are kept out of the count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raydist.errors import ResourceError
from raydist.progress import talk
from raydist.runtime.resources import LIGHT_CPUS, Node, Resources

if TYPE_CHECKING:
    from ray.data import ActorPoolStrategy

ENCODER_CPUS = 0.5
"""Logical cores of an encoder. On a CPU-only machine it computes on all cores; the system shares them with decoders."""

SMALLEST_SHARE = 0.05
"""Logical cores under which a decoder is not worth starting."""

WORKER_MB = 350
"""Memory of a decoding process besides what `decode.memory_mb` allows its child: an actor, and the child's start."""

SMALL_STORE = 1 << 30
"""Bytes of a node's object store under which frames of the batches under way go to its disk."""

_PARTS = 1000
"""Ray counts in ten-thousandths of a core; this counts in thousandths, rounded down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many processes a run uses and what each takes of the cluster."""

    workers: int = 0
    worker_cpus: float = 0.0
    encoders: int = 0
    encoder_gpus: float = 0.0
    encoder_cpus: float = 0.0
    """What Ray is asked for: nothing with a GPU, so that no decoder can keep an encoder from its GPU."""
    least_workers: int = 0
    """Of the pool at its start, where the cluster grows; 0: `workers`."""
    least_encoders: int = 0
    threads: int = 1
    """Of an encoder on CPUs."""
    worker_mb: int = 0
    """Memory that a worker may use; 0: nobody looked."""

    @property
    def worker_args(self) -> dict[str, Any]:
        """What a decoder's actor asks of Ray."""
        return {"num_cpus": self.worker_cpus} | ({"ray_remote_args_fn": _away_from_gpus} if self.encoder_gpus else {})

    def worker_pool(self) -> ActorPoolStrategy:
        """Of decoders; it grows with the cluster."""
        return _pool(self.least_workers, self.workers)

    def encoder_pool(self) -> ActorPoolStrategy:
        """Of encoders; it grows with the cluster."""
        return _pool(self.least_encoders, self.encoders)


def plan(
    resources: Resources,
    *,
    workers: int = 0,
    units: int = 0,
    worker_cpus: float = 0.0,
    memory_mb: int = 0,
    encoders: int | None = None,
    gpus: bool = False,
    encoder_cpus: float | None = None,
    threads: int = 0,
) -> Plan:
    """Fit processes into the cluster. A count of 0 means as many as fit; `encoders=None` means none.

    Args:
        units: of work; more workers would have nothing to do. 0: any number.
        worker_cpus: logical cores of a worker; 0: one, or less where that many would not fit.
        memory_mb: what a worker's child may use; as many workers as fit into the nodes' memory, unless `workers` says
            how many. 0: do not look.
        gpus: encoders take a GPU each.
        encoder_cpus: logical cores of an encoder, or kept free beside its GPU; None: as is usual.
        threads: of an encoder on CPUs; 0: its share of the cores.

    Raises:
        ResourceError: if the cluster cannot run it, now or grown; such a plan would wait for ever.
    """
    encoder_count, least_encoders = _encoders(resources, encoders, gpus)
    each = ENCODER_CPUS if encoder_cpus is None else encoder_cpus
    places = _places(resources, least_encoders, each, gpus, 0 if workers else memory_mb)
    if resources.grows:
        share = worker_cpus or max(1.0, _leanest(places, math.inf))
        fits, room = _held(places, share), _room([place.cpus for place in places], share)
        # Machines that come are taken to be like those that are there.
        most = _grown(resources, encoder_count * each, workers, share, fits / room if room else 1.0)
        most = min(most, units or most)
    else:
        fits, most, share = _fixed(places, workers, units, worker_cpus)
        if fits < most:
            raise _refused(resources, most, encoder_count, each, worker_cpus)
    if not gpus and encoder_count and share == each:
        share -= 1 / _PARTS  # Ray would make one actor of a decoder and an encoder that ask for the same
    return Plan(
        workers=most,
        worker_cpus=share,
        encoders=encoder_count,
        encoder_gpus=1.0 if gpus else 0.0,
        encoder_cpus=0.0 if gpus or not encoder_count else each,
        least_workers=max(1, min(fits, most)),
        least_encoders=least_encoders,
        threads=threads or resources.threads(least_encoders),
        worker_mb=memory_mb + WORKER_MB if memory_mb else 0,
    )


def announce(
    made: Plan, resources: Resources, *, what: str = "decoders", encoders: str = "encoders", batch: int = 0
) -> None:
    """Say the plan on stderr, before anything starts."""
    for line in described(made, resources, what=what, encoders=encoders, batch=batch):
        talk.print(line)


def described(
    made: Plan, resources: Resources, *, what: str = "decoders", encoders: str = "encoders", batch: int = 0
) -> list[str]:
    """The plan in a line or two."""
    each = made.worker_mb << 20
    memory = f" and {each / 1e9:.2g} GB" if each else ""
    parts = [f"{_range(made.least_workers, made.workers, what)} x {made.worker_cpus:g} CPU{memory}"] * (
        made.workers > 0
    )
    if made.encoders:
        size = "1 GPU" if made.encoder_gpus else f"{made.encoder_cpus:g} CPU"
        size += f", {made.threads} threads" if batch and not made.encoder_gpus else ""
        parts.append(f"{_range(made.least_encoders, made.encoders, encoders)} x {size}")
    if batch:
        parts.append(f"batches of {batch}")
    nodes = "1 node" if resources.nodes == 1 else f"{resources.nodes} nodes"
    gpus = f", {resources.gpus:g} GPU{'s' * (resources.gpus != 1)}" if resources.gpus else ""
    lines = [f"plan: {', '.join(parts)}, on {nodes} ({resources.cpus:g} CPUs{gpus})"]
    if resources.grows:
        lines.append(f"the cluster may grow to {resources.most_cpus:g} CPUs and {resources.most_gpus:g} GPUs")
        if made.worker_cpus > resources.largest_cpus:
            lines.append(f"{what} wait for a machine of {made.worker_cpus:g} CPUs: none that is there is as large")
    lean = [node for node in resources.machines() if 0 < node.memory_bytes < each * min(node.cpus, made.workers)]
    if lean:
        node = min(lean, key=lambda node: node.memory_bytes / node.cpus)
        lines.append(
            f"a node of {node.cpus:g} CPUs has memory ({node.memory_bytes / 1e9:.2g} GB) for "
            f"{node.memory_bytes // each} {what}: give it fewer CPUs, or set decode.memory_mb or decode.cpus"
        )
    stores = [node.store_bytes for node in resources.machines() if node.store_bytes]
    if stores and min(stores) < SMALL_STORE and batch and made.workers:
        lines.append(
            f"the object store of a node has {min(stores) / 1e9:.2g} GB: frames may go to its disk; give it more "
            "(ray.object_store_gb on one machine, /dev/shm of a container), or lower embed.batch"
        )
    return lines


def _away_from_gpus() -> dict[str, str]:
    """Ray's own strategy, which takes nodes without a GPU first; Ray Data's, SPREAD, fills all alike."""
    return {"scheduling_strategy": "DEFAULT"}


def _pool(least: int, most: int) -> ActorPoolStrategy:
    from ray.data import ActorPoolStrategy  # Ray is imported once its environment is set

    if least and least < most:
        return ActorPoolStrategy(min_size=1, initial_size=least, max_size=most)
    return ActorPoolStrategy(size=most)


def _range(least: int, most: int, what: str) -> str:
    """`3 to 7 decoders`; `what` is a plural."""
    name = what.removesuffix("s") if most == 1 else what
    return f"{least:,} to {most:,} {name}" if 0 < least < most else f"{most:,} {name}"


def _encoders(resources: Resources, encoders: int | None, gpus: bool) -> tuple[int, int]:
    """How many at most, and how many at the start."""
    if encoders is None:
        return 0, 0
    if gpus:
        count = encoders or int(resources.most_gpus)
        if count > resources.most_gpus:
            raise ResourceError(
                f"{count} encoders need a GPU each, the cluster has {resources.most_gpus:g}: "
                "lower embed.encoders, or set embed.device=cpu"
            )
        return count, max(1, min(count, int(resources.gpus)))
    now = max(1, min(sum(node.cpus >= 1 for node in resources.machines()), int(resources.cpus // 2)))
    size = resources.cpus / now if resources.cpus >= 1 else resources.largest_cpus
    grown = max(now, int(resources.most_cpus / max(1.0, size)))
    count = encoders or grown
    return count, max(1, min(count, now)) if resources.grows else count


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A node, as decoders see it."""

    cpus: float
    """That are left to them."""
    all_cpus: float
    """Ray may put encoders elsewhere than planned, and decoders there."""
    holds: float
    """Decoders that its memory holds; at least one: few use all that they may."""


def _places(resources: Resources, encoders: int, each: float, gpus: bool, memory_mb: int) -> list[_Place]:
    """The nodes; no cores are left where encoders alone do not fit."""
    machines = resources.machines()
    free = _left_to_workers(machines, encoders, each, gpus) or [0.0] * len(machines)
    size = (memory_mb + WORKER_MB) << 20 if memory_mb else 0
    return [
        _Place(
            cpus=cores,
            all_cpus=node.cpus,
            holds=max(1, node.memory_bytes // size) if size and node.memory_bytes else math.inf,
        )
        for node, cores in zip(machines, free, strict=True)
    ]


def _leanest(places: Sequence[_Place], workers: float) -> float:
    """Cores that each of so many workers must ask for, so that no node gets more than its memory holds; 0: any."""
    parts = [_whole(place.all_cpus) // (int(place.holds) + 1) + 1 for place in places if place.holds < workers]
    return max(parts, default=0) / _PARTS


def _held(places: Sequence[_Place], share: float) -> int:
    """Workers of so many cores that the nodes' cores and memory hold."""
    return int(sum(min(_room([place.cpus], share), place.holds) for place in places))


def _fixed(places: Sequence[_Place], workers: int, units: int, given: float) -> tuple[int, int, float]:
    """Of a cluster that stays as it is: how many workers fit, how many are wanted, and the cores of each."""
    free = [place.cpus for place in places]
    # One a core; half a core beside an encoder is one too: decoders and encoders are seldom busy at once.
    usual = sum(min(int(place.cpus + 0.5), place.holds) for place in places)
    wanted = workers or max(1, _held(places, given) if given else int(usual))
    wanted = min(wanted, units or wanted)
    least = 0.0 if given else _leanest(places, wanted)
    if least:
        wanted = max(1, min(wanted, _room(free, least)))
    fits, share = _share(free, wanted, given, max(1.0, least))
    return fits, wanted, share


def _left_to_workers(machines: Sequence[Node], encoders: int, each: float, gpus: bool) -> list[float] | None:
    """Cores of each node that decoders may take, None if encoders alone do not fit.

    Encoders sit at their GPUs, or where most cores are; reading takes what is left over wherever it is.
    """
    free = [node.cpus for node in machines]
    rooms = [int(node.gpus) for node in machines]
    for _ in range(encoders):
        place = max(range(len(free)), key=lambda at: (rooms[at] if gpus else 0, free[at]))
        if not gpus and free[place] < each:
            return None
        rooms[place] -= 1
        if not _take(free, each, first=place):
            return None
    spare = max(range(len(free)), key=lambda at: (machines[at].gpus == 0, free[at]))
    return free if _take(free, LIGHT_CPUS, first=spare) else None


def _take(free: list[float], amount: float, first: int) -> bool:
    """Take cores of one node, and where that has too few of the others; whether there were enough."""
    for place in [first, *sorted(range(len(free)), key=lambda at: -free[at])]:
        taken = min(free[place], amount)
        free[place] -= taken
        amount -= taken
        if amount <= 0:
            return True
    return False


def _whole(cores: float) -> int:
    """In parts."""
    return int(cores * _PARTS + 1e-6)


def _room(free: Sequence[float], each: float) -> int:
    """How many processes of that many cores the nodes hold, each whole on one of them."""
    size = max(1, round(each * _PARTS))
    return sum(_whole(cores) // size for cores in free)


def _share(free: Sequence[float], wanted: int, given: float, most: float) -> tuple[int, float]:
    """How many of the wanted workers fit, and what each takes: what is given, else `most` or what makes all fit."""
    if given:
        return min(wanted, _room(free, given)), given
    low, high = int(SMALLEST_SHARE * _PARTS), round(most * _PARTS)
    if _room(free, low / _PARTS) < wanted:
        return 0, 1.0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _room(free, middle / _PARTS) >= wanted else (low, middle - 1)
    return wanted, low / _PARTS


def _grown(resources: Resources, encoders: float, workers: int, each: float, fraction: float) -> int:
    """Workers once the cluster has grown as far as it may; `encoders`: the cores that those take."""
    if each > resources.node_cpus > 0 and each > resources.largest_cpus:
        raise ResourceError(
            f"a worker of {each:g} CPUs finds a place on no machine: the largest that the cluster may start has "
            f"{resources.largest_cpus:g}; lower decode.cpus"
        )
    room = int((resources.most_cpus - LIGHT_CPUS - encoders) / each)
    if workers > room or room < 1:
        raise ResourceError(
            f"the cluster may grow to {resources.most_cpus:g} CPUs, which hold {max(room, 0)} workers of {each:g} "
            f"beside the encoders; {workers or 1} were asked for: lower their number, or raise ray.max_cpus"
        )
    return workers or max(1, int(room * fraction))


def _refused(
    resources: Resources, workers: int, encoders: int, encoder_cpus: float, worker_cpus: float
) -> ResourceError:
    if resources.cpus < 1:
        return ResourceError(
            f"the cluster has {resources.cpus:g} CPUs now: say what it may grow to with --set ray.max_cpus=N (or "
            "RAYDIST_RAY_MAX_CPUS on its head), or add a machine for the workers"
        )
    needed = LIGHT_CPUS + encoder_cpus * encoders + (worker_cpus or SMALLEST_SHARE) * workers
    return ResourceError(
        f"the cluster has {resources.cpus:g} CPUs; {workers} workers and {encoders} encoders "
        f"need at least {needed:g}: add CPUs, or lower their numbers (a cluster that gets nodes when they are asked "
        "for: set ray.max_cpus)"
    )
