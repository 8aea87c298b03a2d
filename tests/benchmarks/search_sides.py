"""search_sides: what is compared: an index, how it is built and asked, and the number that says how hard it looks."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "store")]

import tables  # noqa: E402  # rows of an archive, from the tests

from raydist.store import centres, commit, index, ranking, read, schema  # noqa: E402

CLIPS_A_VIDEO = 20
THREADS = 2


class Side(ABC):
    """An index over the rows of `vectors.npy`, kept below a folder of its own."""

    def __init__(self, work: Path) -> None:
        self.work, self.folder = work, work / type(self).__name__.lower()

    @property
    def vectors(self) -> NDArray[np.float16]:
        return np.load(self.work / "vectors.npy", mmap_mode="r")

    def prepare(self) -> None:  # noqa: B027  # faiss needs none
        """What is there before an index is: the table."""

    @abstractmethod
    def build(self) -> None: ...

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def search(self, queries: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        """Rows [Q, k]; -1 where there is none."""

    def most(self) -> int:
        """The largest effort."""
        return 4_096

    def bytes(self) -> int:
        """On disk, the index alone."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class Raydist(Side):
    """An archive's table with its index; effort: partitions."""

    @property
    def archive(self) -> str:
        return str(self.folder / "archive")

    def prepare(self) -> None:
        if Path(self.archive).exists():
            return
        vectors, rng = self.vectors, np.random.default_rng(5)
        rows = len(vectors)
        lengths = rng.permutation(rows).astype(np.float64)
        for start in range(0, rows, 100_000):
            keys = list(range(start, min(rows, start + 100_000)))
            part = tables.embeddings(
                keys,
                vector=tables.fixed(np.asarray(vectors[start : start + len(keys)])),
                video_id=[f"v{key // CLIPS_A_VIDEO}.mp4" for key in keys],
                duration_s=lengths[start : start + len(keys)].tolist(),
            )
            commit.append(self.archive, tables.TABLE, part, part.schema)
        names = [f"v{number}.mp4" for number in range(-(-rows // CLIPS_A_VIDEO))]
        films = tables.filled(schema.VIDEOS, len(names), video_id=names, state="ok")
        films = films.append_column("views", pa.array(rng.permutation(len(names)), pa.int64()))
        commit.append(self.archive, "videos", films, films.schema)

    def build(self) -> None:
        index.build(self.archive, tables.TABLE)

    def open(self) -> None:
        self._most = index.read_card(self.archive, tables.TABLE).partitions

    def most(self) -> int:
        return self._most

    def search(self, queries: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        hits = ranking.top_k(self.archive, tables.TABLE, queries, k, columns=("clip_key",), probes=effort)
        return np.stack([found["clip_key"].to_numpy() for found in hits])

    def bytes(self) -> int:
        parts = index.find(read.need_table(self.archive, tables.TABLE)).parts
        folder = Path(self.archive) / f"{tables.TABLE}.lance" / "_indices"
        return sum(path.stat().st_size for part in parts for path in (folder / part).iterdir())


class Lancedb(Side):
    """LanceDB's own defaults, which are IVF_PQ; metric dot, as vectors are unit. Effort: partitions."""

    REFINE = 0

    def _table(self) -> Any:
        import lancedb

        return lancedb.connect(str(self.work / "lancedb")).open_table("clips")

    def prepare(self) -> None:
        if (self.work / "lancedb").exists():
            return
        import lancedb

        vectors = self.vectors

        def batches() -> Any:
            for start in range(0, len(vectors), 100_000):
                part = np.asarray(vectors[start : start + 100_000])
                keys = np.arange(start, start + len(part))
                yield pa.record_batch({"clip_key": keys, "vector": tables.fixed(part)})

        first = next(iter(batches()))
        lancedb.connect(str(self.work / "lancedb")).create_table("clips", batches(), schema=first.schema)

    def build(self) -> None:
        self._table().create_index(metric="dot", vector_column_name="vector", replace=True)

    def open(self) -> None:
        self._opened = self._table()

    def search(self, queries: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        asked = queries.astype(np.float16)
        search = self._opened.search(asked if len(asked) > 1 else asked[0], vector_column_name="vector")
        search = search.metric("dot").nprobes(effort).limit(k).select(["clip_key", "_distance"])
        if self.REFINE:
            search = search.refine_factor(self.REFINE)
        found = search.to_arrow()
        owner = found["query_index"].to_numpy() if "query_index" in found.column_names else np.zeros(len(found), int)
        return by_query(found["clip_key"].to_numpy(), owner, len(queries), k)

    def bytes(self) -> int:
        folder = self.work / "lancedb" / "clips.lance" / "_indices"
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class LancedbRefined(Lancedb):
    """The same index, with the vectors of twenty times k hits read again."""

    REFINE = 20

    def build(self) -> None:
        """It is there."""


class FaissIvf(Side):
    """IVF-flat with 4 √n lists and inner products, trained on 64 vectors a list as ours is; effort: lists."""

    def build(self) -> None:
        import faiss

        vectors = np.asarray(self.vectors, np.float32)
        width, lists = vectors.shape[1], int(4 * len(vectors) ** 0.5)
        made = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        made.cp.max_points_per_centroid = centres.SAMPLE_PER_CENTRE  # by default 256: the same, and far dearer
        made.train(vectors)
        made.add(vectors)
        self.folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(made, str(self.folder / "index"))

    def open(self) -> None:
        import faiss

        self._index = faiss.read_index(str(self.folder / "index"))

    def most(self) -> int:
        return int(self._index.nlist)

    def search(self, queries: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        self._index.nprobe = effort
        return self._index.search(queries, k)[1]


class FaissHnsw(Side):
    """HNSW with M 16 and inner products; effort: efSearch."""

    def build(self) -> None:
        import faiss

        vectors = np.asarray(self.vectors, np.float32)
        made = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        made.add(vectors)
        self.folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(made, str(self.folder / "index"))

    def open(self) -> None:
        import faiss

        self._index = faiss.read_index(str(self.folder / "index"))

    def search(self, queries: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        self._index.hnsw.efSearch = effort
        return self._index.search(queries, k)[1]


def by_query(keys: NDArray[np.int64], owner: NDArray[np.int64], queries: int, k: int) -> NDArray[np.int64]:
    """Keys [Q, k] of hits in one list; -1 where a query has fewer."""
    rows = np.full((queries, k), -1, np.int64)
    for query in range(queries):
        own = keys[owner == query][:k]
        rows[query, : len(own)] = own
    return rows


SIDES: dict[str, type[Side]] = {
    "raydist": Raydist,
    "faiss_ivf": FaissIvf,
    "faiss_hnsw": FaissHnsw,
    "lancedb": Lancedb,
    "lancedb_refined": LancedbRefined,
}
