"""The two Ray actors of embed: decode units into frames, and frames into vectors. Every clip in is one row out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raydist.clips.child import Child
from raydist.clips.naming import locate
from raydist.models.registry import load_encoder
from raydist.records import DecodedClip, Limits, Span

# Shape legend: B clips, T frames, H height, W width, D embedding size

ROWS_A_TABLE = 16
"""20 MB of ViCLIP frames: enough to amortise a block, little enough to keep the object store small."""

_CLIP = [
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
    ("decode_s", pa.float64()),
    ("decode_cpu_s", pa.float64()),
    ("began", pa.float64()),  # seconds since the epoch: decoding began, here; the batch was done, below
]
DECODED = pa.schema([*_CLIP, ("frames", pa.large_binary())])


def embedded_schema(dim: int) -> pa.Schema:
    """Rows that leave the encoder: a vector, or a reason."""
    return pa.schema(
        [*_CLIP, ("vector", pa.list_(pa.float16(), dim)), ("embed_s", pa.float64()), ("ended", pa.float64())]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What a model wants to see of a clip."""

    frames: int
    size_px: int
    resize: str


class Decoder:
    """A Ray actor: units in, clips with frames out."""

    def __init__(self, roots: Mapping[str, str], geometry: Geometry, limits: Limits) -> None:
        self._roots = dict(roots)
        self._geometry = geometry
        self._child = Child(limits)

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
            fingerprint=file["file_fingerprint"],
        )
        began = time.time()
        for clip, result in zip(clips, decoded, strict=True):
            yield {**_row(file["video_id"], clip, result), "decode_s": time.time() - began, "began": began}
            began = time.time()


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
        "reason": result.reason,
        "detail": result.detail,
        "decode_cpu_s": result.cpu_s,
        "frames": b"" if result.frames is None else result.frames.tobytes(),
    }


class Embedder:
    """A Ray actor: frames in, unit vectors out. An actor, so that the weights are loaded once a process."""

    def __init__(self, model: str, device: str, geometry: Geometry, threads: int) -> None:
        if device == "cpu":
            import torch  # Ray allows a worker one thread, but a CPU-only encoder mostly bounds the run

            torch.set_num_threads(threads)
        self._encoder = load_encoder(model, device=device)
        self._shape = (geometry.frames, geometry.size_px, geometry.size_px, 3)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Embed the clips that have frames; the others keep their reason."""
        since = time.perf_counter()
        reasons = table["reason"].to_pylist()
        details = table["detail"].to_pylist()
        good = [row for row, reason in enumerate(reasons) if not reason]
        vectors = np.zeros((table.num_rows, self._encoder.info.dim), np.float16)
        if good:
            frames = table["frames"].combine_chunks()
            frames_BTHWC = np.stack(
                [np.frombuffer(frames[row].as_buffer(), np.uint8).reshape(self._shape) for row in good]
            )
            vectors_BD = self._encoder.encode_frames(frames_BTHWC)
            for row, vector in zip(good, vectors_BD, strict=True):
                if np.isfinite(vector).all():
                    vectors[row] = vector
                else:
                    reasons[row], details[row] = "not_finite", "the model gave NaN or infinity for this clip"
        dim = vectors.shape[1]
        empty = pa.array([bool(reason) for reason in reasons])
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim, mask=empty)
        spent = (time.perf_counter() - since) / max(1, table.num_rows)
        kept = table.drop_columns(["frames", "reason", "detail"])
        for name, values in (
            ("reason", pa.array(reasons, pa.string())),
            ("detail", pa.array(details, pa.string())),
            ("vector", column),
            ("embed_s", pa.array([spent] * table.num_rows, pa.float64())),
            ("ended", pa.array([time.time()] * table.num_rows, pa.float64())),
        ):
            kept = kept.append_column(name, values)
        return kept.select(embedded_schema(dim).names)
