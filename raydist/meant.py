"""Which videos of an archive are meant: by an id, by a path on this machine, or by the end of an id."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from raydist.clips.matching import Videos
from raydist.config import Config
from raydist.errors import UsageError
from raydist.store import read, roots

_NEAR = 100_000
"""Names among which similar ones are looked for."""


def find_videos(config: Config, names: Sequence[str], option: str) -> list[str]:
    """The video ids that names mean: an id, a path on this machine, or the end of an id.

    Args:
        option: how the message calls a name.

    Raises:
        UsageError: a name that means none, or several.
    """
    ids = []
    for name, found in zip(names, candidates(config, names), strict=True):
        if len(found) > 1:
            raise UsageError(f"{option} {name!r} may be any of {', '.join(map(repr, found[:3]))}: name one by its id")
        if not found:
            hint = near_video(config.require_archive(), name)
            raise UsageError(f"{option} {name!r} is no video of the archive: {hint}")
        ids += found
    return ids


def candidates(config: Config, names: Sequence[str]) -> list[list[str]]:
    """For each name the ids that it may mean: one, none, or several."""
    location = config.require_archive()
    exact = set(read.rows_by_key(location, "videos", list(names), ["video_id"], key="video_id")["video_id"].to_pylist())
    if exact.issuperset(names):
        return [[name] for name in names]
    known = [
        name for batch in read.scan_batches(location, "videos", ["video_id"]) for name in batch["video_id"].to_pylist()
    ]
    videos = Videos(known, roots.places(location, config.roots))
    return [sorted(videos.find(name)) for name in names]


def near_video(location: str, name: str) -> str:
    """What to say of a name that fits no video: the nearest one that there is."""
    known: list[str] = []
    for batch in read.scan_batches(location, "videos", ["video_id"]):
        known += batch["video_id"].to_pylist()
        if len(known) >= _NEAR:
            break
    ends = {video.rpartition("/")[2]: video for video in known}
    near = difflib.get_close_matches(name, known, n=1) or [
        ends[end] for end in difflib.get_close_matches(name.rpartition("/")[2], ends, n=1)
    ]
    return f"did you mean {near[0]!r}?" if near else "expected an id such as `raydist search` shows"
