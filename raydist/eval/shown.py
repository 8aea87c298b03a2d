"""An evaluation's report for a person and for tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raydist import rendering as reports
from raydist.records import Report

FEW_CLIPS = 100
"""With fewer, how sure the figures are comes before the figures."""

_NAMES = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "median_rank": "MedR"}
_TITLES = {"text_to_video": "text → video", "video_to_text": "video → text"}
_WORST = 5
_WIDEST = 72


def as_json(report: Report) -> dict[str, Any]:
    """The figures on the top level, then what every stage reports."""
    whole = reports.as_json(report)
    details = whole.pop("details")
    return {**details, **{key: value for key, value in whole.items() if key not in details}}


def render(report: Report) -> str:
    """A table: split and clips, both directions with intervals, chance, what got worse, notes."""
    found = report.details
    lines = [headline(found), ""] if found["clips"] < FEW_CLIPS else []
    models = [found[role]["model"] for role in ("base", "adapter") if role in found]
    lines.append(
        f"eval: split {found['split']}, {found['clips']:,} clips of {found['videos']:,} videos, "
        f"{found['captions']:,} captions; {' against '.join(models)}, in {report.seconds:,.1f} s"
    )
    lines.extend(_aligned(table(found)))
    if "difference" in found:
        for name, title in _TITLES.items():
            lines.extend(_worse(title, found["difference"][name], report.details["got_worse"][name]))
    for reason, count in report.failures.items():
        lines.append(f"  failed: {count:,} {reason}; left out of all figures")
    lines.extend(f"  {note}" for note in report.notes)
    return "\n".join(lines)


def headline(found: Mapping[str, Any]) -> str:
    """How sure the main figure is, in a sentence."""
    start = f"Only {found['clips']:,} clips in the split {found['split']}"
    role = "adapter" if "adapter" in found else "base"
    ends = found[role]["text_to_video"]["interval"]["r1"]
    if ends is None:
        return f"{start}, all of one group of videos: nothing says how sure these figures are"
    said = f"{start}: with 95 % confidence R@1 text → video of {found[role]['model']} is in {_ends(ends)} %"
    if "difference" not in found:
        return said
    difference = found["difference"]["text_to_video"]["interval"]["r1"]
    verdict = "" if difference[0] > 0 or difference[1] < 0 else ", which may be no difference at all"
    return f"{said}, and it differs from the base by {_ends(difference, '+')} points{verdict}"


def table(found: Mapping[str, Any]) -> list[list[str]]:
    """The figures as cells, the head first."""
    compared = "difference" in found
    heads = ["", "base", *(["adapter", "adapter - base", "p"] if compared else []), "chance"]
    rows = [heads]
    for name, title in _TITLES.items():
        rows.append([title, *([""] * (len(heads) - 1))])
        for figure, short in _NAMES.items():
            cells = [_cell(found[role][name], figure) for role in ("base", "adapter") if role in found]
            if compared:
                difference = found["difference"][name]
                p = difference["p"]
                cells += [_cell(difference, figure, "+"), "" if p is None else _p(p[figure])]
            rows.append([f"  {short}", *cells, f"{found['chance'][name][figure]:.1f}"])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "   ".join(cells)).rstrip()


def _cell(scores: Mapping[str, Any], figure: str, sign: str = "") -> str:
    ends = scores["interval"][figure]
    return f"{scores[figure]:{sign}.1f}" + (f" {_ends(ends, sign)}" if ends is not None else "")


def _ends(ends: list[float], sign: str = "") -> str:
    return f"[{ends[0]:{sign}.1f}, {ends[1]:{sign}.1f}]"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _worse(title: str, difference: Mapping[str, Any], lost: list[dict[str, Any]]) -> Iterator[str]:
    counts = {key: difference[key] for key in ("worse", "better", "same")}
    yield (
        f"  {title}: {counts['worse']:,} queries rank lower than with the base, {counts['better']:,} higher, "
        f"{counts['same']:,} as before" + ("; the largest losses:" if lost else "")
    )
    for query in lost[:_WORST]:
        yield f"    {query['base_rank']:g} → {query['adapter_rank']:g}  {_short(query['query'])}"


def _short(text: str) -> str:
    """On one line of a terminal, whatever it holds."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= _WIDEST else shown[: _WIDEST - 1] + "…"
