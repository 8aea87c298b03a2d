"""eval: how well captions find their clips and clips their captions, base against adapter.

Reads   captioned clips of one split; the clips that the adapter's run was trained on, to leave them out
Writes  `runs/eval-<time>/`: report.json, queries.csv (every query with its ranks), report.html; cached frames
Again   the same archive, models and seed give the same figures
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raydist.eval.shown import as_json, render

if TYPE_CHECKING:
    from raydist.config import Config
    from raydist.records import Report

__all__ = ["as_json", "render", "run"]


def run(config: Config, *, retry_failed: bool = False) -> Report:
    """Measure `embed.model`, and `embed.adapter` on it where one is named, on the split `eval.split`.

    Args:
        config: `embed.model`, `embed.adapter` and [eval] matter.
        retry_failed: try clips again that could not be decoded earlier.

    Raises:
        ArchiveError: no archive, or a split on which retrieval tells nothing; the message says why and what helps.
        ModelError: the model or the adapter is unknown, not on this machine, or gives NaN.
        StoreError: no model was named and the archive has several.
        ResourceError: the cluster cannot run the plan, or frames would take more disk than `train.cache_gb`.
    """
    from raydist.eval.driver import run as run_stage  # here: it needs torch, and `raydist --help` does not

    return run_stage(config, retry_failed=retry_failed)
