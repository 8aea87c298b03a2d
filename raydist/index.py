"""index: the vector index behind search: built, refreshed, and its recall measured.

Reads     a model's vectors; captions, or the bundled everyday queries, as texts to measure with
Writes    the index and its card (see `store.index`)
Again     what is up to date stays; `embed` does the same at its end where a table is large enough

Recall is measured on texts because they lie apart from all video vectors: with as many probes as video vectors need,
text queries lose a third of their hits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raydist import choice
from raydist.config import Config
from raydist.errors import RaydistError
from raydist.models.encoder import ModelInfo
from raydist.models.recall import recall
from raydist.models.registry import load_encoder
from raydist.progress import talk
from raydist.records import Report
from raydist.sections import Search
from raydist.store import calibrate, compact, index, read
from raydist.store.calibrate import TEXT, VIDEO, Asked
from raydist.store.index import Card
from raydist.store.lease import Lease
from raydist.store.models import Stored, brought
from raydist.store.runs import new_run, save
from raydist.store.schema import embeddings_table

LOW = {VIDEO: 0.95, TEXT: 0.85}
"""Recall below which a warning is due."""

_ASKED = 200
"""Queries of each kind; half of them choose how far to look, the others are measured."""

_CAPTIONS_ENOUGH = 50
_EVERYDAY = Path(__file__).parent / "search" / "everyday.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was done about a table's index."""

    done: str
    """`build`, `refresh`, `measure`, or "" for nothing."""
    card: Card | None
    notes: tuple[str, ...] = ()


def run(config: Config, *, rebuild: bool = False) -> Report:
    """Build the index of a model's vectors, or bring it up to date.

    Args:
        rebuild: build it anew even where it is up to date.

    Raises:
        ArchiveError: no archive, or nothing was embedded.
        StoreError: no model was named and the archive has several; or Lance fails.
    """
    began = time.monotonic()
    location = config.require_archive()
    model = choice.to_search(location, config.embed.model, config.embed.adapter)
    table, name = embeddings_table(model.model_key), new_run("index")
    notes: tuple[str, ...] = ()
    with Lease(location, "index") as held:
        compact.compact_if_alone(location, table, held)  # files of an index before the last one go too
        if not read.count_rows(location, table):
            kept, notes = Kept(done="", card=None), ("there are no vectors to index: run `raydist embed`",)
        else:
            kept = _keep(location, model, config.search, _wanted(location, table, rebuild))
    built = index.find(read.need_table(location, table))
    counts = {
        "vectors": read.count_rows(location, table),
        "indexed": built.rows if built else 0,
        "partitions": kept.card.partitions if kept.card else 0,
    }
    done = {"build": "built anew", "refresh": "refreshed", "measure": "measured", "": "nothing to do"}[kept.done]
    report = Report(
        stage="index",
        run=name,
        seconds=time.monotonic() - began,
        counts=counts,
        notes=(done, *kept.notes, *notes),
        details={"model": model.name, **figures(kept)},
    )
    save(report, location)
    return report


def keep(location: str, model: ModelInfo, section: Search) -> Kept:
    """Build or refresh the index where the table has outgrown exact search; what goes wrong becomes a note."""
    stored = Stored(model_key=model.model_key, name=model.name, location=model.location, adapter=model.adapter)
    table = embeddings_table(model.model_key)
    wanted = index.wants(location, table, section.index_rows, section.unindexed)
    if not wanted:
        return Kept(done="", card=None)
    try:
        return _keep(location, stored, section, wanted)
    except RaydistError as error:
        return Kept(done="", card=None, notes=(f"the index was not built, search goes on without: {error}",))


def figures(kept: Kept) -> dict[str, object]:
    """What was done, and the card, for a report's details."""
    return {"index": {"done": kept.done, **(asdict(kept.card) if kept.card else {})}}


def _wanted(location: str, table: str, rebuild: bool) -> str:
    """What a person who asks for an index gets, however small the table."""
    built = index.find(read.need_table(location, table))
    wanted = index.wants(location, table, 1, 0.0)
    card = index.read_card(location, table)
    if rebuild or built is None or wanted == "build":
        return "build"
    return wanted or ("" if card and card.probes else "measure")


def _keep(location: str, model: Stored, section: Search, wanted: str) -> Kept:
    table = embeddings_table(model.model_key)
    if not wanted:
        return Kept(done="", card=index.read_card(location, table))
    if wanted == "build":
        talk.print(f"building the index of {read.count_rows(location, table):,} vectors of {model.name}")
        index.build(location, table)
    elif wanted == "refresh":
        index.refresh(location, table)
    queries, notes = _queries(location, model, table)
    card = calibrate.measure(location, table, queries, target=section.recall)
    measured = ", ".join(f"{kind} {share:.3f}" for kind, share in card.recall.items())
    looked = f"it looks at {card.probes_for(10)} of {card.partitions} partitions"
    told = [f"share of the ten nearest that a search finds: {measured}; {looked}"]
    told += [
        f"recall of {kind} queries is {card.recall[kind]:.2f}, below {low}: run `raydist index --rebuild`, or set "
        "search.recall higher"
        for kind, low in LOW.items()
        if card.recall.get(kind, 1) < low
    ]
    return Kept(done=wanted, card=card, notes=(*told, *notes))


def _queries(location: str, model: Stored, table: str) -> tuple[dict[str, Asked], list[str]]:
    """Vectors to measure with, by kind; and what stood in the way of texts."""
    queries = {VIDEO: calibrate.sample(location, table, _ASKED)}
    texts = _texts(location)
    try:
        adapter = brought(location, model.adapter)
        info = recall(model.model_key, model.name, model.location, adapter)
        if info is None:
            return queries, ["recall of texts was not measured: the model's weights on this machine are others"]
        vectors_QD = load_encoder(info.location, info.adapter, device="auto").encode_text(texts)
    except RaydistError as error:
        return queries, [f"recall of texts was not measured: {error}"]
    finite = np.isfinite(vectors_QD).all(axis=1)
    return {TEXT: Asked(vectors_QD[finite]), **queries}, []


def _texts(location: str) -> Sequence[str]:
    """Captions of the archive in no order where there are enough, else everyday queries."""
    found: set[str] = set()
    for batch in read.scan_batches(location, "captions", ["caption"]):
        found.update(text for text in batch["caption"].to_pylist() if text and text.strip())
        if len(found) > 100 * _ASKED:
            break
    texts = sorted(found)
    if len(texts) < _CAPTIONS_ENOUGH:
        texts = _EVERYDAY.read_text(encoding="utf-8").splitlines()
    order: NDArray[np.int64] = np.random.default_rng(0).permutation(len(texts))
    return [texts[at] for at in order[:_ASKED]]
