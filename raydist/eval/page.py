"""The page of an evaluation: its figures, and the captions whose clips moved most, with strips of what they find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydist.clips.decoder import Geometry
from raydist.clips.naming import locate
from raydist.config import Config
from raydist.eval import worse
from raydist.eval.figures import Measured
from raydist.eval.shown import FEW_CLIPS, headline, table
from raydist.frames.reader import FrameReader
from raydist.sheets import THUMB_HEIGHT_PX, THUMB_WIDTH_PX, Hit, Row, Table, contact_sheet
from raydist.store import read, roots

# Shape legend: N clips, S models, B clips, T frames, H height, W width, E embedding size

FILE = "report.html"

FIRST = 2
"""Clips that each model finds first, beside the right one."""

_LISTED = 1_000
"""Queries that got worse on the page; the file beside it has all."""
_BATCH = 16

Frames = Mapping[int, NDArray[np.uint8]]


def write(config: Config, measured: Measured, geometry: Geometry, file: Path) -> None:
    """Write the page; it asks for nothing outside itself."""
    gains, losses = worse.gains_and_losses(measured, config.eval.strips)
    found = {text: _found(measured, text) for text in (*gains, *losses)}
    location = config.require_archive()
    places = roots.places(location, config.roots)
    clips = sorted({clip for shown in found.values() for clip, _ in shown})
    frames = _frames(config, measured, geometry, places, clips)
    compared = len(measured.models) > 1
    rows = [
        *_part(measured, "Largest gains", gains, found, frames, places),
        *_part(
            measured,
            "Largest losses" if compared else "Captions that find their clip last",
            losses,
            found,
            frames,
            places,
        ),
    ]
    file.write_text(
        contact_sheet(_title(measured), rows, lead=_lead(measured), facts=_facts(measured), tables=_tables(measured)),
        encoding="utf-8",
    )


def _title(measured: Measured) -> str:
    return " against ".join(info.name for info in reversed(measured.models))


def _lead(measured: Measured) -> str:
    figures = measured.as_json()
    sure = f"{headline(figures)}. " if figures["clips"] < FEW_CLIPS else ""
    how = (
        "Each caption below searches the clips of the split; strips are what it finds first, the right clip is marked. "
    )
    return (
        f"{sure}Split {measured.split}: {figures['clips']:,} clips of {figures['videos']:,} videos, "
        f"{figures['captions']:,} captions. {how}{' '.join(f'{note}.' for note in measured.notes)}"
    )


def _facts(measured: Measured) -> list[tuple[str, str]]:
    figures = measured.as_json()
    facts = []
    for role in ("base", "adapter"):
        if role in figures:
            facts.append(
                (f"{figures[role]['text_to_video']['r1']:.1f} %", f"right clip first, {figures[role]['model']}")
            )
    chance = figures["chance"]["text_to_video"]["r1"]
    facts.append((f"{chance:.1f} %", "by chance"))
    if "difference" in figures:
        way = figures["difference"]["text_to_video"]
        facts.append((f"{way['worse']:,}", "captions find their clip later than with the base"))
        facts.append((f"{way['better']:,}", "find it earlier"))
    return facts


def _tables(measured: Measured) -> list[Table]:
    head, *rows = table(measured.as_json())
    tables = [Table(title="Figures, with 95 % intervals over videos", head=head, rows=rows)]
    for direction, title in (("text_to_video", "captions"), ("video_to_text", "clips")):
        lost = worse.worst(measured, direction, _LISTED)
        if lost:
            every = measured.as_json()["difference"][direction]["worse"]
            most = "" if every <= _LISTED else f", the {_LISTED:,} largest losses ({worse.FILE} has all)"
            tables.append(
                Table(
                    title=f"{every:,} {title} with a lower rank than with the base{most}",
                    head=("query", "base", "adapter"),
                    rows=[(row["query"], f"{row['base_rank']:g}", f"{row['adapter_rank']:g}") for row in lost],
                    folded=True,
                )
            )
    return tables


def _found(measured: Measured, text: int) -> list[tuple[int, str]]:
    """Clips to show of a caption, with their labels: the right one, then what each model finds first."""
    (way,) = (measured.directions[name] for name in ("text_to_video",))
    right = worse.right_answers(measured, "text_to_video")[text]
    scores_SN = _scores(measured, text)
    best = max(right, key=lambda clip: scores_SN[-1, clip])
    ranks = " → ".join(f"{places.ranks[text]:g}" for places in way.places)
    shown = [(best, f"right clip: {ranks}")]
    roles = ("base", "adapter") if len(way.places) > 1 else ("hit",)
    for role, scores_N in zip(roles, scores_SN, strict=True):
        first = np.argsort(-scores_N, kind="stable")[: FIRST * (3 - len(roles))]
        shown.extend((int(clip), f"{role} {rank}") for rank, clip in enumerate(first, start=1))
    return shown


def _scores(measured: Measured, text: int) -> NDArray[np.float32]:
    """[S, N] of a caption with all clips."""
    scores: NDArray[np.float32] = np.einsum("sne,se->sn", measured.video_SNE, measured.text_SME[:, text])
    return scores


def _part(
    measured: Measured,
    heading: str,
    texts: Sequence[int],
    found: Mapping[int, list[tuple[int, str]]],
    frames: Frames,
    places: Mapping[str, str],
) -> Iterable[Row]:
    way = measured.directions["text_to_video"]
    right = worse.right_answers(measured, "text_to_video")
    for number, text in enumerate(texts):
        ranks = [f"{one.ranks[text]:g}" for one in way.places]
        moved = f"rank {ranks[0]} with the base, {ranks[1]} with the adapter" if len(ranks) > 1 else f"rank {ranks[0]}"
        scores_SN = _scores(measured, text)
        hits = [
            _hit(
                measured.pairs.slice(clip, 1).to_pylist()[0],
                frames.get(clip),
                float(scores_SN[0 if label.startswith("base") else -1, clip]),
                label,
                clip in right[text],
                places,
            )
            for clip, label in found[text]
        ]
        yield Row(
            query=measured.queries.texts[text],
            hits=hits,
            note=f"{moved}, of {len(measured.pairs):,} clips",
            heading="" if number else heading,
        )


def _hit(
    clip: Mapping[str, Any],
    frames_THWC: NDArray[np.uint8] | None,
    score: float,
    label: str,
    right: bool,
    places: Mapping[str, str],
) -> Hit:
    path = locate(places[clip["root"]], clip["path"]).encode(errors="surrogateescape").decode(errors="replace")
    return Hit(
        clip_id=clip["clip_id"],
        score=score,
        start_s=clip["start_s"],
        end_s=clip["end_s"],
        frames=frames_THWC,
        caption=clip["captions"][0],
        right=right,
        path=path,
        label=label,
    )


def _frames(
    config: Config, measured: Measured, geometry: Geometry, places: Mapping[str, str], clips: Sequence[int]
) -> Frames:
    """Frames of clips in their videos' shape: from the cache, or decoded again where the model's are too small."""
    location, encoding = config.require_archive(), config.train.cache
    if geometry.size_px < THUMB_HEIGHT_PX:
        geometry, encoding = replace(geometry, size_px=THUMB_WIDTH_PX, resize="squash-bicubic"), "none"
    reader = FrameReader(location, geometry, places, config.limits(), encoding=encoding)
    found: dict[int, NDArray[np.uint8]] = {}
    shapes = _shapes(location, measured.pairs.take(list(clips))["video_id"].to_pylist()) if clips else {}
    try:
        for start in range(0, len(clips), _BATCH):
            rows = measured.pairs.take(list(clips[start : start + _BATCH]))
            frames_BTHWC, good_B = reader.read(rows)
            names = rows["video_id"].to_pylist()
            for clip, frames_THWC, good, name in zip(clips[start:], frames_BTHWC, good_B, names, strict=False):
                if good:
                    found[clip] = frames_THWC if geometry.resize == "clip" else _stretched(frames_THWC, *shapes[name])
    finally:
        reader.close()
    return found


def _shapes(location: str, videos: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Video id -> width and height as shown."""
    columns = ["video_id", "width", "height", "rotation"]
    rows = read.rows_by_key(location, "videos", sorted(set(videos)), columns, key="video_id").to_pylist()
    return {
        row["video_id"]: (row["height"], row["width"])
        if (row["rotation"] or 0) % 180
        else (row["width"], row["height"])
        for row in rows
    }


def _stretched(frames_THWC: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Squashed frames, in the video's shape again."""
    scale = min(THUMB_WIDTH_PX / max(1, width_px), THUMB_HEIGHT_PX / max(1, height_px))
    size = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames_THWC])
