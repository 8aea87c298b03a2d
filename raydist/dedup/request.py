"""What a person asks of dedup, beyond the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raydist.config import Config
from raydist.dedup import decisions
from raydist.dedup.groups import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person asks of dedup, beyond the settings."""

    against: str | None = None
    """Another archive: only pairs of a clip here and a clip there are looked for, and its clips always stay."""
    different: Sequence[tuple[str, str]] = ()
    """Pairs of clips or videos that are no duplicates."""
    same: Sequence[tuple[str, str]] = ()
    """Pairs that are."""
    keep: Sequence[str] = ()
    """Clips or videos that stay."""
    decisions: str | None = None
    """A list of such decisions."""
    by: str = ""
    """Who says so; empty: the user."""
    retry_failed: bool = False
    """Try clips again that could not be read in an earlier run."""
    sheet: str | None = None
    """Where the review sheet goes; None: into the run's folder."""

    def said(self, archive_b: str) -> list[dict[str, Any]]:
        """The decisions as rows; the second of a pair is of the other archive where there is one."""
        rows = decisions.read_file(self.decisions) if self.decisions else []
        rows += [decisions.pair(a, b, "different", archive_b) for a, b in self.different]
        rows += [decisions.pair(a, b, "duplicate", archive_b) for a, b in self.same]
        return rows + [decisions.clip(name, keep=True) for name in self.keep]

    def rules(self, config: Config) -> Rules:
        """Which pairs count. Pairs that are not to be read can only count by their vectors."""
        section = config.dedup
        return Rules(
            threshold=section.threshold,
            copies_only=section.drop == "copies" and section.read,
            cover=section.cover,
            priorities=section.keep,
        )
