"""What a captioning run will ask, take and cost, before anything is sent.

Reads     the clips that wait; a few of them are made ready as they would be sent; reports of earlier runs of the same
          model and prompt, whose tokens go before those of the price table
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pyarrow as pa

from raydist.caption.asking import Media
from raydist.caption.prepare import Preparer, Sending
from raydist.caption.prices import Price, media_tokens, text_tokens
from raydist.caption.prompt import Prompt
from raydist.records import Limits
from raydist.store import objects
from raydist.store.runs import FOLDER, listed

SAMPLE = 6
"""Clips that are made ready, to see what that takes."""

_EXPECTED = {"plain": 18, "brief": 8}
_FORM = 8
"""Tokens of an answer around its captions."""
_REPORTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What making some clips ready took, each on average."""

    clips: int
    failed: int
    cpu_s: float
    seconds: float
    bytes: float
    tokens: float
    """Of their media, by the price table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of a run over `clips` clips."""

    clips: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    """None: no table has the model's price."""
    source: str
    """Where the tokens a clip are from."""
    measured: bool
    """Whether they are those of earlier runs."""
    sample: Sample


def prepare_some(
    units: pa.Table, roots: Mapping[str, str], sending: Sending, limits: Limits, price: Price | None
) -> Sample:
    """Make the clips of a few units ready in this process, and measure that.

    Args:
        units: as `clips.units` gives them, of `SAMPLE` clips or fewer.
    """
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    for table in Preparer(roots, sending, limits)(units):
        rows.extend(table.to_pylist())
    seconds = time.monotonic() - began
    good = [row for row in rows if not row["reason"]]
    return Sample(
        clips=len(rows),
        failed=len(rows) - len(good),
        cpu_s=_mean([row["prepare_cpu_s"] for row in rows]),
        seconds=seconds / max(1, len(rows)),
        bytes=_mean([len(row["clip"] or b"") + sum(map(len, row["frames"] or ())) for row in good]),
        tokens=_mean([media_tokens(price, _media(row)) for row in good]),
    )


def estimate(
    clips: int, sample: Sample, prompt: Prompt, price: Price | None, measured: tuple[float, float, int] | None
) -> Estimate:
    """Tokens and money for so many clips like those of the sample.

    Args:
        measured: see `measured_tokens`.
    """
    if measured is not None:
        tokens_in, tokens_out, seen = measured
        source = f"measured on {seen:,} clips of earlier runs"
    else:
        tokens_in = text_tokens(prompt.words()) + sample.tokens
        tokens_out = _FORM + sum(_EXPECTED.get(detail, prompt.room) for detail in prompt.details)
        source = "by the price table" if price else "as Gemini counts pictures: the model is in no price table"
    total_in, total_out = round(clips * tokens_in), round(clips * tokens_out)
    return Estimate(
        clips=clips,
        tokens_in=total_in,
        tokens_out=total_out,
        cost=price.cost(total_in, total_out) if price else None,
        source=source,
        measured=measured is not None,
        sample=sample,
    )


def measured_tokens(location: str, origin: str, prompt_hash: str) -> tuple[float, float, int] | None:
    """Tokens in and out a clip, and of how many clips, in earlier runs of the same model and prompt; None: none was."""
    tokens_in = tokens_out = clips = 0
    reports = sorted(listed(location, "caption-*/report.json"), reverse=True)
    for name in reports[:_REPORTS]:
        try:
            report = json.loads(objects.read(location, f"{FOLDER}/{name}") or b"")
        except (OSError, ValueError):
            continue
        details = report.get("details") if isinstance(report, dict) else None
        if not details or (details.get("origin"), details.get("prompt_hash")) != (origin, prompt_hash):
            continue
        tokens_in += details.get("tokens_in", 0)
        tokens_out += details.get("tokens_out", 0)
        clips += details.get("answered", 0)
    return (tokens_in / clips, tokens_out / clips, clips) if clips else None


def _media(row: Mapping[str, Any]) -> Media:
    return Media(
        frames=tuple(row["frames"] or ()),
        clip=row["clip"] or b"",
        width_px=row["width_px"],
        height_px=row["height_px"],
        duration_s=row["duration_s"],
    )


def _mean(values: Sequence[float]) -> float:
    return mean(values) if values else 0.0
