"""What failed in a stretch of time, by stage and reason, with an example each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raydist.records import REASONS
from raydist.store import read

_DETAIL_CHARS = 300


@dataclass(slots=True, kw_only=True)
class Reason:
    """Failures of one stage for one reason."""

    stage: str
    reason: str
    count: int = 0
    example: str = ""
    """A file, or a clip's file where the clip's own name is not kept."""
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """For tools."""
        return {
            "stage": self.stage,
            "reason": self.reason,
            "what": REASONS.get(self.reason, ""),
            "count": self.count,
            "example": self.example,
            "detail": self.detail,
        }


def since(location: str, began: datetime, ended: datetime, stage: str = "") -> Sequence[Reason]:
    """The rows of `failures` of that time, the most frequent first; memory is that of the reasons."""
    found: dict[tuple[str, str], Reason] = {}
    where = f"at >= {_timestamp(began)} AND at <= {_timestamp(ended)}"
    if stage:
        where += f" AND stage = '{stage.replace(chr(39), chr(39) * 2)}'"
    columns = ["stage", "reason", "video_id", "detail"]
    for batch in read.scan_batches(location, "failures", columns, where=where, batch_size=65_536):
        counted = batch.to_pydict()
        for name, reason, video, detail in zip(*(counted[column] for column in columns), strict=True):
            kept = found.setdefault((name, reason), Reason(stage=name or "", reason=reason or "unknown"))
            kept.count += 1
            if not kept.example:
                kept.example, kept.detail = video or "", (detail or "")[:_DETAIL_CHARS]
    return sorted(found.values(), key=lambda reason: -reason.count)


def _timestamp(moment: datetime) -> str:
    return f"timestamp '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"
