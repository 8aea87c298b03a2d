"""near_vectors: generated vectors for benchmarks of duplicates: 512 float16 numbers of length 1, a tenth near another.

clustered   some ten thousandths as many topics as vectors, clusters around each topic (sizes by a power law, about a
            hundred vectors each), a share of one direction in all of them, as of a model's embeddings: vectors of one
            cluster have cosines of 0.6 to 0.99 with its centre
diffuse     random directions: nothing lies near anything but its copies

A tenth of the vectors are made from another one, turned by an angle with a cosine between 0.93 and 1, evenly drawn.
With `crowds` the first twentieth are one vector, bit by bit, and the second one lie around it with cosines of 0.99 to
the middle and about 0.98 to each other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WIDTH = 512
CHUNK = 50_000
KINDS = ("clustered", "diffuse")

Floats = NDArray[np.float32]


def vectors(kind: str, count: int, *, crowds: bool = False, seed: int = 0) -> Iterator[NDArray[np.float16]]:
    """`count` vectors, a chunk at a time; copies are of vectors of their own chunk or of the first one."""
    generator = np.random.default_rng(seed)
    centres = _centres(count, generator) if kind == "clustered" else None
    first: Floats | None = None
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        x = _random(size, generator) if centres is None else _around(centres, size, generator)
        copies = size // 10
        pool = x[: size - copies] if first is None else np.concatenate([x[: size - copies], first])
        source = pool[generator.integers(0, len(pool), copies)]
        x[size - copies :] = _turned(source, generator.uniform(0.93, 1, copies).astype(np.float32), generator)
        if first is None:
            first = x.copy()
        x = x[generator.permutation(size)]
        if crowds:
            _put_crowds(x, start, count // 20)
        yield x.astype(np.float16)


def _centres(count: int, generator: np.random.Generator) -> tuple[Floats, NDArray[np.float64]]:
    """Centres of clusters, and how likely each is."""
    number = max(1, count // 100)
    falling = (np.arange(1, WIDTH + 1) ** -0.5).astype(np.float32)
    mean = _unit(generator.standard_normal((1, WIDTH), dtype=np.float32))
    topics = _unit(generator.standard_normal((max(1, number // 20), WIDTH), dtype=np.float32) * falling)
    own = _unit(generator.standard_normal((number, WIDTH), dtype=np.float32) * falling)
    centres = _unit(0.75 * topics[generator.integers(0, len(topics), number)] + 0.66 * own)
    sizes = np.clip(generator.zipf(1.5, number), 1, 200).astype(np.float64)
    return _unit(0.5 * mean + 0.87 * centres), sizes / sizes.sum()


def _around(centres: tuple[Floats, NDArray[np.float64]], count: int, generator: np.random.Generator) -> Floats:
    which = generator.choice(len(centres[0]), count, p=centres[1])
    return _turned(centres[0][which], generator.uniform(0.75, 0.99, count).astype(np.float32), generator)


def _random(count: int, generator: np.random.Generator) -> Floats:
    return _unit(generator.standard_normal((count, WIDTH), dtype=np.float32))


def _turned(x: Floats, cosines: Floats, generator: np.random.Generator) -> Floats:
    """Each vector turned in a random direction."""
    across = generator.standard_normal(x.shape, dtype=np.float32)
    across -= np.einsum("nd,nd->n", across, x)[:, None] * x
    return _unit(cosines[:, None] * x + np.sqrt(1 - cosines**2)[:, None] * _unit(across))


def _put_crowds(x: Floats, start: int, size: int) -> None:
    """Overwrite what lies in the first `size` vectors of all, and in the next ones."""
    generator = np.random.default_rng(start)
    black = _random(1, np.random.default_rng(1))
    equal = max(0, min(len(x), size - start))
    x[:equal] = black
    near = max(0, min(len(x), 2 * size - start))
    if near > equal:
        count = near - equal
        x[equal:near] = _turned(np.repeat(black, count, axis=0), np.full(count, 0.99, np.float32), generator)


def _unit(x: Floats) -> Floats:
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x
