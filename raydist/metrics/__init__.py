"""metrics: retrieval accuracy, how sure one can be of it, and whether two models differ.

Takes    unit vectors of videos and texts, and which belongs to which
Gives    ranks, recall at 1, 5 and 10, median rank (`ranking`); intervals over groups of videos, a paired test
         (`resampling`)
Promise  pure functions of their arguments: the same numbers and seed give the same figures everywhere
"""

from raydist.metrics.ranking import DEPTHS, Groups, Places, Ranks, Retrieval, chance, groups, ranks, summarise
from raydist.metrics.resampling import FIGURES, FLIPS, LEVEL, RESAMPLES, Bounds, Comparison, bootstrap, compare

__all__ = [
    "DEPTHS",
    "FIGURES",
    "FLIPS",
    "LEVEL",
    "RESAMPLES",
    "Bounds",
    "Comparison",
    "Groups",
    "Places",
    "Ranks",
    "Retrieval",
    "bootstrap",
    "chance",
    "compare",
    "groups",
    "ranks",
    "summarise",
]
