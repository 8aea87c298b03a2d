"""How many processes a run uses, and what each takes of the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from raydist.errors import ResourceError

LIGHT_CPUS = 1.0
"""Kept free for reading the manifest: a plan whose actors hold every core would wait for ever."""

ENCODER_CPUS = 0.5
"""Logical cores of an encoder. On a CPU-only machine it computes on all cores; the system shares them with decoders."""

SMALLEST_SHARE = 0.05
"""Logical cores under which a decoder is not worth starting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the cluster offers to this run."""

    cpus: float
    gpus: float
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many processes a run uses and what each takes of the cluster."""

    workers: int
    worker_cpus: float
    encoders: int = 0
    encoder_gpus: float = 0.0


def plan(
    resources: Resources,
    *,
    workers: int,
    encoders: int | None = None,
    gpus: bool = False,
    encoder_cpus: float = ENCODER_CPUS,
) -> Plan:
    """Fit processes into the cluster. A count of 0 means as many as fit; `encoders=None` means none.

    Raises:
        ResourceError: if the cluster cannot run it; such a plan would wait for ever.
    """
    if encoders == 0:
        encoders = int(resources.gpus) if gpus else max(1, min(resources.nodes, int(resources.cpus // 2)))
    encoder_count = encoders or 0
    if gpus and encoder_count > resources.gpus:
        raise ResourceError(
            f"{encoder_count} encoders need a GPU each, the cluster has {resources.gpus:g}: "
            "lower embed.encoders, or set embed.device=cpu"
        )
    worker_count = workers or max(1, int(resources.cpus - LIGHT_CPUS))
    share = (resources.cpus - LIGHT_CPUS - encoder_cpus * encoder_count) / worker_count
    if share < SMALLEST_SHARE:
        needed = LIGHT_CPUS + encoder_cpus * encoder_count + SMALLEST_SHARE * worker_count
        raise ResourceError(
            f"the cluster has {resources.cpus:g} CPUs; {worker_count} workers and {encoder_count} encoders need at "
            f"least {needed:g}: add CPUs, or lower their numbers"
        )
    # Rounded down: Ray counts in ten-thousandths, and a sum above the total would never be scheduled.
    return Plan(
        workers=worker_count,
        worker_cpus=int(min(1.0, share) * 1000) / 1000,
        encoders=encoder_count,
        encoder_gpus=1.0 if gpus else 0.0,
    )
