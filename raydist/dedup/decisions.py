"""What people said about pairs and clips; later runs and other models respect it.

Reads     `decisions`
Writes    the same, append-only: of several rows about the same pair or clip the newest counts
Promises  a decision names clips or videos by their ids, so it outlives every run, model and re-embedding
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from raydist import tabular
from raydist.clips import naming
from raydist.errors import UsageError
from raydist.store import commit, read, schema

TABLE = "decisions"
_KEPT = {"true": True, "yes": True, "1": True, "keep": True, "false": False, "no": False, "0": False, "drop": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Decisions as they count now."""

    verdicts: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    """(a, b, archive of b) -> one of `schema.VERDICTS`; a and b are clip or video ids, within one archive sorted."""
    keep: Mapping[str, bool] = field(default_factory=dict)
    """Clip id or video id -> whether it stays."""

    def of_pair(self, a: str, b: str, archive_b: str = "") -> str:
        """What was said of two clips: about themselves, else about their videos; "" for nothing."""
        if not self.verdicts:
            return ""
        videos = video_of(a), video_of(b)
        for one, other in ((a, b), (a, videos[1]), (videos[0], b), videos):
            verdict = self.verdicts.get(_named(one, other, archive_b))
            if verdict:
                return verdict
        return ""

    def different(self) -> list[tuple[str, str, str]]:
        """(a, b, archive of b) that are no duplicates."""
        return [names for names, verdict in self.verdicts.items() if verdict == "different"]

    def of_clip(self, clip_id: str) -> bool | None:
        """Whether a clip stays, as was said of it or else of its video; None for nothing."""
        said = self.keep.get(clip_id)
        return said if said is not None else self.keep.get(video_of(clip_id))


def video_of(name: str) -> str:
    """The video of a clip id; a video id is its own."""
    return name.rpartition("#t=")[0] or name


def _named(a: str, b: str, archive_b: str) -> tuple[str, str, str]:
    return (a, b, archive_b) if archive_b or a <= b else (b, a, "")


def pair(a: str, b: str, verdict: str, archive_b: str = "") -> dict[str, Any]:
    """A row: two clips or videos are duplicates, or are not."""
    if verdict not in schema.VERDICTS:
        raise UsageError(f"verdict {verdict!r}: expected one of {', '.join(schema.VERDICTS)}")
    if a == b and not archive_b:
        raise UsageError(f"{a!r} cannot be a duplicate of itself: expected two clips or videos")
    a, b, archive_b = _named(a, b, archive_b)
    return {"a": a, "b": b, "archive_b": archive_b, "verdict": verdict}


def clip(name: str, keep: bool) -> dict[str, Any]:
    """A row: a clip or a video stays, or need not."""
    return {"clip": name, "keep": keep}


def record(location: str, rows: Sequence[Mapping[str, Any]], by: str = "") -> int:
    """Write decisions down; how many.

    Args:
        rows: of `pair` and `clip`.
        by: who said so; empty: the user of this process.

    Raises:
        UsageError: one names no clip or video of the archive.
    """
    if not rows:
        return 0
    _refuse_unknown(location, rows)
    now, who = datetime.now(UTC), by or _user()
    empty = dict.fromkeys(schema.DECISIONS.names)
    table = pa.Table.from_pylist([{**empty, **row, "by": who, "at": now} for row in rows], schema=schema.DECISIONS)
    return commit.append(location, TABLE, table, schema.DECISIONS)


def load(location: str) -> Said:
    """Decisions as they count now."""
    verdicts: dict[tuple[str, str, str], str] = {}
    keep: dict[str, bool] = {}
    rows = [row for batch in read.scan_batches(location, TABLE) for row in batch.to_pylist()]
    for row in sorted(rows, key=lambda row: row["at"]):  # stable: of one moment the later row counts
        if row["verdict"]:
            verdicts[_named(row["a"], row["b"], row["archive_b"] or "")] = row["verdict"]
        if row["clip"]:
            keep[row["clip"]] = bool(row["keep"])
    return Said(verdicts=verdicts, keep=keep)


def read_file(file: str) -> list[dict[str, Any]]:
    """Decisions from a list, such as the one that the review sheet saves: columns a, b, verdict, or clip, keep.

    Raises:
        UsageError: it cannot be read, or a line says neither.
    """
    listing = tabular.read(file, "--decisions")
    rows = []
    for line in listing.lines:
        values = {tabular.plain(name): str(value or "").strip() for name, value in line.values.items()}
        where = f"--decisions {file!r}, line {line.number}"
        try:
            if values.get("verdict"):
                rows.append(
                    pair(values.get("a", ""), values.get("b", ""), values["verdict"], values.get("archive_b", ""))
                )
            elif values.get("clip"):
                rows.append(clip(values["clip"], _KEPT[values.get("keep", "true").lower()]))
            else:
                raise UsageError("it says nothing; expected a, b and verdict, or clip and keep")
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        except KeyError as error:
            raise UsageError(f"{where}: keep is {values['keep']!r}, expected true or false") from error
    return rows


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in a container
        return ""


def _refuse_unknown(location: str, rows: Sequence[Mapping[str, Any]]) -> None:
    own = [row["clip"] for row in rows if row.get("clip")]
    own += [row["a"] for row in rows if row.get("verdict")]
    own += [row["b"] for row in rows if row.get("verdict") and not row["archive_b"]]
    for name in _unknown(location, set(own)):
        raise UsageError(
            f"{name!r} is no clip and no video of the archive: expected a clip id or a video id, as `raydist search` "
            "and `raydist dedup --pairs` show them"
        )


def _unknown(location: str, names: Iterable[str]) -> list[str]:
    clips = sorted(name for name in names if "#t=" in name)
    videos = sorted(name for name in names if "#t=" not in name)
    known: set[str] = set()
    if clips and read.open_table(location, "clips") is not None:
        keys = [naming.clip_key(name) for name in clips]
        known.update(read.rows_by_key(location, "clips", keys, ["clip_id"])["clip_id"].to_pylist())
    if videos and read.open_table(location, "videos") is not None:
        rows = read.rows_by_key(location, "videos", videos, ["video_id"], key="video_id")
        known.update(rows["video_id"].to_pylist())
    return [name for name in (*clips, *videos) if name not in known]
