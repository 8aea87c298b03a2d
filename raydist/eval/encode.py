"""The Ray task that embeds clips and texts with one model or two, where the GPU is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raydist.clips.decoder import Geometry
from raydist.frames.reader import FrameReader
from raydist.models.registry import load_encoder
from raydist.records import Limits
from raydist.store.models import here

# Shape legend: B clips, M texts, L tokens, S models, E embedding size


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the task needs: values only."""

    location: str
    model: str
    """Folder of the base."""
    adapter: str
    """Of the adapter, as `store.models.portable` names it; empty: the base alone."""
    device: str
    threads: int
    batch: int
    geometry: Geometry
    places: Mapping[str, str]
    limits: Limits
    encoding: str
    candidates: int
    pairs: pa.Table
    texts: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The texts, as each model reads them."""

    ids_ML: NDArray[np.int64]
    vectors_SME: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """A batch of clips."""

    good_B: NDArray[np.bool_]
    """Whether the clip had frames."""
    vectors_SBE: NDArray[np.float32]


def encode(work: Work) -> Iterator[Texts | Clips]:
    """The texts, then the clips batch by batch, each with the base and, where there is one, with the adapter."""
    if work.device == "cpu":
        torch.set_num_threads(work.threads)  # Ray allows a task one
    encoders = [
        load_encoder(work.model, adapter=adapter, device=work.device)
        for adapter in ([None, here(work.adapter)] if work.adapter else [None])
    ]
    ids_ML = encoders[0].ids(work.texts).cpu().numpy().astype(np.int64)
    yield Texts(ids_ML=ids_ML, vectors_SME=np.stack([encoder.encode_text(work.texts) for encoder in encoders]))
    reader = FrameReader(
        work.location,
        work.geometry,
        work.places,
        work.limits,
        encoding=work.encoding,
        candidates=work.candidates,
        decoders=work.threads,
    )
    try:
        for start in range(0, work.pairs.num_rows, work.batch):
            frames_BTHWC, good_B = reader.read(work.pairs.slice(start, work.batch))
            vectors = np.stack([encoder.encode_frames(frames_BTHWC) for encoder in encoders])
            yield Clips(good_B=good_B, vectors_SBE=vectors)
    finally:
        reader.close()
