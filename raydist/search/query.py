"""What is looked for, and its vector: words, a picture, a clip of the archive, a video from outside, numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raydist import address
from raydist.clips import naming
from raydist.clips.child import Child
from raydist.clips.resize import resize_frames
from raydist.clips.still import read_still
from raydist.errors import ClipError, ModelError, SourceError, StoreError, UsageError
from raydist.models.encoder import Encoder
from raydist.models.recall import recall
from raydist.models.registry import load_encoder
from raydist.records import Limits, Span
from raydist.store import read
from raydist.store.models import Stored, brought

# Shape legend: Q queries, D embedding size, T H W C as in frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One thing to look for; exactly one field is set, beside the name."""

    words: str | None = None
    image: str | None = None
    """A picture file."""
    clip_id: str | None = None
    """A clip of the archive; it is not among its own hits."""
    video: str | None = None
    """A video file that need not be in the archive: a path or an address, all of it or `FILE#t=START,END`."""
    vector: NDArray[np.floating] | None = None
    """[D], of the model's space; of any length but 0."""
    name: str = ""
    """How results name the query; empty: by what it looks for."""

    @property
    def label(self) -> str:
        """How results name the query."""
        return self.name or self.words or self.image or self.clip_id or self.video or "vector"

    @property
    def is_text(self) -> bool:
        """Whether its scores are those of texts. A vector may be of either kind and is taken for a text's."""
        return self.words is not None or self.vector is not None


def read_queries(file: str) -> list[Query]:
    """Queries from a text file, a line each; empty lines are left out.

    Raises:
        UsageError: if it cannot be read or holds none.
    """
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--queries {file!r} cannot be read ({error}): expected a UTF-8 text file, a query a line"
        ) from error
    queries = [Query(words=line.strip()) for line in lines if line.strip()]
    if not queries:
        raise UsageError(f"--queries {file!r} holds no query: expected one a line")
    return queries


class Asker:
    """Turns queries into vectors of an archive's model; its encoder is loaded when it is first needed."""

    def __init__(self, location: str, table: str, model: Stored, device: str, limits: Limits) -> None:
        self._location, self._table = location, table
        self._model, self._device, self._limits = model, device, limits

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that made the vectors of the archive.

        Raises:
            ModelError: if its adapter is gone.
            StoreError: if the weights of that name are not the ones that were used.
        """
        model = self._model
        adapter = brought(self._location, model.adapter)
        if adapter and not os.path.isdir(adapter):
            raise ModelError(
                f"the vectors of {model.name!r} were made with the adapter in {model.adapter!r}, and that folder is "
                "gone: words and pictures need it. Bring it back, or name another model; --clip works without it."
            )
        info = recall(model.model_key, model.name, model.location, adapter)
        if info is None and model.adapter:
            raise StoreError(
                f"the adapter in {model.adapter!r} with the weights of {model.name!r} on this machine is not what made "
                f"the archive's vectors, {model.model_key}: it was trained again, or the weights are others. Bring "
                "those back, or copy the adapter into a folder of another name and run `raydist embed --adapter "
                "FOLDER`."
            )
        if info is None:
            raise StoreError(
                f"the weights of {model.name!r} on this machine are not those of the archive's vectors, "
                f"{model.model_key} (made from {model.location}): bring the same weights here, or run `raydist embed` "
                "with these"
            )
        return load_encoder(info.location, info.adapter, device=self._device)

    def vectors(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """[Q, D] unit vectors.

        Raises:
            ClipError: a clip that has none.
            ModelError, StoreError: words or a picture, and the encoder is not here; or a vector of another width.
            SourceError: a file that cannot be read.
            UsageError: an empty query.
        """
        vectors: list[NDArray[np.floating] | None] = [self._vector(query) for query in queries]
        words = [index for index, query in enumerate(queries) if query.words is not None]
        if words:
            for index, vector in zip(words, self.texts([queries[index].words or "" for index in words]), strict=True):
                vectors[index] = vector
        width = read.need_table(self._location, self._table).schema.field("vector").type.list_size
        for vector in vectors:
            if vector is not None and len(vector) != width:
                raise StoreError(
                    f"a query vector of {len(vector)} numbers: table {self._table!r} holds {width}-d vectors, those of "
                    f"{self._model.name!r}"
                )
        return np.stack([vector for vector in vectors if vector is not None]).astype(np.float32)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[Q, D] unit vectors of texts."""
        if not all(text.strip() for text in texts):
            raise UsageError("an empty query: expected words that say what to look for")
        vectors_QD = self.encoder.encode_text(texts)
        for text, vector_D in zip(texts, vectors_QD, strict=True):
            _finite(vector_D, f"the words {text!r}")
        return vectors_QD

    def _vector(self, query: Query) -> NDArray[np.floating] | None:
        if query.image is not None:
            return _of_image(self.encoder, query.image)
        if query.video is not None:
            return self._of_video(query.video)
        if query.clip_id is not None:
            return _of_clip(self._location, self._table, query.clip_id)
        return None if query.vector is None else _of_numbers(query.vector)

    def _of_video(self, name: str) -> NDArray[np.float32]:
        """The vector that the archive would have of it."""
        file, span = _part_of(name)
        child = Child(self._limits)
        try:
            if span is None:
                span = Span(start_ms=0, end_ms=max(1, child.probe(file).duration_ms))
            info = self.encoder.info
            (clip,) = child.decode(
                file,
                [span],
                frames=info.frames,
                size_px=info.size_px,
                resize=info.resize,
                sampling=info.sampling,
                hashes=False,
            )
        finally:
            child.close()
        if clip.frames is None:
            raise SourceError(clip.reason, f"{name!r}: {clip.detail or 'no frame of it decodes'}")
        (vector_D,) = self.encoder.encode_frames(clip.frames[None])
        return _finite(vector_D, f"the video {name!r}")


def _part_of(name: str) -> tuple[str, Span | None]:
    """A file, and the span behind `#t=` where one is given; a file of that very name comes first."""
    whole = name if address.is_address(name) else os.path.expanduser(name)
    if "#t=" not in name or (not address.is_address(name) and os.path.exists(whole)):
        return whole, None
    file, span = naming.parse_clip_id(whole)
    if span.end_ms <= span.start_ms:
        raise ClipError(f"{name!r} is an empty span: expected FILE#t=START,END with START before END, in seconds")
    return file, span


def _of_numbers(vector: NDArray[np.floating]) -> NDArray[np.floating]:
    """The direction of a caller's vector, so that its scores are cosines too."""
    vector = np.asarray(vector, np.float64)
    length = np.linalg.norm(vector)
    if vector.ndim != 1 or not np.isfinite(length) or length == 0:
        raise UsageError(f"a query vector of shape {list(vector.shape)}: expected [D] finite numbers, not all zero")
    direction: NDArray[np.floating] = vector / length
    return direction


def _of_image(encoder: Encoder, image: str) -> NDArray[np.float32]:
    """A picture is a clip that stands still."""
    info = encoder.info
    frames_THWC = resize_frames(read_still(image)[None], info.size_px, info.resize)
    (vector_D,) = encoder.encode_frames(np.repeat(frames_THWC, info.frames, axis=0)[None])
    return _finite(vector_D, f"the picture {image!r}")


def _finite(vector_D: NDArray[np.float32], of: str) -> NDArray[np.float32]:
    if not np.isfinite(vector_D).all():
        raise UsageError(f"the model gave NaN or infinity for {of}: expected finite numbers; are its weights whole?")
    return vector_D


def _of_clip(location: str, table: str, clip_id: str) -> NDArray[np.floating]:
    """The vector of what the clip shows now."""
    naming.parse_clip_id(clip_id)
    key = naming.clip_key(clip_id)
    current = read.rows_by_key(location, "clips", [key], ["fingerprint"])["fingerprint"].to_pylist()
    rows = read.rows_by_key(location, table, [key], ["fingerprint", "vector"]).to_pylist()
    for row in rows:
        if row["fingerprint"] in current:
            return np.array(row["vector"], np.float32)
    why = "its file changed since it was embedded: run `raydist embed`" if rows and current else "it is not there"
    raise ClipError(f"no vector of {clip_id!r} in the archive, {why}; expected a clip id that `raydist search` shows")
