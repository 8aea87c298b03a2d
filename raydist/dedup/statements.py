"""dedup/statements: copies of clips of one video pair with one offset -> "this stretch of b is that stretch of a".

Pure functions of Arrow tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.store import schema

OFFSET_S = 1.0
"""Copies whose lines are nearer than this to each other at both ends are of one statement."""

GAP_S = 3.0
"""Seconds that may lie between two stretches of one statement: the ends of an overlap are where its pictures prove it,
and a shot of a second or two proves nothing by itself."""

_ENDS = ("_from_s", "_to_s")


def overlaps(pairs: pa.Table) -> pa.Table:
    """What stretches of videos show the same.

    Args:
        pairs: rows of `schema.PAIRS`; those that are no copies count nothing.

    Returns:
        Rows of `schema.VIDEO_OVERLAPS`, sorted by the videos and the start in a.
    """
    copies = [_in_order(pair) for pair in pairs.filter(pc.equal(pairs["kind"], "copy")).to_pylist()]
    copies.sort(
        key=lambda pair: (pair["archive_b"] or "", pair["a_video"], pair["b_video"], pair["a_from_s"], pair["b_from_s"])
    )
    found: list[dict[str, Any]] = []
    for _, group in groupby(copies, key=lambda pair: (pair["archive_b"] or "", pair["a_video"], pair["b_video"])):
        for chain in _chains(list(group)):
            found.append(_statement(chain))
    return pa.Table.from_pylist(found, schema.VIDEO_OVERLAPS)


def bridged(pairs: pa.Table, overlaps: pa.Table) -> list[tuple[float, float, float, float]]:
    """What the clips of each pair show of each other when what lies inside of a statement is taken as shown.

    Args:
        pairs: copies, rows of `schema.PAIRS`.
        overlaps: their statements.

    Returns:
        For each pair the start and end in a, then in b; never less than the pair itself says.
    """
    lines: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for statement in overlaps.to_pylist():
        lines.setdefault(_videos(statement), []).append(statement)
    return [_bridged(pair, lines.get(_videos(pair), [])) for pair in pairs.to_pylist()]


def _videos(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["archive_b"] or "", row["a_video"], row["b_video"]


def _bridged(pair: dict[str, Any], statements: Sequence[dict[str, Any]]) -> tuple[float, float, float, float]:
    a_from, a_to, b_from, b_to = (float(pair[name]) for name in ("a_from_s", "a_to_s", "b_from_s", "b_to_s"))
    (a_start, a_end), (b_start, b_end) = (_span(pair[name]) for name in ("a_id", "b_id"))
    for line in statements:
        speed = line["speed"]
        inside = line["a_from_s"] <= a_from + 0.01 and a_to <= line["a_to_s"] + 0.01
        if inside and abs(line["b_from_s"] + speed * (a_from - line["a_from_s"]) - b_from) <= OFFSET_S:
            low = max(line["a_from_s"], a_start, a_from + (b_start - b_from) / speed)
            high = min(line["a_to_s"], a_end, a_from + (b_end - b_from) / speed)
            low, high = min(low, a_from), max(high, a_to)
            return low, high, min(b_from, b_from + speed * (low - a_from)), max(b_to, b_from + speed * (high - a_from))
    return a_from, a_to, b_from, b_to


def _span(clip_id: str) -> tuple[float, float]:
    start, end = clip_id.rpartition("#t=")[2].split(",")
    return float(start), float(end)


def _in_order(pair: dict[str, Any]) -> dict[str, Any]:
    """Within one video, the earlier stretch is a: the order of clip ids is that of text."""
    if pair["archive_b"] or pair["a_video"] != pair["b_video"] or pair["a_from_s"] <= pair["b_from_s"]:
        return pair
    turned = {"a": "b", "b": "a"}
    return {turned.get(name[0], name[0]) + name[1:] if name[1:] in _ENDS else name: pair[name] for name in pair}


def _chains(pairs: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Pairs that go on where another ends, in a and in b."""
    chains: list[list[dict[str, Any]]] = []
    for pair in pairs:
        for chain in chains:
            if any(_goes_on(other, pair) for other in chain[-4:]):
                chain.append(pair)
                break
        else:
            chains.append([pair])
    return chains


def _goes_on(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether `after` begins in both videos where `before` is, or at its end."""
    speed = (
        _speed([before])
        if before["a_to_s"] - before["a_from_s"] >= after["a_to_s"] - after["a_from_s"]
        else _speed([after])
    )
    expected = before["b_from_s"] + speed * (after["a_from_s"] - before["a_from_s"])
    return bool(abs(expected - after["b_from_s"]) <= OFFSET_S and after["a_from_s"] <= before["a_to_s"] + GAP_S)


def _speed(pairs: Sequence[dict[str, Any]]) -> float:
    """Seconds of b a second of a, over the ends of all pairs."""
    ends = np.array([(pair[f"a_{end}"], pair[f"b_{end}"]) for pair in pairs for end in ("from_s", "to_s")])
    spread = ends - ends.mean(axis=0)
    length = float((spread[:, 0] ** 2).sum())
    return float((spread[:, 0] * spread[:, 1]).sum() / length) if length > 0 else 1.0


def _statement(chain: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, last = chain[0], max(chain, key=lambda pair: float(pair["a_to_s"]))
    speed = _speed(chain)
    return {
        "a_video": first["a_video"],
        "b_video": first["b_video"],
        "archive_b": first["archive_b"],
        "a_from_s": first["a_from_s"],
        "a_to_s": last["a_to_s"],
        "b_from_s": first["b_from_s"],
        "b_to_s": last["b_to_s"],
        "offset_s": first["b_from_s"] - first["a_from_s"],
        "speed": 1.0 if abs(speed - 1) < 0.01 else speed,
        "pairs": len(chain),
        "confidence": max(pair["confidence"] or 0.0 for pair in chain),
        "at": datetime.now(UTC),
    }
