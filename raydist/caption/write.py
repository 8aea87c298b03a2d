"""Captions into the archive: those of a list in place of the sidecar captions that its clips had.

Writes    `captions`, a version for some thousand clips; old rows go and new ones come in the same version
Again     what is there already is left alone, so the same list again changes nothing, and a run that died is finished
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from raydist.store import commit, read, schema, sql

SIDECAR = "sidecar"
"""The origin of captions that a person brought."""

_CLIPS_A_COMMIT = 5_000

Row = dict[str, Any]


@dataclass(slots=True)
class Written:
    """What a list changed."""

    added: int = 0
    """Captions of clips that had none of this origin."""
    replaced: int = 0
    """Captions that came in the place of others."""
    removed: int = 0
    """Captions whose place they took."""
    unchanged: int = 0


def write(location: str, texts: Mapping[int, Sequence[str]], clips: pa.Table) -> Written:
    """Make these the sidecar captions of their clips; captions of other origins stay, and so do those of other clips.

    Args:
        texts: row of `clips` -> distinct captions.
        clips: columns clip_key, clip_id, fingerprint.
    """
    written = Written()
    committer = commit.Committer(location, "captions", schema.CAPTIONS)
    rows = sorted(texts)
    for start in range(0, len(rows), _CLIPS_A_COMMIT):
        part = rows[start : start + _CLIPS_A_COMMIT]
        _write_part(committer, written, [(clips.slice(row, 1).to_pylist()[0], texts[row]) for row in part])
    return written


def _write_part(committer: commit.Committer, written: Written, wanted: list[tuple[Row, Sequence[str]]]) -> None:
    there: dict[int, list[Row]] = defaultdict(list)
    for row in _sidecars(committer.location, [clip["clip_key"] for clip, _ in wanted]):
        there[row["clip_key"]].append(row)
    new: list[Row] = []
    changed: list[int] = []
    now = datetime.now(UTC)
    for clip, texts in wanted:
        old = there[clip["clip_key"]]
        if old and {row["caption"] for row in old} == set(texts) and _all_present(old, clip["fingerprint"]):
            written.unchanged += len(texts)
            continue
        new.extend(row_of(clip, number, text, now) for number, text in enumerate(texts))
        if old:
            changed.append(clip["clip_key"])
            written.replaced += len(texts)
            written.removed += len(old)
        else:
            written.added += len(texts)
    if not new:
        return
    replaced = sql.all_of(sql.equals("origin", SIDECAR), sql.is_in("clip_key", changed)) if changed else None
    table = pa.Table.from_pylist(new, schema=schema.CAPTIONS)
    fragments = commit.write_fragments(committer.location, "captions", table, schema.CAPTIONS)
    committer.commit(fragments, delete_where=replaced)


def keep(location: str) -> tuple[int, int]:
    """Confirm captions of clips whose file changed: they get the clip's present fingerprint.

    Where a clip has newer captions of the same origin, the stale ones are of no use and go.

    Returns:
        Captions confirmed, and captions taken out.
    """
    if read.open_table(location, "captions") is None:
        return 0, 0
    confirmed = removed = 0
    stale = stale_captions(location)
    keys = sorted(stale)
    for start in range(0, len(keys), _CLIPS_A_COMMIT):
        part = keys[start : start + _CLIPS_A_COMMIT]
        by_origin: dict[tuple[int, str], list[Row]] = defaultdict(list)
        for row in read.rows_by_key(location, "captions", part).to_pylist():
            by_origin[row["clip_key"], row["origin"]].append(row)
        old: list[Row] = []
        new: list[Row] = []
        for (key, _), rows in by_origin.items():
            gone = [row for row in rows if row["fingerprint"] != stale[key]]
            old.extend(gone)
            if gone and len(gone) == len(rows):
                last = max(gone, key=lambda row: row["at"])["fingerprint"]
                new.extend({**row, "fingerprint": stale[key]} for row in gone if row["fingerprint"] == last)
        committer = commit.Committer(location, "captions", schema.CAPTIONS)
        table = pa.Table.from_pylist(new, schema=schema.CAPTIONS)
        fragments = commit.write_fragments(location, "captions", table, schema.CAPTIONS)
        pairs = sorted({(row["clip_key"], row["fingerprint"]) for row in old})
        committer.commit(fragments, delete_where=sql.pairs_in("clip_key", "fingerprint", pairs))
        confirmed += len(new)
        removed += committer.deleted - len(new)
    return confirmed, removed


def stale_captions(location: str) -> dict[int, str]:
    """Clips with captions of an earlier content: key -> the present fingerprint. Clips that are gone do not count."""
    now: dict[int, str] = {}
    columns = ["clip_key", "fingerprint"]
    for batch in read.scan_batches(location, "clips", columns):
        now.update(zip(*(batch[name].to_pylist() for name in columns), strict=True))
    stale: dict[int, str] = {}
    for batch in read.scan_batches(location, "captions", columns):
        for key, fingerprint in zip(*(batch[name].to_pylist() for name in columns), strict=True):
            if now.get(key, fingerprint) != fingerprint:
                stale[key] = now[key]
    return stale


def row_of(clip: Row, number: int, text: str, at: datetime, origin: str = SIDECAR, prompt_hash: str = "") -> Row:
    """A row of `captions`."""
    return {
        "clip_key": clip["clip_key"],
        "clip_id": clip["clip_id"],
        "fingerprint": clip["fingerprint"],
        "number": number,
        "caption": text,
        "origin": origin,
        "prompt_hash": prompt_hash,
        "cut": False,
        "at": at,
    }


def _all_present(rows: Sequence[Row], fingerprint: str) -> bool:
    return all(row["fingerprint"] == fingerprint for row in rows)


def _sidecars(location: str, keys: Sequence[int]) -> list[Row]:
    columns = ["clip_key", "fingerprint", "number", "caption", "origin"]
    found = read.rows_by_key(location, "captions", keys, columns).to_pylist()
    return [row for row in found if row["origin"] == SIDECAR]
