"""What earlier runs found: pairs, and the clips whose pairs are known. Rows of clips that changed since are left out.

Reads     `duplicates_<model_key>`, `joined_<model_key>`, `clips` here and in the archive that was joined with
Writes    the same two; a pair is stored once, whatever run found it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydist.dedup import shared
from raydist.dedup.spread import EDGES, Joined
from raydist.store import commit, read, schema, sql
from raydist.store.join import parts

PAIRS_A_PART = 20_000
"""Written at once: some 10 MB with all their names."""

_KEYS_A_DELETE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The archive that `--against` names."""

    location: str = ""
    name: str = ""
    """How rows name it: its folder's name, and what tells it from others of that name; both move with it."""


def current(location: str, keys: pa.ChunkedArray, fingerprints: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Whether a clip of that key and fingerprint stands in the archive's `clips`."""
    clips = read.open_table(location, "clips")
    found = np.zeros(len(keys), np.bool_)
    if clips is None or not len(keys):
        return found
    batch = pa.RecordBatch.from_arrays(
        [_whole(keys.cast(pa.int64())), _whole(fingerprints.cast(pa.string()))], ["clip_key", "fingerprint"]
    )
    for part in parts(clips, {}):
        found[part.places(batch)[1]] = True
    return found


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


class Pairs:
    """The pairs that a model's clips make, as they were found until now."""

    def __init__(self, location: str, model_key: str, reference: str = "", archive_b: str = "") -> None:
        """
        Args:
            location: the archive.
            model_key: whose vectors were compared.
            reference: location of another archive that it was joined with; "" for none.
            archive_b: how rows name that archive.
        """
        self.location, self.table = location, schema.DUPLICATES + model_key
        self._reference, self._archive_b = reference, archive_b

    def load(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Pairs within the archive, and those with the reference where there is one; `where` is true of them."""
        wanted = schema.PAIRS if columns is None else pa.schema([schema.PAIRS.field(name) for name in columns])
        among = sql.all_of(sql.is_in("archive_b", sorted({"", self._archive_b})), where)
        batches = list(read.scan_batches(self.location, self.table, wanted.names, where=among))
        return pa.Table.from_batches(batches, wanted)

    def rows(self, some: pa.Table) -> pa.Table:
        """All columns of a few pairs (a, b, archive_b), in their order; those that are not stored are left out."""
        found = self.load(where=sql.is_in("a", sorted(set(some["a"].to_pylist()))))
        names = ("a", "b", "archive_b")
        place = {key: row for row, key in enumerate(zip(*(found[name].to_pylist() for name in names), strict=True))}
        wanted = zip(*(some[name].to_pylist() for name in names), strict=True)
        return found.take([place[key] for key in wanted if key in place])

    def forget_changed(self) -> int:
        """Delete pairs one of whose clips changed or is gone; how many."""
        columns = ["a", "b", "a_fingerprint", "b_fingerprint", "archive_b"]
        pairs = self.load(columns)
        if not pairs.num_rows:
            return 0
        fresh_a = current(self.location, pairs["a"], pairs["a_fingerprint"])
        foreign = pc.not_equal(pairs["archive_b"], "").to_numpy()
        fresh_b = current(self.location, pairs["b"], pairs["b_fingerprint"])
        if self._reference:
            fresh_b[foreign] = current(self._reference, pairs["b"], pairs["b_fingerprint"])[foreign]
        deleted = self._delete("a", pairs.filter(~fresh_a), f"{sql.quote_name('a')} IS NOT NULL")
        for archive_b in sorted({"", self._archive_b}):
            gone = pairs.filter(pc.and_(pa.array(~fresh_b), pc.equal(pairs["archive_b"], archive_b)))
            deleted += self._delete("b", gone, sql.equals("archive_b", archive_b))
        return deleted

    def _delete(self, side: str, pairs: pa.Table, among: str) -> int:
        names = sorted(
            set(zip(pairs[side].to_pylist(), pairs[f"{side}_fingerprint"].to_pylist(), strict=True)), key=str
        )
        deleted = 0
        for start in range(0, len(names), _KEYS_A_DELETE):
            which = sql.pairs_in(side, f"{side}_fingerprint", names[start : start + _KEYS_A_DELETE])
            deleted += commit.delete(self.location, self.table, sql.all_of(which, among) or "FALSE")
        return deleted

    def unknown(self, edges: pa.Table) -> pa.Table:
        """The edges (a, b, similarity) that are not stored, in either direction."""
        columns = ["a", "b"]
        known = self.load(columns, sql.equals("archive_b", self._archive_b))
        if not known.num_rows:
            return edges
        for one, other in (columns, columns[::-1]):
            turned = known.rename_columns([one, other])
            edges = edges.join(turned, columns, join_type="left anti")
            if self._archive_b:
                break  # a and b are clips of two archives
        return edges

    def add(self, parts: Iterable[pa.Table], *, instead: bool = False) -> int:
        """Add pairs that are not stored, part by part; how many went in.

        Args:
            parts: rows of `schema.PAIRS`; what is held is one part.
            instead: they come in place of rows of the same pairs that were not read.
        """
        committer = commit.Committer(self.location, self.table, schema.PAIRS)
        count = 0
        for part in parts:
            rows = oriented(part)
            fragments = commit.write_fragments(self.location, self.table, rows, schema.PAIRS)
            firsts = sql.is_in("a", pc.unique(rows["a"]).to_pylist())
            not_read = sql.all_of(sql.equals("kind", "unread"), sql.equals("archive_b", self._archive_b), firsts)
            count += committer.commit(fragments, delete_where=not_read if instead else None)
        return count


def by_first(pairs: pa.Table, size: int = PAIRS_A_PART) -> Iterator[pa.Table]:
    """Parts of about that size; the pairs of one a stand in one part."""
    pairs = oriented(pairs).sort_by([("a", "ascending")])
    firsts = pairs["a"].to_numpy()
    start = 0
    while start < len(firsts):
        stop = int(np.searchsorted(firsts, firsts[min(start + size, len(firsts)) - 1], side="right"))
        yield pairs.slice(start, stop - start)
        start = stop


def oriented(pairs: pa.Table) -> pa.Table:
    """Each pair of one archive with the smaller clip id as a."""
    wrong = pc.and_(pc.equal(pairs["archive_b"], ""), pc.greater(pairs["a_id"], pairs["b_id"]))
    twins = {"a": "b", "a_id": "b_id", "a_fingerprint": "b_fingerprint", "a_video": "b_video"}
    twins |= {"a_from_s": "b_from_s", "a_to_s": "b_to_s"}
    turned = {**twins, **{other: one for one, other in twins.items()}}
    columns = {name: pairs[name] for name in schema.PAIRS.names}
    for name, other in turned.items():
        columns[name] = pc.if_else(wrong, pairs[other], pairs[name])
    columns["offset_s"] = pc.if_else(wrong, pc.negate(pairs["offset_s"]), pairs["offset_s"])
    return pa.table(columns, schema=schema.PAIRS)


class JoinedClips:
    """The clips whose pairs with each other are known at one threshold."""

    def __init__(self, location: str, model_key: str) -> None:
        self.location, self.table = location, schema.JOINED + model_key

    def load(self, threshold: float) -> pa.Table | None:
        """Clips as they are now, joined at that very threshold (clip_key, fingerprint, crowd).

        Rows of clips that changed, or whose crowd lost its pivot, are deleted: they are to be joined again.

        Returns:
            None where all clips are to be joined: nothing is known, or it is known at another threshold.
        """
        columns = ["clip_key", "fingerprint", "crowd"]
        batches = list(read.scan_batches(self.location, self.table, columns, where=joined_at(threshold)))
        if not batches:
            return None
        rows = pa.Table.from_batches(batches)
        kept = current(self.location, rows["clip_key"], rows["fingerprint"])
        crowds = rows["crowd"]
        there = pc.is_in(crowds, value_set=_whole(rows["clip_key"].filter(pa.array(kept))))
        kept &= pc.or_(pc.is_null(crowds), there).to_numpy()
        gone = rows.filter(~kept)
        names = list(zip(gone["clip_key"].to_pylist(), gone["fingerprint"].to_pylist(), strict=True))
        for start in range(0, len(names), _KEYS_A_DELETE):
            which = sql.pairs_in("clip_key", "fingerprint", names[start : start + _KEYS_A_DELETE])
            commit.delete(self.location, self.table, sql.all_of(which, joined_at(threshold)) or "FALSE")
        return rows.filter(kept) if kept.any() else None

    def add(self, new: pa.Table, threshold: float) -> None:
        """Write down that clips (clip_key, clip_id, video_id, fingerprint, crowd) are joined with all others.

        What is known at other thresholds goes in the same moment.
        """
        now = pa.scalar(datetime.now(UTC), schema.JOINED_CLIPS.field("at").type)
        rows = pa.table(
            {
                **{name: new[name] for name in ("clip_key", "clip_id", "video_id", "fingerprint", "crowd")},
                "threshold": pa.repeat(pa.scalar(threshold, pa.float32()), new.num_rows),
                "at": pa.repeat(now, new.num_rows),
            }
        )
        committer = commit.Committer(self.location, self.table, schema.JOINED_CLIPS)
        fragments = commit.write_fragments(self.location, self.table, rows, schema.JOINED_CLIPS)
        committer.commit(fragments, delete_where=sql.not_true(joined_at(threshold)))


def joined_at(threshold: float) -> str:
    """The rows of `JoinedClips` of that threshold, as SQL."""
    return f"{sql.quote_name('threshold')} = CAST({sql.quote_sql(threshold)} AS FLOAT)"


def edges_of(joined: Joined) -> pa.Table:
    """The pairs of a join that are to be stored: a, b, similarity; of a crowd those of its pivot with the others."""
    parts = [pq.read_table(path) for path in shared.files(joined.edges)]
    stars = joined.crowds.filter(pc.not_equal(joined.crowds["clip_key"], joined.crowds["crowd"]))
    parts.append(stars.select(["crowd", "clip_key", "similarity"]).rename_columns(EDGES.names))
    return pa.concat_tables([part.select(EDGES.names).cast(EDGES) for part in parts])


def unread(location: str, other: str, edges: pa.Table, threshold: float) -> Iterator[pa.Table]:
    """Pairs of clips as rows of `schema.PAIRS`, as far as is known without reading them, part by part.

    Args:
        location: the archive of a.
        other: that of b.
        edges: a, b, similarity; those whose clips are gone are left out.
        threshold: that they reach.
    """
    for start in range(0, edges.num_rows, PAIRS_A_PART):
        yield _named(location, other, edges.slice(start, PAIRS_A_PART), threshold)


def _named(location: str, other: str, edges: pa.Table, threshold: float) -> pa.Table:
    columns = {"clip_id": "id", "fingerprint": "fingerprint", "video_id": "video"}
    pairs = edges
    for side, where in (("a", location), ("b", other)):
        keys = pc.unique(edges[side]).to_pylist()
        clips = read.rows_by_key(where, "clips", keys, ["clip_key", *columns])
        clips = clips.rename_columns([side, *(f"{side}_{name}" for name in columns.values())])
        pairs = pairs.join(clips, side, join_type="inner")
    known = {
        **{name: pairs[name] for name in pairs.column_names},
        "archive_b": pa.repeat(pa.scalar(""), pairs.num_rows),
        "kind": pa.repeat(pa.scalar("unread"), pairs.num_rows),
        "found_by": pa.repeat(pa.scalar("vectors"), pairs.num_rows),
        "threshold": pa.repeat(pa.scalar(threshold, pa.float32()), pairs.num_rows),
        "at": pa.repeat(pa.scalar(datetime.now(UTC), schema.PAIRS.field("at").type), pairs.num_rows),
    }
    empty = {field.name: pa.nulls(pairs.num_rows, field.type) for field in schema.PAIRS if field.name not in known}
    return pa.table({**known, **empty}).select(schema.PAIRS.names).cast(schema.PAIRS)
