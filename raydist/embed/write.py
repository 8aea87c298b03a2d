"""The Ray task that turns rows of the encoder into data files; they wait for the driver's commit.

Reads     blocks of rows, a vector or a reason each
Writes    fragments of the embeddings of one model, of `signatures` and of `failures`
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from raydist.clips.signature import HASH_VERSION
from raydist.store import commit, outcomes

STAGE = "embed"


@dataclass(slots=True, kw_only=True)
class Written:
    """What a writing task made of some blocks: fragments that wait for a commit, and what the report counts."""

    embeddings: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    busy: Counter[str] = field(default_factory=Counter)
    """Seconds of work by step, seconds that frames are off, frames that were filled, and bytes that servers sent."""
    offset_s: float = 0.0
    """The farthest that a frame lies from its exact position."""
    began: float = math.inf
    """When the first of the clips began to be decoded, in seconds since the epoch."""
    ended: float = -math.inf
    """When the last of them had its vector."""


def write_blocks(location: str, table: str, columns: pa.Schema, model_key: str, *blocks: pa.Table) -> Written:
    """Turn blocks of the encoder into fragments; runs as a Ray task, so rows do not pass through the driver."""
    rows = pa.concat_tables(blocks)
    at = pa.array([datetime.now(UTC)] * rows.num_rows, pa.timestamp("us", tz="UTC"))
    rows = rows.append_column("at", at)
    done = rows.filter(pc.equal(rows["reason"], ""))
    failed = rows.filter(pc.not_equal(rows["reason"], ""))
    done = done.append_column("duration_s", pc.subtract(done["end_s"], done["start_s"]))
    filled = done["filled_frames"].to_numpy()
    busy: Counter[str] = Counter()
    for name, column in (("decode", "decode_s"), ("decode_cpu", "decode_cpu_s"), ("embed", "embed_s")):
        busy[name] = pc.sum(rows[column]).as_py() or 0
    fetched = rows["bytes_read"].to_numpy()
    busy["bytes_read"], busy["clips_fetched"] = int(fetched.sum()), int((fetched > 0).sum())
    offsets = pc.list_flatten(done["offsets_s"])
    busy["offset"], busy["offset_frames"] = pc.sum(offsets).as_py() or 0, len(offsets)
    busy["filled_frames"], busy["filled_clips"] = int(filled.sum()), int((filled > 0).sum())
    return Written(
        embeddings=commit.write_fragments(location, table, done.select(columns.names), columns),
        signatures=outcomes.write_signatures(location, done, HASH_VERSION),
        failures=outcomes.write_failures(location, failed, stage=STAGE, model_key=model_key),
        reasons=Counter(failed["reason"].to_pylist()),
        busy=busy,
        offset_s=pc.max(offsets).as_py() or 0.0,
        began=pc.min(rows["began"]).as_py(),
        ended=pc.max(rows["ended"]).as_py(),
    )
