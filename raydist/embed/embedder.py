"""The Ray actor that turns frames into vectors. Every row in is one row out: a vector, or a reason."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import torch

from raydist import gauges
from raydist.clips.decoder import CLIP_FIELDS, Geometry
from raydist.models.registry import load_encoder
from raydist.store.models import here

# Shape legend: B clips, T frames, H height, W width, C colours, D embedding size


def embedded_schema(dim: int) -> pa.Schema:
    """Rows that leave the encoder: a vector, or a reason."""
    return pa.schema(
        [*CLIP_FIELDS, ("vector", pa.list_(pa.float16(), dim)), ("embed_s", pa.float64()), ("ended", pa.float64())]
    )


class Embedder:
    """A Ray actor: frames in, unit vectors out. An actor, so that the weights are loaded once a process."""

    def __init__(self, model: str, adapter: str, device: str, geometry: Geometry, threads: int) -> None:
        if device == "cpu":
            torch.set_num_threads(threads)  # Ray allows a worker one, but an encoder on CPUs mostly bounds the run
        self._encoder = load_encoder(model, here(adapter), device=device)
        self._shape = (geometry.frames, geometry.size_px, geometry.size_px, 3)
        self._busy = gauges.Busy("embedder", device)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Embed the clips that have frames; the others keep their reason."""
        since = time.perf_counter()
        self._busy.begin()
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
        spent_s = time.perf_counter() - since
        self._busy.end()
        kept = table.drop_columns(["frames", "reason", "detail"])
        for name, values in (
            ("reason", pa.array(reasons, pa.string())),
            ("detail", pa.array(details, pa.string())),
            ("vector", column),
            ("embed_s", pa.array([spent_s / max(1, table.num_rows)] * table.num_rows, pa.float64())),
            ("ended", pa.array([time.time()] * table.num_rows, pa.float64())),
        ):
            kept = kept.append_column(name, values)
        return kept.select(embedded_schema(dim).names)
