"""The common filters as SQL: of some videos, of a split, of a length."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from raydist.config import Config
from raydist.errors import UsageError
from raydist.meant import find_videos, near_video
from raydist.store import read
from raydist.store.sql import all_of, equals, is_in, like, whole

SPLITS = ("train", "val", "test", "gap")

_RANGE = re.compile(r"(?P<low>\d*\.?\d*)(?P<to>-?)(?P<high>\d*\.?\d*)")


def condition(
    config: Config,
    *,
    where: str | None = None,
    videos: Sequence[str] = (),
    split: str | None = None,
    duration: str | None = None,
) -> str | None:
    """One SQL condition of all that was given; None where nothing was.

    Args:
        config: `archive` and `roots` matter.
        where: SQL over the columns of the clips' table and of `videos`.
        videos: ids, paths, or ends of ids; in ids and ends of ids, `*` and `?` stand for any letters. A clip of any of
            them passes.
        split: `train`, `val`, `test` or `gap`.
        duration: seconds of a clip: `5-60`, `5-` or `-60`.

    Raises:
        UsageError: a video that the archive does not hold, another split, or no range.
        StoreError: brackets or quotes of `where` that do not match.
    """
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split {split!r}: expected one of {', '.join(SPLITS)}")
    return all_of(
        whole(where) if where else None,
        _of_videos(config, videos) if videos else None,
        equals("split", split) if split else None,
        _of_duration(duration) if duration else None,
    )


def _of_duration(text: str) -> str | None:
    found = _RANGE.fullmatch(text.strip())
    try:
        low, high = (float(found[side]) if found and found[side] else None for side in ("low", "high"))
    except ValueError:  # a lone point
        low = high = None
    if (
        not found
        or not found["to"]
        or (low is None and high is None)
        or (low or 0.0) > (math.inf if high is None else high)
    ):
        raise UsageError(f"--duration {text!r}: expected seconds from-to, such as 5-60, 5- or -60")
    return all_of(
        None if low is None else f"`duration_s` >= {low!r}", None if high is None else f"`duration_s` <= {high!r}"
    )


def _of_videos(config: Config, names: Sequence[str]) -> str:
    location = config.require_archive()
    patterns = [_fits(name) for name in names if "*" in name or "?" in name]
    for name, pattern in zip([name for name in names if "*" in name or "?" in name], patterns, strict=True):
        if not read.count_rows(location, "videos", pattern):
            raise UsageError(f"--video {name!r} fits no video of the archive: {near_video(location, name)}")
    plain = [name for name in names if "*" not in name and "?" not in name]
    ids = find_videos(config, plain, "--video")
    return " OR ".join([*patterns, *([is_in("video_id", ids)] if ids else [])])


def _fits(pattern: str) -> str:
    """A pattern of whole ids, or of their ends from some folder on."""
    return f"({like('video_id', pattern)} OR {like('video_id', f'*/{pattern}')})"
