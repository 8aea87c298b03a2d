"""Every query with its ranks, the ones that got worse first: in a file, and as lines for a person."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raydist.eval.figures import Measured

FILE = "queries.csv"


def write(measured: Measured, file: Path) -> None:
    """All queries of both directions as CSV, from the largest loss of rank to the largest gain.

    Columns: direction, query, right (the clip ids or captions that belong to it), base_rank, adapter_rank.
    """
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = list(listed(measured))
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def listed(measured: Measured) -> Iterator[dict[str, Any]]:
    """The rows of the file."""
    clips, texts = measured.pairs["clip_id"].to_pylist(), measured.queries.texts
    for name, direction in measured.directions.items():
        is_text = name == "text_to_video"
        right = right_answers(measured, name)
        for query in direction.order().tolist():
            ranks = [float(places.ranks[query]) for places in direction.places]
            yield {
                "direction": name,
                "query": texts[query] if is_text else clips[query],
                "right": " | ".join((clips if is_text else texts)[row] for row in right[query]),
                "base_rank": f"{ranks[0]:g}",
                **({"adapter_rank": f"{ranks[1]:g}"} if len(ranks) > 1 else {}),
            }


def right_answers(measured: Measured, direction: str) -> list[list[int]]:
    """Rows of the right clips of each text, or of the right texts of each clip."""
    count = len(measured.queries.texts) if direction == "text_to_video" else len(measured.pairs)
    own, other = (1, 0) if direction == "text_to_video" else (0, 1)
    found: list[list[int]] = [[] for _ in range(count)]
    for pair in measured.queries.pairs_P2.tolist():
        found[pair[own]].append(pair[other])
    return found


def worst(measured: Measured, direction: str, most: int) -> list[dict[str, Any]]:
    """The queries whose rank got worse, the largest loss first; none where there is one model."""
    way = measured.directions[direction]
    if len(way.places) < 2:
        return []
    base_Q, adapter_Q = (places.ranks for places in way.places)
    lost = [row for row in way.order().tolist() if adapter_Q[row] > base_Q[row]]
    clips, texts = measured.pairs["clip_id"].to_pylist(), measured.queries.texts
    right = right_answers(measured, direction)
    is_text = direction == "text_to_video"
    return [
        {
            "query": texts[row] if is_text else clips[row],
            "right": [(clips if is_text else texts)[answer] for answer in right[row]],
            "base_rank": float(base_Q[row]),
            "adapter_rank": float(adapter_Q[row]),
        }
        for row in lost[:most]
    ]


def gains_and_losses(measured: Measured, most: int) -> tuple[list[int], list[int]]:
    """Texts whose clip moved up most, and down most; of one model: none, and the texts it finds worst."""
    way = measured.directions["text_to_video"]
    order = way.order()
    if len(way.places) < 2:
        return [], order[:most].tolist()
    change_Q = way.places[1].ranks - way.places[0].ranks
    losses = [int(row) for row in order[: 2 * most] if change_Q[row] > 0][:most]
    gains = [int(row) for row in order[::-1][: 2 * most] if change_Q[row] < 0][:most]
    return gains, losses
