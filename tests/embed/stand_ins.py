"""stand_ins: what takes the place of decoding and of the model where a million clips are embedded.

Only these two: frames of less than 1 KB that nobody decoded, and vectors that nobody computed. Units, rows, blocks,
fragments, commits and resume are the product's: `raydist.embed.graph.run(..., actors=STAND_INS)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydist import gauges
from raydist.clips.decoder import Decoder, Geometry
from raydist.embed.embedder import Embedder
from raydist.embed.graph import Actors
from raydist.models.encoder import ModelInfo
from raydist.models.registry import describe
from raydist.records import DecodedClip, Limits, Span

FRAMES_SHAPE = (1, 16, 16, 3)
"""768 bytes a clip."""

FRAMES = 8

ONE_FAILS_OF = 1_000
"""Clips, about: a long run has failures too."""


class StandInChild:
    """Answers like `clips.child.Child`, and decodes nothing."""

    def decode(self, location: str, spans: Sequence[Span], **_: Any) -> Iterator[DecodedClip]:
        """One clip a span; file and start decide on everything in it."""
        for span in spans:
            digest = blake2b(f"{location}:{span.start_ms}".encode()).digest()
            if int.from_bytes(digest[:4], "big") % ONE_FAILS_OF == 0:
                yield DecodedClip(span=span, frames=None, reason="no_frames", detail="a stand-in that fails")
                continue
            step_ms = (span.end_ms - span.start_ms) // FRAMES
            yield DecodedClip(
                span=span,
                frames=np.frombuffer(digest * 12, np.uint8).reshape(FRAMES_SHAPE),
                frame_times_ms=tuple(span.start_ms + step_ms * number for number in range(FRAMES)),
                offsets_ms=(0,) * FRAMES,
                frame_hashes=tuple(np.frombuffer(digest, np.uint64).tolist()),
            )


class StandInDecoder(Decoder):
    """The product's decoder, with a child that decodes nothing."""

    def __init__(self, roots: Mapping[str, str], geometry: Geometry, limits: Limits) -> None:
        super().__init__(roots, geometry, limits)
        self._child = StandInChild()  # type: ignore[assignment]  # it is a stand-in


class StandInEncoder:
    """Answers like a model, without one."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    def encode_frames(self, frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors: the first bytes of the frames, as numbers around zero."""
        vectors_BD = frames_BTHWC.reshape(len(frames_BTHWC), -1)[:, : self.info.dim].astype(np.float32) - 127.4
        return vectors_BD / np.linalg.norm(vectors_BD, axis=1, keepdims=True)


class StandInEmbedder(Embedder):
    """The product's embedder, with an encoder that knows no model."""

    def __init__(self, model: str, adapter: str, device: str, geometry: Geometry, threads: int) -> None:
        self._encoder = StandInEncoder(describe(model, adapter or None))  # type: ignore[assignment]  # it is a stand-in
        self._shape = FRAMES_SHAPE
        self._busy = gauges.Busy("embedder", device)


STAND_INS = Actors(decoder=StandInDecoder, embedder=StandInEmbedder)
