"""search: words, a picture or a clip -> ranked clips.

Reads     `embeddings_<model_key>`, `clips` to leave out what is stale, `captions` and `roots` to say what and where
Promises  exact; k hits while the archive has k that the filter allows; the same vectors always rank the same way
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist import choice
from raydist.clips import naming
from raydist.clips.resize import resize_frames
from raydist.clips.still import read_still
from raydist.config import Config
from raydist.errors import ArchiveError, ClipError, ModelError, StoreError, UsageError
from raydist.models.encoder import Encoder
from raydist.models.recall import recall
from raydist.models.registry import load_encoder
from raydist.store import nearest, read, roots, settings
from raydist.store.models import Stored
from raydist.store.schema import embeddings_table
from raydist.store.sql import all_of, other_than

# Shape legend: Q queries, D embedding size, B T H W as in frames

HITS = pa.schema(
    {
        "query": pa.string(),
        "rank": pa.int32(),
        "score": pa.float32(),
        "clip_id": pa.string(),
        "video_id": pa.string(),
        "path": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "caption": pa.string(),
    }
)
_COLUMNS = ("clip_key", "clip_id", "fingerprint", "video_id", "start_s", "end_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One thing to look for; exactly one field is set."""

    words: str | None = None
    image: str | None = None
    """A picture file."""
    clip_id: str | None = None
    """A clip of the archive; it is not among its own hits."""
    vector: NDArray[np.floating] | None = None
    """[D], of the model's space; of any length but 0."""
    name: str = ""
    """How results name the query; empty: by what it looks for."""

    @property
    def label(self) -> str:
        """How results name the query."""
        return self.name or self.words or self.image or self.clip_id or "vector"


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


def run(config: Config, queries: Sequence[Query], *, where: str | None = None) -> pa.Table:
    """Rank the archive's clips for each query.

    Args:
        config: `archive`, `embed.model`, `embed.adapter`, `embed.device` and `search.top` matter.
        queries: what to look for.
        where: SQL condition over the columns of the embeddings table.

    Returns:
        A table with the columns of `HITS`, query after query, rank after rank.

    Raises:
        ArchiveError: no archive, or nothing embedded in it.
        ModelError: the model or its adapter is not on this machine.
        StoreError: the archive has no vectors of the model, or of several and none was named; a bad condition.
        UsageError: a query that is empty or cannot be read.
    """
    location = config.require_archive()
    settings.open_existing(location)
    model = choice.to_search(location, config.embed.model, config.embed.adapter)
    table = embeddings_table(model.model_key)
    if not read.count_rows(location, table):
        raise ArchiveError(f"the archive {location!r} has no vectors yet: run `raydist embed` first")
    vectors = _vectors(location, table, model, queries, config.embed.device)
    asked = [
        (query, vector, all_of(where, other_than("clip_id", query.clip_id) if query.clip_id else None))
        for query, vector in zip(queries, vectors, strict=True)
    ]
    return _assemble(location, config, _rank(location, table, asked, config.search.top))


def _encoder(model: Stored, device: str) -> Encoder:
    """The encoder that made the vectors of the archive.

    Raises:
        ModelError: if they are not here.
        StoreError: if the weights of that name are not the ones that were used.
    """
    if model.adapter and not os.path.isdir(model.adapter):
        raise ModelError(
            f"the vectors of {model.name!r} were made with the adapter in {model.adapter!r}, and that folder is gone: "
            "words and pictures need it. Bring it back, or name another model; --clip works without it."
        )
    info = recall(model.model_key, model.name, model.location, model.adapter)
    if info is None and model.adapter:
        raise StoreError(
            f"the adapter in {model.adapter!r} with the weights of {model.name!r} on this machine is not what made the "
            f"archive's vectors, {model.model_key}: it was trained again, or the weights are others. Bring those back, "
            "or copy the adapter into a folder of another name and run `raydist embed --adapter FOLDER`."
        )
    if info is None:
        raise StoreError(
            f"the weights of {model.name!r} on this machine are not those of the archive's vectors, {model.model_key} "
            f"(made from {model.location}): bring the same weights here, or run `raydist embed` with these"
        )
    return load_encoder(info.location, info.adapter, device=device)


def _vectors(location: str, table: str, model: Stored, queries: Sequence[Query], device: str) -> NDArray[np.float32]:
    """[Q, D] unit vectors; the encoder is only loaded where words or a picture ask for it."""
    vectors: list[NDArray[np.floating] | None] = [None] * len(queries)
    words = [index for index, query in enumerate(queries) if query.words is not None]
    encoder: Encoder | None = None
    if words or any(query.image for query in queries):
        encoder = _encoder(model, device)
    if words and encoder is not None:
        texts = [queries[index].words or "" for index in words]
        if not all(text.strip() for text in texts):
            raise UsageError("an empty query: expected words that say what to look for")
        for index, vector in zip(words, encoder.encode_text(texts), strict=True):
            vectors[index] = _finite(vector, f"the words {queries[index].words!r}")
    for index, query in enumerate(queries):
        if query.image is not None and encoder is not None:
            vectors[index] = _of_image(encoder, query.image)
        elif query.clip_id is not None:
            vectors[index] = _of_clip(location, table, query.clip_id)
        elif query.vector is not None:
            vectors[index] = _of_numbers(query.vector)
    return np.stack([vector for vector in vectors if vector is not None]).astype(np.float32)


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


def _assemble(location: str, config: Config, ranked: list[tuple[Query, list[dict[str, Any]]]]) -> pa.Table:
    """Hits with where their file is on this machine and what their caption says."""
    hits = [hit for _, found in ranked for hit in found]
    paths = _paths(location, config, {hit["video_id"] for hit in hits})
    captions = _captions(location, hits)
    rows = []
    for query, found in ranked:
        for rank, hit in enumerate(found, start=1):
            rows.append(
                {
                    "query": query.label,
                    "rank": rank,
                    "score": hit["score"],
                    "clip_id": hit["clip_id"],
                    "video_id": hit["video_id"],
                    "path": paths.get(hit["video_id"]),
                    "start_s": hit["start_s"],
                    "end_s": hit["end_s"],
                    "caption": captions.get((hit["clip_key"], hit["fingerprint"])),
                }
            )
    return pa.Table.from_pylist(rows, schema=HITS)


def _paths(location: str, config: Config, video_ids: set[str]) -> dict[str, str]:
    places = roots.places(location, config.roots)
    rows = read.rows_by_key(location, "videos", sorted(video_ids), ["video_id", "root", "path"], key="video_id")
    # A name that is not UTF-8 cannot stand in a table of strings: it is shown with replacement characters.
    return {
        row["video_id"]: naming.locate(places[row["root"]], row["path"])
        .encode(errors="surrogateescape")
        .decode(errors="replace")
        for row in rows.to_pylist()
    }


def _captions(location: str, hits: list[dict[str, Any]]) -> dict[tuple[int, str], str]:
    if read.open_table(location, "captions") is None:
        return {}
    keys = sorted({hit["clip_key"] for hit in hits})
    rows = read.rows_by_key(location, "captions", keys, ["clip_key", "fingerprint", "number", "caption"])
    ordered = sorted(rows.to_pylist(), key=lambda row: -row["number"])
    return {(row["clip_key"], row["fingerprint"]): row["caption"] for row in ordered}


def _rank(
    location: str, table: str, asked: list[tuple[Query, NDArray[np.float32], str | None]], top: int
) -> list[tuple[Query, list[dict[str, Any]]]]:
    """Hits per query. Queries of one condition share a pass over the vectors."""
    found: dict[int, list[dict[str, Any]]] = {}
    conditions = {condition for _, _, condition in asked}
    for condition in conditions:
        members = [index for index, (_, _, own) in enumerate(asked) if own == condition]
        vectors_QD = np.stack([asked[index][1] for index in members])
        found.update(zip(members, _current_hits(location, table, vectors_QD, condition, top), strict=True))
    return [(query, found[index]) for index, (query, _, _) in enumerate(asked)]


def _current_hits(
    location: str, table: str, vectors_QD: NDArray[np.float32], where: str | None, top: int
) -> list[list[dict[str, Any]]]:
    """The best hits whose clip is still what was embedded; more are fetched for those that are not."""
    wanted = top
    while True:
        ranked = nearest.top_k(location, table, vectors_QD, wanted, where=where, columns=_COLUMNS)
        keys = sorted({key for hits in ranked for key in hits["clip_key"].to_pylist()})
        clips = read.rows_by_key(location, "clips", keys, ["clip_key", "fingerprint"]).to_pylist()
        current = {(row["clip_key"], row["fingerprint"]) for row in clips}
        fresh = [
            [row for row in hits.to_pylist() if (row["clip_key"], row["fingerprint"]) in current][:top]
            for hits in ranked
        ]
        short = any(len(rows) < top and hits.num_rows == wanted for rows, hits in zip(fresh, ranked, strict=True))
        if not short:
            return fresh
        wanted *= 2


def render(hits: list[dict[str, Any]]) -> str:
    """Hits in lines for a person."""
    if not hits:
        return "no clip matches"
    lines = []
    for hit in hits:
        if hit.get("query") and hit["rank"] == 1:
            lines.append(f"{hit['query']}:")
        caption = f"  {hit['caption']}" if hit["caption"] else ""
        lines.append(f"{hit['rank']:>4}  {hit['score']:.3f}  {_printable(hit['clip_id'])}{caption}")
    return "\n".join(lines)


def _printable(text: str) -> str:
    """A name on one line of a terminal, whatever bytes it holds."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
