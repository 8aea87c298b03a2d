"""search_data: vectors as archives have them, with queries like texts, which lie apart from all of them.

Videos: 6.7 clusters a thousand rows, of Pareto-distributed sizes, in twenty times fewer families; a vector is the
common mean of all (models put all videos into one narrow cone), its cluster's middle and as much of its own, in a space
whose directions fade as rank^-0.35. Texts: mostly a direction that no video has (the modality gap), a third of the
videos' mean, a fifth of each of three clusters, and 0.7 of its own direction among those that videos use. Everything
has unit length; videos are rounded to float16, as tables hold them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WIDTH = 512
QUERIES = 2_048
K = 10
_BLOCK = 50_000


def draw(work: Path, rows: int, seed: int = 0) -> None:
    """Write `vectors.npy`, `texts.npy`, `videos.npy` (queries that are video vectors) and the true ten of each."""
    work.mkdir(parents=True, exist_ok=True)
    if (work / "true_videos.npy").exists():
        return
    rng = np.random.default_rng(seed)
    fading = np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.35
    fading /= np.linalg.norm(fading)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)

    def lean(count: int) -> NDArray[np.float32]:
        return (rng.standard_normal((count, WIDTH), dtype=np.float32) * fading) @ turn

    clusters = max(20, rows // 150)
    families = max(8, clusters // 20)
    middles = 0.6 * lean(families)[rng.integers(0, families, clusters)] + 0.8 * lean(clusters)
    shares = rng.pareto(1.5, clusters) + 0.2
    shares /= shares.sum()
    mean = unit(lean(1))[0]
    gap = rng.normal(size=WIDTH).astype(np.float32)
    gap = unit((gap - gap @ mean * mean)[None])[0]

    def videos(count: int) -> NDArray[np.float32]:
        return unit(mean + middles[rng.choice(clusters, count, p=shares)] + lean(count))

    vectors = np.lib.format.open_memmap(work / "vectors.npy", "w+", np.float16, (rows, WIDTH))
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        vectors[start : start + count] = videos(count)
    named = middles[rng.integers(0, clusters, (3, QUERIES))].sum(axis=0)
    texts = unit(1.2 * gap + 0.4 * mean + 0.2 * named + 0.7 * lean(QUERIES))
    for name, queries in (("texts", texts), ("videos", videos(QUERIES))):
        np.save(work / f"{name}.npy", queries)
        np.save(work / f"true_{name}.npy", exact(vectors, queries))


def exact(vectors: NDArray[np.float16], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """The K rows nearest to each query, by brute force."""
    scores = np.full((len(queries), K), -9, np.float32)
    rows = np.zeros((len(queries), K), np.int64)
    for start in range(0, len(vectors), 20_000):
        here = queries @ vectors[start : start + 20_000].astype(np.float32).T
        best = np.argpartition(-here, K, axis=1)[:, :K]
        scores = np.concatenate([scores, np.take_along_axis(here, best, 1)], axis=1)
        rows = np.concatenate([rows, best + start], axis=1)
        order = np.argsort(-scores, axis=1)[:, :K]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return rows


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of length 1."""
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
