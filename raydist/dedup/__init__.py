"""dedup: vectors, and frames of candidate pairs -> copies, groups and keepers.

Reads   `embeddings_<model_key>`, `signatures`, `videos`, `decisions`, and frames of candidate pairs
Writes  `traces`, `duplicates_<model_key>`, `overlaps_<model_key>`, `groups_<model_key>`, `joined_<model_key>`,
        `decisions`; `runs/dedup-<time>/`: report.json, dedup.json, dedup.html, groups.csv, keep.txt, keep0.txt
Again   safe after any crash: clips that are joined are not joined again, pairs that are known not read again, none is
        stored twice. Nothing of a person's is ever deleted
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raydist.dedup.request import Request
from raydist.dedup.summary import as_json, render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from raydist.config import Config
    from raydist.records import Report

__all__ = ["Request", "as_json", "pairs", "render", "run", "sweep"]


def run(config: Config, request: Request | None = None) -> Report:
    """Find duplicates among the archive's clips, or between them and another archive's.

    Args:
        config: [dedup], and the model of [embed].
        request: what else is asked.

    Raises:
        ArchiveError: no archive, nothing embedded, or `against` is the archive itself.
        StoreError: no model was named and the archive has several, the other has no vectors of it, or another run of
            dedup is at work.
        UsageError: a decision that names no clip or video.
        ResourceError: the cluster cannot run the plan.
    """
    from raydist.dedup.driver import run as run_stage  # here: it needs scipy and Lance, and `raydist --help` does not

    return run_stage(config, request or Request())


def sweep(config: Config, sheet: str | None = None) -> Report:
    """Pairs, groups and examples by threshold; nothing is written but a sheet and the report.

    Raises:
        ArchiveError: no archive, or fewer than two vectors.
        StoreError: no model was named and the archive has several.
    """
    from raydist.dedup.sweep import run as run_sweep

    return run_sweep(config, sheet)


def pairs(config: Config, report: Report) -> Iterator[dict[str, Any]]:
    """The pairs behind a report, as `--pairs` prints them: those that count, most alike first."""
    from raydist.dedup.settled import pairs_of

    return pairs_of(config, report)
