"""From clips to files: which may go, and what of the others is shown elsewhere. Nothing is deleted here or anywhere."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raydist import address
from raydist.clips.naming import locate
from raydist.store import read


@dataclass(frozen=True, slots=True, kw_only=True)
class Redundant:
    """A file of which at least one clip is dropped."""

    video_id: str
    path: str
    """On this machine; bytes that are not UTF-8 are surrogates."""
    bytes: int
    may_go: bool
    """Whether every clip of it, embedded or not, is shown by a kept clip, and it is not the very file that stays."""
    spans_s: tuple[tuple[float, float], ...]
    """Its dropped clips; stretches that touch are one."""
    shown_by: tuple[str, ...]
    """Videos of the kept clips that stand for them; those of another archive with its name before them."""


def redundant(
    location: str, groups: pa.Table, kept_videos: Mapping[tuple[int, str], str], places: Mapping[str, str]
) -> list[Redundant]:
    """The files that have dropped clips, those that may go first.

    Args:
        groups: rows of `schema.GROUPED`.
        kept_videos: (clip key, archive) of kept clips -> their video.
        places: root name -> folder or address.
    """
    dropped = groups.filter(pc.invert(groups["keep"]))
    by_video: dict[str, dict[int, tuple[int, str]]] = defaultdict(dict)
    for key, video, by, archive in zip(
        *(dropped[name].to_pylist() for name in ("clip_key", "video_id", "kept_by", "archive_b")), strict=True
    ):
        by_video[video][key] = (by, archive)
    names = sorted(by_video)
    videos = read.rows_by_key(location, "videos", names, ["video_id", "root", "path", "bytes"], key="video_id")
    known = {row["video_id"]: row for row in videos.to_pylist()}
    clips: dict[str, list[dict[str, Any]]] = defaultdict(list)
    columns = ["clip_key", "video_id", "start_s", "end_s"]
    for row in read.rows_by_key(location, "clips", names, columns, key="video_id").to_pylist():
        clips[row["video_id"]].append(row)
    found = []
    for name in names:
        if name not in known:
            continue
        gone = by_video[name]
        shown = sorted({_named(*by, kept_videos) for by in gone.values()})
        found.append(
            Redundant(
                video_id=name,
                path=locate(places[known[name]["root"]], known[name]["path"]),
                bytes=known[name]["bytes"] or 0,
                may_go=all(clip["clip_key"] in gone for clip in clips[name]),
                spans_s=_joined([(clip["start_s"], clip["end_s"]) for clip in clips[name] if clip["clip_key"] in gone]),
                shown_by=tuple(shown),
            )
        )
    return sorted(found, key=lambda file: (not file.may_go, file.video_id))


def without_standing(found: Iterable[Redundant], paths: Iterable[str]) -> list[Redundant]:
    """The files, those that may go first; one that stands at a path or that a link there leads to may not.

    Args:
        paths: of files that stay.
    """
    staying = set(map(_led_to, paths))
    checked = (replace(file, may_go=False) if file.path in staying else file for file in found)
    return sorted(checked, key=lambda file: (not file.may_go, file.video_id))


def without_lost(found: Iterable[Redundant], places: Mapping[str, str]) -> list[Redundant]:
    """The files, those that may go first; one that is shown by a file which is not there any more may not.

    Args:
        places: path of each file that stays, by what `shown_by` calls it.
    """

    def is_there(name: str) -> bool:
        path = places.get(name, "")
        return address.is_address(path) or os.path.exists(path)

    checked = (replace(file, may_go=file.may_go and all(map(is_there, file.shown_by))) for file in found)
    return sorted(checked, key=lambda file: (not file.may_go, file.video_id))


def _led_to(path: str) -> str:
    """The file that a link is for; else the path itself."""
    return os.path.realpath(path) if not address.is_address(path) and os.path.islink(path) else path


def to_keep(location: str, found: Sequence[Redundant], places: Mapping[str, str]) -> list[str]:
    """Paths of all files of the archive but for those that may go, sorted; those that failed are among them."""
    going = {file.video_id for file in found if file.may_go}
    return sorted(path for video_id, path in paths(location, places) if video_id not in going)


def paths(location: str, places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(video id, path) of all files of an archive but for those that vanished."""
    for batch in read.scan_batches(location, "videos", ["video_id", "root", "path", "state"]):
        for row in batch.to_pylist():
            if row["state"] != "vanished":
                yield row["video_id"], locate(places[row["root"]], row["path"])


def _named(key: int, archive: str, kept_videos: Mapping[tuple[int, str], str]) -> str:
    video = kept_videos.get((key, archive), "?")
    return f"{archive}: {video}" if archive else video


def _joined(spans: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + 1e-6:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
