"""auto: the score from which a hit says more than chance, for each model and archive; and what is usual there.

Reads     a sample of the model's vectors, `captions` where there are some, and two bundled lists of queries:
          `nothing.txt`, about what no camera can show, and `everyday.txt`, about what few archives hold
Writes    `cutoffs/embeddings_<model_key>.json`: the thresholds and the mean of the vectors; measured again when the
          archive has changed by a tenth
Promises  what is compared is a hit's *lift*: its cosine less what the query scores on average in this archive. Cosines
          alone do not compare: a model may give every clip 0.6 for words that it does not know

The threshold for words is the lift that the best hit of 99 of 100 queries about nothing does not reach, and that of a
quarter of the everyday queries. Where there are captions it rises towards what the best hits of nearly all everyday
queries have (the median and twice the distance to the 16th percentile, which related queries do not move), as long as
95 of 100 captions still find their own clip. For a picture, a clip or a video it is the lift of one in a thousand pairs
of clips of different videos.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydist.errors import StoreError
from raydist.store import current, objects, ranking, read
from raydist.store.sql import between

# Shape legend: N clips, Q queries, D embedding size

FOLDER = "cutoffs"
_VERSION = 1
_SAMPLE, _PAIRED = 20_000, 2_048
_CAPTIONED, _CAPTIONS, _ENOUGH_CAPTIONS = 50_000, 1_000, 30
_GROWN = 0.1
_NOTHING, _EVERYDAY, _KEPT, _PAIRS = 0.99, 0.25, 0.05, 0.999

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What was measured with texts."""

    threshold: float
    """Lift."""
    captions: int
    """How many of the archive were looked at."""
    kept: float | None
    """Share of them whose own clip is over the threshold; None where there are too few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoff:
    """The thresholds of one model in one archive."""

    version: int
    rows: int
    captions: int
    mean: list[float]
    """Of the vectors, [D]."""
    pairs: float | None
    """Lift for pictures, clips and videos; None where there is one video."""
    words: Words | None = None
    """None until words were asked for."""

    def usual(self, vectors_QD: NDArray[np.float32]) -> NDArray[np.float32]:
        """What each query scores on average in the archive, [Q]."""
        scores_Q: NDArray[np.float32] = vectors_QD @ np.array(self.mean, np.float32)
        return scores_Q

    def floors(self, vectors_QD: NDArray[np.float32], texts: Sequence[bool]) -> list[float]:
        """The least cosine of a hit, for each query.

        Args:
            vectors_QD: of the queries.
            texts: which of them are texts.
        """
        pairs = -2.0 if self.pairs is None else self.pairs
        lifts = [(self.words.threshold if self.words else -2.0) if is_text else pairs for is_text in texts]
        return [float(usual) + lift for usual, lift in zip(self.usual(vectors_QD), lifts, strict=True)]


def calibrated(location: str, table: str, encode: Encode, *, texts: bool) -> Cutoff:
    """The thresholds of a table of vectors, measured where they are not known or out of date.

    Args:
        table: `embeddings_<model_key>`.
        encode: texts -> [Q, D] unit vectors of the model; only called for `texts`.
        texts: whether the threshold for words is wanted.
    """
    name = f"{FOLDER}/{table}.json"
    rows, captions = read.count_rows(location, table), read.count_rows(location, "captions")
    known = _parsed(objects.read(location, name))
    if known is not None and not (_is_like(known.rows, rows) and _is_like(known.captions, captions)):
        known = None
    if known is not None and (known.words is not None or not texts):
        return known
    vectors_ND, keys_N = _sampled(location, table, rows)
    if not len(vectors_ND):  # all of them are of clips that changed since
        nothing = Words(threshold=0.0, captions=0, kept=None)
        mean = [0.0] * vectors_ND.shape[1]
        return Cutoff(version=_VERSION, rows=rows, captions=captions, mean=mean, pairs=None, words=nothing)
    mean_D = vectors_ND.mean(axis=0)
    found = Cutoff(
        version=_VERSION,
        rows=rows,
        captions=captions,
        mean=[float(value) for value in mean_D],
        pairs=_of_pairs(location, table, vectors_ND[:_PAIRED], keys_N[:_PAIRED], mean_D),
        words=_of_words(location, table, encode, mean_D) if texts else None,
    )
    with suppress(OSError, StoreError):  # an archive that may only be read is measured again each time
        objects.replace(location, name, json.dumps(asdict(found)).encode())
    return found


def _parsed(data: bytes | None) -> Cutoff | None:
    try:
        fields = json.loads(data) if data else None
        if fields is None or fields["version"] != _VERSION:
            return None
        words = fields.pop("words")
        return Cutoff(**fields, words=Words(**words) if words else None)
    except (ValueError, TypeError, KeyError):
        return None


def _is_like(before: int, now: int) -> bool:
    return abs(now - before) <= _GROWN * max(before, 1)


def _sampled(location: str, table: str, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors [N, D] of current clips, in no order, and their keys [N]. Keys are hashes: a range of them is a draw."""
    part = int(2**64 * min(1.0, 2 * _SAMPLE / max(count, 1)))
    where = None if part >= 2**64 else between("clip_key", None, -(2**63) + part)
    rows = current.current_rows(location, table, where)
    drawn = np.random.default_rng(0).permutation(len(rows.keys))[:_SAMPLE]
    order = np.argsort(rows.addresses[drawn], kind="stable")
    back = np.argsort(order, kind="stable")
    vectors = current.sampled_vectors(location, table, rows.version, rows.addresses[drawn][order])
    return vectors[back].astype(np.float32), rows.keys[drawn]


def _of_pairs(
    location: str, table: str, vectors_ND: NDArray[np.float32], keys_N: NDArray[np.int64], mean_D: NDArray[np.float32]
) -> float | None:
    rows = read.rows_by_key(location, table, keys_N.tolist(), ["clip_key", "video_id"])
    video_of = dict(zip(rows["clip_key"].to_pylist(), rows["video_id"].to_pylist(), strict=True))
    _, videos_N = np.unique([video_of.get(key) or "" for key in keys_N.tolist()], return_inverse=True)
    apart_NN = videos_N[:, None] != videos_N[None, :]
    if not apart_NN.any():
        return None
    lifts_NN = vectors_ND @ vectors_ND.T - (vectors_ND @ mean_D)[:, None]
    return float(np.quantile(lifts_NN[apart_NN], _PAIRS))


def _of_words(location: str, table: str, encode: Encode, mean_D: NDArray[np.float32]) -> Words:
    nothing = _best(location, table, encode(queries("nothing")), mean_D)
    everyday = _best(location, table, encode(queries("everyday")), mean_D)
    threshold = max(float(np.quantile(nothing, _NOTHING)), float(np.quantile(everyday, _EVERYDAY)))
    own = _own_lifts(location, table, encode, mean_D)
    if len(own) < _ENOUGH_CAPTIONS:
        return Words(threshold=threshold, captions=len(own), kept=None)
    middle, low = (float(value) for value in np.quantile(everyday, (0.5, 0.16)))
    threshold = max(threshold, min(middle + 2 * (middle - low), float(np.quantile(own, _KEPT))))
    return Words(threshold=threshold, captions=len(own), kept=float((own >= threshold).mean()))


def _best(
    location: str, table: str, vectors_QD: NDArray[np.float32], mean_D: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The lift [Q] of each query's best clip."""
    hits = ranking.top_k(location, table, vectors_QD, 1, columns=("clip_key",))
    scores = np.array([hit["score"][0].as_py() if hit.num_rows else 0.0 for hit in hits])
    lifts: NDArray[np.float64] = scores - vectors_QD @ mean_D
    return lifts


def _own_lifts(location: str, table: str, encode: Encode, mean_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lift of captions to their own clips, of clips outside of the split `train` where those are enough."""
    pairs = _captioned(location, table)
    held_out = [pair for pair in pairs if pair["split"] != "train"]
    pairs = (held_out if len(held_out) >= _ENOUGH_CAPTIONS else pairs)[:_CAPTIONS]
    if not pairs:
        return np.empty(0, np.float32)
    texts_QD = encode([pair["caption"] for pair in pairs])
    vectors_QD = np.array([pair["vector"] for pair in pairs], np.float32)
    lifts: NDArray[np.float32] = (texts_QD * vectors_QD).sum(axis=1) - texts_QD @ mean_D
    return lifts


def _captioned(location: str, table: str) -> list[dict[str, Any]]:
    """Some clips with their split, their vector and a caption that was written of what they show."""
    texts: dict[tuple[int, str], str] = {}
    for batch in read.scan_batches(location, "captions", ["clip_key", "fingerprint", "caption"]):
        for row in batch.to_pylist():
            if row["caption"].strip():
                texts.setdefault((row["clip_key"], row["fingerprint"]), row["caption"])
        if len(texts) >= _CAPTIONED:
            break
    drawn = np.random.default_rng(0).permutation(sorted({key for key, _ in texts}))[: 5 * _CAPTIONS].tolist()
    columns = ["clip_key", "fingerprint", "split", "vector"]
    found = read.rows_by_key(location, table, drawn, columns).to_pylist()
    clips = [(row, texts.get((row["clip_key"], row["fingerprint"]))) for row in found]
    return [{**row, "caption": text} for row, text in clips if text is not None]


@cache
def queries(name: str) -> tuple[str, ...]:
    """A bundled list: `nothing` or `everyday`."""
    text = Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip())
