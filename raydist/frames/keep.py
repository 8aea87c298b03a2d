"""frames/keep: what the workers of a build do: decode, and write what they decoded.

Reads     units of work (`clips.units`) and the files that they name
Writes    fragments of a table of frames, as soon as some clips are decoded: frames never leave the process that decoded
          them; fragments of `signatures` and `failures`. All of them wait for the driver's commit
"""

# Shape legend: T frames, H height, W width, 3 colours

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.clips.decoder import CLIP_FIELDS, Decoder, Geometry
from raydist.clips.signature import HASH_VERSION
from raydist.frames import pixels
from raydist.records import Limits
from raydist.store import commit, outcomes, schema

KEPT = pa.schema([*CLIP_FIELDS, ("fragments", pa.list_(pa.string())), ("stored_bytes", pa.int64())])
"""Rows that leave a worker: a clip each, without its frames. The fragments of a block stand in its first row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where frames go, and how they are kept."""

    location: str
    table: str
    """"" where nothing is cached: clips are decoded for their signatures."""
    geometry: Geometry
    """`frames` is T, also where there are several candidates for each."""
    encoding: str
    candidates: int


class Keeper:
    """A Ray actor: units in, rows out that say where their frames were written, or why there are none."""

    def __init__(self, roots: Mapping[str, str], target: Target, limits: Limits) -> None:
        decoded = pixels.decoded(target.geometry, target.candidates)
        self._decoder = Decoder(roots, decoded, limits)
        self._shape = (decoded.frames, decoded.size_px, decoded.size_px, 3)
        self._target = target

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Decode all clips of all units, and write them some at a time."""
        for block in self._decoder(table):
            yield self._kept(block)

    def _kept(self, block: pa.Table) -> pa.Table:
        target = self._target
        good = pc.equal(block["reason"], "")
        stored = [
            self._packed(data) if is_good and target.table else None
            for data, is_good in zip(block["frames"], good.to_pylist(), strict=True)
        ]
        rows = block.set_column(block.schema.get_field_index("frames"), "frames", pa.array(stored, pa.large_binary()))
        fragments = self._written(rows.append_column("at", _now(rows)).filter(good)) if target.table else []
        sizes = [0 if data is None else len(data) for data in stored]
        block = block.drop_columns(["frames"])
        if target.candidates > 1:  # a signature is of the recipe's frames
            block = _of_recipe(block, target.candidates)
        listed: list[list[str]] = [fragments, *[[] for _ in sizes[1:]]]
        columns = {**{name: block[name] for name in block.column_names}, "fragments": listed, "stored_bytes": sizes}
        return pa.table(columns, KEPT)

    def _written(self, rows: pa.Table) -> list[str]:
        return commit.write_fragments(
            self._target.location,
            self._target.table,
            rows.select(schema.CACHED_FRAMES.names),
            schema.CACHED_FRAMES,
        )

    def _packed(self, data: pa.LargeBinaryScalar) -> bytes:
        frames_THW3 = np.frombuffer(data.as_buffer(), np.uint8).reshape(self._shape)
        return pixels.pack(frames_THW3, self._target.encoding)


@dataclass(slots=True, kw_only=True)
class Written:
    """What a writing task made of some blocks: fragments that wait for a commit, and what the driver counts."""

    frames: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    """Clip key -> reason."""
    clips: int = 0
    stored_bytes: int = 0


def write_outcomes(location: str, stage: str, *blocks: pa.Table) -> Written:
    """Gather the blocks of workers; runs as a Ray task, so that rows do not pass through the driver."""
    rows = pa.concat_tables(blocks)
    rows = rows.append_column("at", _now(rows))
    good = pc.equal(rows["reason"], "")
    done, failed = rows.filter(good), rows.filter(pc.invert(good))
    return Written(
        frames=[fragment for fragments in rows["fragments"].to_pylist() for fragment in fragments],
        signatures=outcomes.write_signatures(location, done, HASH_VERSION),
        failures=outcomes.write_failures(location, failed, stage=stage, model_key=""),
        failed=dict(zip(failed["clip_key"].to_pylist(), failed["reason"].to_pylist(), strict=True)),
        clips=rows.num_rows,
        stored_bytes=pc.sum(rows["stored_bytes"]).as_py() or 0,
    )


def _of_recipe(block: pa.Table, candidates: int) -> pa.Table:
    for name in ("frame_hashes", "frame_times_s"):
        values: list[list[Any]] = [row[candidates // 2 :: candidates] for row in block[name].to_pylist()]
        place = block.schema.get_field_index(name)
        block = block.set_column(place, name, pa.array(values, block.schema.field(place).type))
    return block


def _now(rows: pa.Table) -> pa.Array:
    return pa.array([datetime.now(UTC)] * rows.num_rows, pa.timestamp("us", tz="UTC"))
