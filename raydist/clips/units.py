"""Units of decoding work: spans of one file stay together, a unit is worth some seconds, units come in mixed order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa

CLIPS_A_UNIT = 32
"""Seconds of decoding against Ray's 10 ms a block, and a 10-hour file still spreads over all workers."""

_FEWEST, _UNITS = 4, 64
"""A small archive is cut finer, so that all workers have something to do until the end."""

ENDING = 64
"""Units at the end of a run that are cut as fine, so that no worker has a long one when the others are done."""

_CLIP = pa.struct(
    [
        ("clip_key", pa.int64()),
        ("clip_id", pa.string()),
        ("fingerprint", pa.string()),
        ("start_ms", pa.int64()),
        ("end_ms", pa.int64()),
        ("split", pa.string()),
        ("has_signature", pa.bool_()),
    ]
)
_FILE = pa.struct(
    [
        ("video_id", pa.string()),
        ("root", pa.string()),
        ("path", pa.string()),
        ("file_fingerprint", pa.string()),
        ("clips", pa.list_(_CLIP)),
    ]
)
UNITS = pa.schema([("files", pa.list_(_FILE))])
CLIP_COLUMNS = _CLIP.names


def clips_a_unit(clips: int) -> int:
    """The size of units for so many clips."""
    return min(CLIPS_A_UNIT, max(_FEWEST, clips // _UNITS))


def units(
    clips: Iterable[dict[str, Any]],
    files: dict[str, dict[str, Any]],
    size: int = CLIPS_A_UNIT,
    seed: int = 0,
    *,
    ending: bool = False,
) -> pa.Table:
    """Pack clips (in the order of their files) into units.

    Args:
        clips: rows with `video_id` and the columns of a clip.
        files: video id -> root, path and file fingerprint.
        size: most clips of a unit.
        seed: of the order of the units. Mixed, so that a batch of the encoder holds clips of many videos and long
            files do not pile up at the end.
        ending: nothing comes after these: the last of them are small ones.
    """
    packed = list(_pack(clips, files, size))
    random.Random(seed).shuffle(packed)
    if ending:
        whole = max(0, len(packed) - ENDING)
        packed[whole:] = [part for unit in packed[whole:] for part in _cut(unit)]
    return pa.Table.from_pylist([{"files": unit} for unit in packed], UNITS)


def _cut(unit: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """A unit as several of the smallest size."""
    files = {file["video_id"]: {name: file[name] for name in file if name != "clips"} for file in unit}
    clips = [{**clip, "video_id": file["video_id"]} for file in unit for clip in file["clips"]]
    yield from _pack(clips, files, _FEWEST)


def _pack(
    clips: Iterable[dict[str, Any]], files: dict[str, dict[str, Any]], size: int
) -> Iterator[list[dict[str, Any]]]:
    unit: list[dict[str, Any]] = []
    room = size
    for video_id, group in groupby(clips, key=lambda clip: clip["video_id"]):
        spans = [{name: clip[name] for name in CLIP_COLUMNS} for clip in group]
        while spans:
            unit.append({"video_id": video_id, **files[video_id], "clips": spans[:room]})
            spans, room = spans[room:], room - len(spans[:room])
            if room == 0:
                yield unit
                unit, room = [], size
    if unit:
        yield unit
