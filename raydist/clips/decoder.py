"""The Ray actor that decodes units of work into frames. Every clip in is one row out: frames, or a reason."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raydist import gauges
from raydist.clips.child import Child
from raydist.clips.naming import locate
from raydist.records import DecodedClip, Limits, Span

ROWS_A_TABLE = 16
"""20 MB of ViCLIP frames: enough to amortise a block, little enough to keep the object store small."""

CLIP_FIELDS = [
    ("clip_key", pa.int64()),
    ("clip_id", pa.string()),
    ("video_id", pa.string()),
    ("fingerprint", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("split", pa.string()),
    ("has_signature", pa.bool_()),
    ("filled_frames", pa.int32()),
    ("frame_hashes", pa.list_(pa.uint64())),
    ("frame_times_s", pa.list_(pa.float64())),
    ("reason", pa.string()),
    ("detail", pa.string()),
    ("offsets_s", pa.list_(pa.float64())),
    ("decode_s", pa.float64()),
    ("decode_cpu_s", pa.float64()),
    ("bytes_read", pa.int64()),
    ("began", pa.float64()),  # seconds since the epoch: decoding began, here; the batch was done, below
]
DECODED = pa.schema([*CLIP_FIELDS, ("frames", pa.large_binary())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What a model wants to see of a clip."""

    frames: int
    sampling: str
    size_px: int
    resize: str


class Decoder:
    """A Ray actor: units in, clips with frames out."""

    def __init__(self, roots: Mapping[str, str], geometry: Geometry, limits: Limits) -> None:
        self._roots = dict(roots)
        self._geometry = geometry
        self._child = Child(limits)
        self._busy = gauges.Busy("decoder")

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Decode all clips of all units."""
        rows: list[dict[str, Any]] = []
        for unit in table["files"].to_pylist():
            for file in unit:
                for row in self._decode(file):
                    rows.append(row)
                    if len(rows) == ROWS_A_TABLE:
                        yield pa.Table.from_pylist(rows, DECODED)
                        rows = []
        if rows:
            yield pa.Table.from_pylist(rows, DECODED)

    def _decode(self, file: dict[str, Any]) -> Iterator[dict[str, Any]]:
        clips = file["clips"]
        decoded = self._child.decode(
            locate(self._roots[file["root"]], file["path"]),
            [Span(start_ms=clip["start_ms"], end_ms=clip["end_ms"]) for clip in clips],
            frames=self._geometry.frames,
            size_px=self._geometry.size_px,
            resize=self._geometry.resize,
            sampling=self._geometry.sampling,
            hashes=not all(clip["has_signature"] for clip in clips),
            fingerprint=file["file_fingerprint"],
        )
        began = time.time()
        self._busy.begin()
        for clip, result in zip(clips, decoded, strict=True):
            spent_s = time.time() - began
            self._busy.end()
            yield {**_row(file["video_id"], clip, result), "decode_s": spent_s, "began": began}
            began = time.time()
            self._busy.begin()
        self._busy.end()


def _row(video_id: str, clip: dict[str, Any], result: DecodedClip) -> dict[str, Any]:
    return {
        "clip_key": clip["clip_key"],
        "clip_id": clip["clip_id"],
        "video_id": video_id,
        "fingerprint": clip["fingerprint"],
        "start_s": clip["start_ms"] / 1000,
        "end_s": clip["end_ms"] / 1000,
        "split": clip["split"],
        "has_signature": clip["has_signature"],
        "filled_frames": result.filled_frames,
        "frame_hashes": list(result.frame_hashes),
        "frame_times_s": [time_ms / 1000 for time_ms in result.frame_times_ms],
        "offsets_s": [offset_ms / 1000 for offset_ms in result.offsets_ms],
        "reason": result.reason,
        "detail": result.detail,
        "decode_cpu_s": result.cpu_s,
        "bytes_read": result.bytes_read,
        "frames": b"" if result.frames is None else result.frames.tobytes(),
    }
