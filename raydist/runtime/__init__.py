"""Ray: the session that a stage runs in, the plan that fits the cluster, and work as a dataset."""

from raydist.runtime.bounds import PlacesLostError
from raydist.runtime.data import blocks, references, units_of
from raydist.runtime.held import got, made_of
from raydist.runtime.planning import ENCODER_CPUS, SMALLEST_SHARE, Plan, announce, described, plan
from raydist.runtime.resources import LIGHT_CPUS, Node, Resources
from raydist.runtime.start import interrupts_kept, session, take_stops

__all__ = [
    "ENCODER_CPUS",
    "LIGHT_CPUS",
    "SMALLEST_SHARE",
    "Node",
    "PlacesLostError",
    "Plan",
    "Resources",
    "announce",
    "blocks",
    "described",
    "got",
    "interrupts_kept",
    "made_of",
    "plan",
    "references",
    "session",
    "take_stops",
    "units_of",
]
