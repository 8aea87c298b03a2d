"""The public face of an archive, for notebooks and other programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydist import caption as caption_stage
from raydist import config as settings_of
from raydist import dedup as dedup_stage
from raydist import embed as embed_stage
from raydist import eval as eval_stage
from raydist import export as export_verb
from raydist import forget as forget_verb
from raydist import scan as scan_stage
from raydist import search as search_stage
from raydist import status as status_verb
from raydist import train as train_stage
from raydist.errors import UsageError
from raydist.records import Report
from raydist.search import Query


class Archive:
    """One location that holds everything: `raydist.open(location)`.

    Settings are resolved as on the command line (file, environment), with `changes` (`section.field=value`) above them.
    """

    def __init__(self, location: str, changes: Sequence[str] = ()) -> None:
        self.config = settings_of.load(changes=tuple(changes), options={"archive": location}).config
        self.location = self.config.require_archive()

    def __repr__(self) -> str:
        return f"raydist.open({self.location!r})"

    def scan(self, *inputs: str, **request: Any) -> Report:
        """Find videos and cut them into clips; keywords are those of `raydist.scan.Request`."""
        return scan_stage.run(self.config, scan_stage.Request(inputs=inputs, **request))

    def caption(
        self, file: str | None = None, *, provider: str | None = None, model: str | None = None, **request: Any
    ) -> Report:
        """Give clips the captions of a list, or of a provider's model; keywords are those of `caption.Request`."""
        if file and provider:
            raise UsageError("expected a list of captions or a provider, not both")
        config = settings_of.changed(self.config, {"caption.provider": provider, "caption.model": model})
        return caption_stage.run(config, caption_stage.Request(file=file, **request))

    def train(self, run: str = "lora", *, model: str | None = None, retry_failed: bool = False) -> Report:
        """Fine-tune a model on the captioned clips; its adapter bears the run's name."""
        config = settings_of.changed(self.config, {"embed.model": model})
        return train_stage.run(config, train_stage.Request(run=run, retry_failed=retry_failed))

    def embed(self, model: str | None = None, *, adapter: str | None = None, retry_failed: bool = False) -> Report:
        """Give every clip a vector of the model, with the adapter of a run or a folder where one is named."""
        config = settings_of.changed(self.config, {"embed.model": model, "embed.adapter": adapter})
        return embed_stage.run(config, retry_failed=retry_failed)

    def eval(
        self,
        adapter: str | None = None,
        *,
        model: str | None = None,
        split: str | None = None,
        retry_failed: bool = False,
    ) -> Report:
        """Measure retrieval on held-out clips, base against adapter; the figures are in the report's `details`."""
        options = {"embed.model": model, "embed.adapter": adapter, "eval.split": split}
        return eval_stage.run(settings_of.changed(self.config, options), retry_failed=retry_failed)

    def dedup(self, *, model: str | None = None, adapter: str | None = None, **request: Any) -> Report:
        """Find duplicates; keywords are those of `raydist.dedup.Request`, the figures are in the report's `details`."""
        config = settings_of.changed(self.config, {"embed.model": model, "embed.adapter": adapter})
        return dedup_stage.run(config, dedup_stage.Request(**request))

    def search(
        self,
        query: str | Sequence[str] | NDArray[np.floating] | None = None,
        *,
        image: str | None = None,
        clip: str | None = None,
        video_file: str | None = None,
        top: int | None = None,
        per_video: int | None = None,
        min_score: float | str | None = None,
        hybrid: bool | None = None,
        moments: bool | None = None,
        where: str | None = None,
        video: str | Sequence[str] = (),
        split: str | None = None,
        duration: str | None = None,
        model: str | None = None,
        adapter: str | None = None,
    ) -> pa.Table:
        """Rank moments by words (one text or many), vectors [D] or [Q, D], a picture file, a clip of the archive, or a
        video file from outside (`FILE`, `FILE#t=30,60`).

        The rest is as on the command line: `raydist search --help`.

        Returns:
            Columns query, rank, score (cosine), clip_id, video_id, path, start_s, end_s, caption.

        Raises:
            RaydistError: as `raydist search` would say it.
        """
        queries = _queries(query, image, clip, video_file)
        config = settings_of.changed(
            self.config,
            {
                "embed.model": model,
                "embed.adapter": adapter,
                "search.top": top,
                "search.per_video": per_video,
                "search.min_score": min_score,
                "search.hybrid": hybrid,
                "search.moment_s": 0.0 if moments is False else None,
            },
        )
        videos = [video] if isinstance(video, str) else list(video)
        narrowed = search_stage.condition(config, where=where, videos=videos, split=split, duration=duration)
        return search_stage.run(config, queries, where=narrowed)

    def forget(self, *videos: str) -> Report:
        """Remove videos (ids or paths) from everything in the archive, for good; their files stay. Nobody is asked."""
        return forget_verb.run(self.config, forget_verb.plan(self.config, videos))

    def export_embeddings(
        self, out: str, *, model: str | None = None, adapter: str | None = None, where: str | None = None
    ) -> Report:
        """Write the vectors of all clips with their names and times: `.parquet`, or `.npy` with a `.csv` beside it."""
        config = settings_of.changed(self.config, {"embed.model": model, "embed.adapter": adapter})
        return export_verb.embeddings(config, out, where=where)

    def export_captions(self, out: str, **request: Any) -> Report:
        """Write the clips that have captions: pairs (`.parquet`, `.jsonl`), or shards of WebDataset in a new folder;
        keywords are those of `raydist.export.captions`."""
        return export_verb.captions(self.config, out, **request)

    def export_checkpoint(self, out: str, *, adapter: str, model: str | None = None) -> Report:
        """Write a model with its adapter folded in, in the model's own layout, into a new folder."""
        config = settings_of.changed(self.config, {"embed.model": model, "embed.adapter": adapter})
        return export_verb.checkpoint(config, out)

    def status(self) -> dict[str, Any]:
        """The books: files, clips, and per model rows, failed and pending."""
        return status_verb.run(self.config)


def _queries(
    query: str | Sequence[str] | NDArray[np.floating] | None, image: str | None, clip: str | None, video: str | None
) -> list[Query]:
    queries: list[Query] = []
    if isinstance(query, str):
        queries.append(Query(words=query))
    elif isinstance(query, np.ndarray):
        vectors = [query] if query.ndim == 1 else list(query)
        names = ["vector"] if query.ndim == 1 else [f"vector {number}" for number in range(len(vectors))]
        queries.extend(Query(vector=vector, name=name) for vector, name in zip(vectors, names, strict=True))
    elif query is not None:
        queries.extend(Query(words=words) for words in _texts(query))
    if image is not None:
        queries.append(Query(image=image))
    if clip is not None:
        queries.append(Query(clip_id=clip))
    if video is not None:
        queries.append(Query(video=video))
    if not queries:
        raise UsageError("nothing to search for: expected words, vectors, image=, clip= or video_file=")
    return queries


def _texts(query: Sequence[str]) -> Sequence[str]:
    if isinstance(query, bytes) or not isinstance(query, Iterable) or not all(isinstance(text, str) for text in query):
        raise UsageError(
            f"a query of type {type(query).__name__}: expected a text, a list of texts, or a NumPy array of vectors "
            "([D] or [Q, D]; `numpy.array(...)` makes one of lists)"
        )
    return query
