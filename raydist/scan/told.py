"""The user's own split: a list with a video and `train`, `val` or `test` a line.

Reads     CSV, TSV, JSONL or JSON (see `tabular`)
Promises  by whole videos; kept by later scans and deals; a name of several videos, or of none, moves none
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from raydist import tabular
from raydist.clips.matching import Videos
from raydist.errors import UsageError
from raydist.store import read, splits, sql

_SPLITS = ("split", "set", "subset", "fold", "part", "partition")

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    "auto": "",
}
"""What people call a split; `auto` takes back what was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a list of splits says."""

    listing: tabular.Listing
    places: tuple[str, ...]
    """Columns that may name the videos."""
    lines: tuple[tuple[tabular.Line, str], ...]
    """Lines that tell a split, or "" to take back what was told."""


def read_splits(file: str) -> Told:
    """Read a list of splits.

    Raises:
        UsageError: a file that cannot be read, columns that are not there, or a split that is none.
    """
    listing = tabular.read(file, "--splits")
    places = tabular.columns_of(listing, tabular.PLACES)
    columns = tabular.columns_of(listing, _SPLITS)
    if not places or not columns:
        raise UsageError(
            f"--splits {file!r} has the columns {list(listing.columns)}: expected one named 'path' and one named "
            "'split' that holds train, val or test"
        )
    lines: list[tuple[tabular.Line, str]] = []
    for line in listing.lines:
        word = str(line.values.get(columns[0]) or "").strip().lower()
        if word and word not in _WORDS:
            raise UsageError(
                f"--splits {file!r}, line {line.number}: {columns[0]} is {word!r}; expected train, val or test, or "
                "auto to take back what was told"
            )
        if word:
            lines.append((line, _WORDS[word]))
    return Told(listing=listing, places=tuple(places), lines=tuple(lines))


def tell(location: str, told: Told, places: Mapping[str, str]) -> list[str]:
    """Store the splits, move the clips, and return notes.

    Raises:
        UsageError: a clip instead of a video, a video that is told two splits, or no line that names a video.
    """
    file = told.listing.file
    videos, copies = _videos(location, file, places)
    column = tabular.best_column(told.listing, told.places, lambda written: len(videos.find(written)) == 1)
    wanted: dict[str, str | None] = {}
    missed: dict[str, list[str]] = defaultdict(list)
    for line, split in told.lines:
        path = str(line.values.get(column) or "").strip()
        shown = f"{path!r} (line {line.number})"
        if "#t=" in path:
            raise UsageError(f"--splits {file!r}: {shown} is a clip; expected videos, for parts of one would leak")
        found = videos.find(path)
        if len(found) != 1:
            missed["several" if found else "no"].append(shown)
            continue
        video = found.pop()
        if wanted.setdefault(video, split or None) != (split or None):
            raise UsageError(
                f"--splits {file!r}: {shown} is told {split or 'auto'}, and {wanted[video] or 'auto'} in another line; "
                "expected one split a video"
            )
        if video in copies:
            missed["copies"].append(shown)
    if not wanted:
        raise UsageError(
            f"--splits {file!r}: none of its {len(told.listing.lines):,} lines tells a video of the archive a split: "
            f"{_counted(missed) or 'none has one'}. A video is {min(videos.ids, default='')!r}"
        )
    changed = splits.override(location, wanted)
    counts = Counter(split or "auto" for split in wanted.values())
    said = ", ".join(f"{counts[name]:,} {name}" for name in (*splits.SPLITS, "auto") if counts[name])
    notes = [*told.listing.notes, f"splits told for {len(wanted):,} videos ({said}): {changed:,} clips changed"]
    if missed:
        notes.append(f"splits: {_counted(missed)}")
    if counts["auto"]:
        notes.append("videos with `auto` keep the split that they have until `raydist scan --resplit` deals again")
    return notes + _torn(location, wanted)


def _counted(missed: Mapping[str, list[str]]) -> str:
    words = {
        "no": "lines name no video of the archive",
        "several": "lines name several videos (write the path below the scanned folder)",
        "copies": "lines name copies of a clip that is in the archive by another file's name, whose split counts",
    }
    return "; ".join(f"{len(found):,} {words[why]}, such as {', '.join(found[:3])}" for why, found in missed.items())


def _videos(location: str, file: str, places: Mapping[str, str]) -> tuple[Videos, set[str]]:
    """All videos, and those that are copies."""
    ids: list[str] = []
    copies: set[str] = set()
    for batch in read.scan_batches(location, "videos", ["video_id", "state"]):
        for row in batch.to_pylist():
            ids.append(row["video_id"])
            if row["state"] == "alias":
                copies.add(row["video_id"])
    beside = os.path.dirname(os.path.abspath(os.path.expanduser(file)))
    return Videos(ids, places, beside), copies


def _torn(location: str, wanted: Mapping[str, str | None]) -> list[str]:
    """A note on source videos of which pre-cut clips now lie in several splits."""
    found: dict[str, set[str]] = defaultdict(set)
    names = sorted(wanted)
    for start in range(0, len(names), 5_000):
        where = sql.is_in("video_id", names[start : start + 5_000])
        for batch in read.scan_batches(location, "clips", ["source_id", "split"], where=where):
            for row in batch.to_pylist():
                found[row["source_id"]].add(row["split"])
    torn = sorted(source for source, parts in found.items() if len(parts - {"gap"}) > 1)
    if not torn:
        return []
    return [f"{len(torn):,} source videos have clips in several splits, such as {torn[0]}: expect leaks between them"]
