"""Ray: the session that a stage runs in, the plan that fits the cluster, and work as a dataset."""

from raydist.runtime.data import blocks, references, units_of
from raydist.runtime.planning import ENCODER_CPUS, LIGHT_CPUS, SMALLEST_SHARE, Plan, Resources, plan
from raydist.runtime.start import interrupts_kept, session

__all__ = [
    "ENCODER_CPUS",
    "LIGHT_CPUS",
    "SMALLEST_SHARE",
    "Plan",
    "Resources",
    "blocks",
    "interrupts_kept",
    "plan",
    "references",
    "session",
    "units_of",
]
