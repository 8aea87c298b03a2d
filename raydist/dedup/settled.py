"""From all pairs that are known to what a person gets: groups, statements about videos, files, a sheet, figures.

Reads   `duplicates_<model_key>`, `joined_<model_key>`, `decisions`, `clips`, `videos`
Writes  `groups_<model_key>` and `overlaps_<model_key>`, anew; the run's folder
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist.clips import naming
from raydist.config import Config
from raydist.dedup import decisions, files, groups, page, statements, summary
from raydist.dedup.decisions import Said
from raydist.dedup.keepers import Kept
from raydist.dedup.known import Pairs, Reference, joined_at
from raydist.dedup.request import Request
from raydist.dedup.spread import Joined
from raydist.records import Report
from raydist.store import commit, roots, schema, sql
from raydist.store import read as tables
from raydist.store.runs import publish, run_folder
from raydist.store.shown import shown

_PAIRS_PRINTED = 5_000
"""Looked up at once."""


@dataclass(slots=True)
class Found:
    """What a run found, for its report."""

    joined: Joined
    clips: int
    seconds: dict[str, float] = field(default_factory=dict)


def settled(config: Config, request: Request, model_key: str, reference: Reference, found: Found, name: str) -> Report:
    """Groups from all pairs that are known, what follows for files, and everything that a person looks at."""
    location, began = config.require_archive(), time.monotonic()
    places = roots.places(location, config.roots)
    said, rules = decisions.load(location), request.rules(config)
    table = Pairs(location, model_key, reference.location, reference.name)
    stored = table.load(groups.COLUMNS)
    stored = pa.concat_tables([stored, _told(location, said, stored)])
    counting = groups.counting(stored, _verdicts(table, said), rules)
    copies = _among(table.load(where=sql.equals("kind", "copy")), counting)
    overlaps = statements.overlaps(copies)
    counting = _bridged(counting, copies, overlaps)
    crowds = _crowds(location, model_key, rules.threshold)
    clips = _clips(location, reference, counting, crowds)
    graph = groups.graph_of(clips, counting, crowds, said, rules)
    alike = _Alike(location, schema.embeddings_table(model_key), rules.threshold)
    kept = groups.settle(clips, graph, said, _videos(location, clips), rules, alike)
    grouped = groups.table_of(clips, graph, kept, said, reference.name)
    _replace(location, schema.GROUPS + model_key, grouped, schema.GROUPED)
    _replace(location, schema.OVERLAPS + model_key, overlaps, schema.VIDEO_OVERLAPS)
    redundant = files.redundant(location, grouped, _kept_videos(clips, kept, reference.name), places)
    staying = dict(files.paths(location, places))
    if reference.name:
        theirs = dict(files.paths(reference.location, roots.places(reference.location, {})))
        redundant = files.without_standing(redundant, theirs.values())
        staying |= {f"{reference.name}: {video}": path for video, path in theirs.items()}
    redundant = files.without_lost(redundant, staying)
    redundant = files.without_standing(redundant, files.to_keep(location, redundant, places))
    found.seconds["decide"] = time.monotonic() - began
    details = _figures(found, stored, counting, grouped, crowds, rules.threshold, reference.name)
    details["model_key"] = model_key
    details |= {"overlaps": overlaps.drop_columns(["at"]).to_pylist(), "files": list(map(summary.file_row, redundant))}
    folder = run_folder(location, name)
    folder.mkdir(parents=True, exist_ok=True)
    details["keep"] = shown(location, name, summary.write_keep(folder, files.to_keep(location, redundant, places)).name)
    summary.write_groups(folder, grouped)
    doubtful = table.rows(page.doubtful(stored, rules.threshold))
    sheet = request.sheet or folder / "dedup.html"
    sheet = page.write(sheet, config, doubtful, said, rules, reference.location, details)
    details["sheet"] = str(sheet) if request.sheet else shown(location, name, sheet.name)
    details["json"] = shown(location, name, summary.write_json(folder, details).name)
    publish(location, name)
    return Report(stage="dedup", run=name, seconds=0.0, counts=_counts(details), details=details)


def _verdicts(table: Pairs, said: Said) -> dict[tuple[int, int, str], bool]:
    """What people said of pairs that are stored: (a, b, archive of b) -> whether they are duplicates."""
    names = sorted({decisions.video_of(name) for a, b, _ in said.verdicts for name in (a, b)})
    if not names:
        return {}
    spoken_of = sql.all_of(sql.is_in("a_video", names), sql.is_in("b_video", names))
    found = {}
    for row in table.load(["a", "b", "a_id", "b_id", "archive_b"], spoken_of).to_pylist():
        verdict = said.of_pair(row["a_id"], row["b_id"], row["archive_b"])
        if verdict:
            found[row["a"], row["b"], row["archive_b"]] = verdict == "duplicate"
    return found


def _among(pairs: pa.Table, some: pa.Table) -> pa.Table:
    """The pairs that are in `some` too."""
    keys = ["a", "b", "archive_b"]
    return pairs.join(some.select(keys), keys, join_type="left semi").select(pairs.schema.names).cast(pairs.schema)


def _bridged(counting: pa.Table, copies: pa.Table, overlaps: pa.Table) -> pa.Table:
    """Pairs with what their clips show of each other by the statements that they are parts of."""
    names = ["a_from_s", "a_to_s", "b_from_s", "b_to_s"]
    keys = ["a", "b", "archive_b"]
    ends = np.array(statements.bridged(copies, overlaps)).reshape(-1, len(names))
    shown = copies.select(keys)
    for column, name in enumerate(names):
        shown = shown.append_column(f"{name}_", pa.array(ends[:, column]))
    joined = counting.join(shown, keys, join_type="left outer")
    for name in names:
        at = joined.schema.get_field_index(name)
        joined = joined.set_column(at, name, pc.coalesce(joined[f"{name}_"], joined[name]))
    return joined.select(counting.schema.names)


def _told(location: str, said: Said, stored: pa.Table) -> pa.Table:
    """Pairs of clips of this archive that a person calls duplicates and no run has found."""
    names = [(a, b) for (a, b, archive_b), verdict in said.verdicts.items() if verdict == "duplicate" and not archive_b]
    clips = {(naming.clip_key(a), naming.clip_key(b)) for a, b in names if "#t=" in a and "#t=" in b}
    if not clips:
        return stored.schema.empty_table()
    own = stored.filter(
        pc.and_(pc.equal(stored["archive_b"], ""), pc.is_in(stored["a"], pa.array([a for a, _ in clips])))
    )
    clips -= set(zip(own["a"].to_pylist(), own["b"].to_pylist(), strict=True))
    known = _current_keys(location, {key for pair in clips for key in pair})
    rows = [{"a": a, "b": b, "archive_b": "", "kind": "told"} for a, b in sorted(clips) if {a, b} <= known]
    return pa.Table.from_pylist(rows, stored.schema)


def _current_keys(location: str, keys: set[int]) -> set[int]:
    return set(tables.rows_by_key(location, "clips", sorted(keys), ["clip_key"])["clip_key"].to_pylist())


def _figures(
    found: Found,
    stored: pa.Table,
    counting: pa.Table,
    grouped: pa.Table,
    crowds: pa.Table,
    threshold: float,
    archive_b: str,
) -> dict[str, Any]:
    joined = found.joined
    over = pc.greater_equal(stored["similarity"], pa.scalar(threshold, pa.float32()))
    written = int(pc.sum(pc.and_(over, pc.equal(stored["archive_b"], archive_b))).as_py() or 0)
    kinds = Counter(counting["kind"].to_pylist())
    return {
        "clips": found.clips,
        # Of crowds, only the pairs of pivots are stored; of pairs beside them this run knows its own only.
        "pairs": written + _inside(crowds, stars=False) + joined.pairs - joined.written - _inside(joined.crowds),
        "groups": len(pc.unique(grouped["group"])),
        "redundant": grouped.num_rows - int(pc.sum(grouped["keep"]).as_py() or 0),
        "threshold": threshold,
        "copies": kinds["copy"],
        "pairs_written": written,
        "pairs_known": stored.num_rows,
        "new_clips": joined.keys.num_rows,
        "products": joined.products,
        "share_of_all_pairs": joined.share,
        "pairs_only_counted": joined.left_out,
        "bytes_read": joined.bytes_read,
        "seconds_by_step": found.seconds,
        "against": archive_b,
    }


def _inside(crowds: pa.Table, *, stars: bool = True) -> int:
    """Pairs inside of crowds; without `stars`, those that are not stored."""
    sizes = pc.value_counts(crowds["crowd"]).field("counts").to_numpy().astype(np.int64)
    pairs = sizes * (sizes - 1) // 2
    return int(pairs.sum() if stars else (pairs - sizes + 1).sum())


def _counts(details: Mapping[str, Any]) -> dict[str, int]:
    return {name: details[name] for name in ("clips", "pairs", "copies", "groups", "redundant")}


def _crowds(location: str, model_key: str, threshold: float) -> pa.Table:
    """The crowds of the archive at that threshold; none where it was joined at another one."""
    where = sql.all_of("crowd IS NOT NULL", joined_at(threshold))
    batches = list(tables.scan_batches(location, schema.JOINED + model_key, ["clip_key", "crowd"], where=where))
    wanted = pa.schema({"clip_key": pa.int64(), "crowd": pa.int64()})
    return pa.Table.from_batches(batches, wanted)


def _clips(location: str, reference: Reference, pairs: pa.Table, crowds: pa.Table) -> groups.Clips:
    """All clips that pairs speak of, and crowds."""
    columns = ["clip_key", "clip_id", "fingerprint", "video_id", "start_s", "end_s"]
    foreign = pc.not_equal(pairs["archive_b"], "")
    keys = pa.concat_arrays(
        [
            *pairs["a"].chunks,
            *pairs.filter(pc.invert(foreign))["b"].chunks,
            *crowds["clip_key"].chunks,
            pa.array([], pa.int64()),
        ]
    )
    own = tables.rows_by_key(location, "clips", pc.unique(keys).to_pylist(), columns)
    if not reference.name:
        return groups.Clips(table=own, own=own.num_rows)
    others = pc.unique(pairs.filter(foreign)["b"]).to_pylist()
    theirs = tables.rows_by_key(reference.location, "clips", others, columns)
    return groups.Clips(table=pa.concat_tables([own, theirs]), own=own.num_rows)


def _videos(location: str, clips: groups.Clips) -> dict[str, dict[str, Any]]:
    """Properties of the videos of this archive's clips, which keepers are chosen by."""
    names = pc.unique(clips.table.slice(0, clips.own)["video_id"]).to_pylist()
    columns = ["video_id", "duration_s", "width", "height", "bit_rate", "modified_at"]
    rows = tables.rows_by_key(location, "videos", names, columns, key="video_id").to_pylist()
    return {row["video_id"]: row for row in rows}


def _kept_videos(clips: groups.Clips, kept: Kept, archive_b: str) -> dict[tuple[int, str], str]:
    """(clip key, archive) of the clips that stand for others -> their video."""
    rows = np.unique(kept.by_N[kept.by_N >= 0])
    keys, videos = (clips.table[name].take(pa.array(rows)).to_pylist() for name in ("clip_key", "video_id"))
    archives = ["" if row < clips.own else archive_b for row in rows.tolist()]
    return dict(zip(zip(keys, archives, strict=True), videos, strict=True))


@dataclass(frozen=True, slots=True)
class _Alike:
    """Whether the vectors of clips reach the threshold."""

    location: str
    table: str
    threshold: float

    def __call__(self, a: groups.Numbers, b: groups.Numbers) -> NDArray[np.bool_]:
        keys = np.unique(np.concatenate([a, b]))
        rows = tables.rows_by_key(self.location, self.table, keys.tolist(), ["clip_key", "vector"])
        vectors = np.stack(rows["vector"].to_pylist()).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        place = {key: row for row, key in enumerate(rows["clip_key"].to_pylist())}
        of_a, of_b = ([place[key] for key in side.tolist()] for side in (a, b))
        reached: NDArray[np.bool_] = (vectors[of_a] * vectors[of_b]).sum(axis=1) >= self.threshold
        return reached


def _replace(location: str, table: str, rows: pa.Table, columns: pa.Schema) -> None:
    """These rows in place of all that the table has, in one version."""
    committer = commit.Committer(location, table, columns)
    committer.commit(commit.write_fragments(location, table, rows, columns), delete_where="TRUE")


def pairs_of(config: Config, report: Report) -> Iterator[dict[str, Any]]:
    """The pairs that count in a run, most alike first."""
    location, details = config.require_archive(), report.details
    table = Pairs(location, details["model_key"], archive_b=details["against"])
    stored = table.load(groups.COLUMNS)
    counting = groups.counting(stored, _verdicts(table, decisions.load(location)), Request().rules(config))
    counting = counting.sort_by([("similarity", "descending")]).select(["a", "b", "archive_b"])
    for start in range(0, counting.num_rows, _PAIRS_PRINTED):
        yield from summary.pair_rows(table.rows(counting.slice(start, _PAIRS_PRINTED)))
