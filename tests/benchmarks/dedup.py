"""bench dedup: what it costs to find all pairs of clips with a cosine of 0.95 or more, and how the cost grows.

Answers: does the exact join find every pair that brute force finds, at how much of its CPU time? What do an index
library's range search and a search within clusters cost, and what does the latter lose? Does a million clips' join stay
flat in memory, also with two crowds of 50,000 alike? How long does grouping ten million edges take?

    python tests/benchmarks/dedup.py --clips 25000,50000,100000 --out FOLDER
    python tests/benchmarks/dedup.py --million --out FOLDER

Sides, each in a process of its own with one thread, on the same vectors (see near_vectors.py):

    ours    `raydist.find_duplicates`
    brute   products of blocks of 2,048 by 2,048, the upper triangle only, in memory that is used again; float64 decides
    faiss   range_search of IndexFlatIP for all vectors: each pair is found twice
    within  k-means with as many clusters as the root of the number of vectors, then pairs within a cluster only, as in
            SemDeDup (arXiv:2303.09540)

CPU is user and system time of the process from the vectors in memory to the pairs. Above --whole clips brute force
multiplies only the first 20,480 vectors with all: recall is that of their pairs, its CPU is scaled up to all of them,
and faiss is left out. faiss's wheel brings an OpenBLAS that does not know every processor; where there is AVX-512 it is
told to use it, or it would take four times as long. With --million an archive is made, and `dedup.spread.join` runs on
a local Ray; CPU and memory are those of the driver and of Ray's workers. Results are added to FOLDER/results.json, and
drawn in FOLDER/cost.png.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
if "--one" in sys.argv:
    os.environ.update(THREADS)  # before numpy is imported, which reads it

import numpy as np  # noqa: E402  # as above

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from conditions import commit, cpu_name, for_faiss  # noqa: E402  # after the path is set
from near_vectors import KINDS, WIDTH, vectors  # noqa: E402  # as above

T = 0.95
BLOCK = 2_048
SIDES = ("ours", "brute", "faiss", "within")
SOME = 10 * BLOCK
"""Vectors that stand for all where there are too many."""


def cpu_s() -> float:
    """User and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ours(x: np.ndarray) -> np.ndarray:
    """Pairs [P, 2] of the join."""
    import raydist

    table = raydist.find_duplicates(x, T)
    return np.stack([table["a"].to_numpy(), table["b"].to_numpy()], axis=1)


def brute(x: np.ndarray) -> np.ndarray:
    """Pairs of all products."""
    unit = _unit(x)
    return _decided(x, _products(unit, np.arange(len(x))))


def some(x: np.ndarray) -> np.ndarray:
    """Pairs of the first vectors with all."""
    return _decided(x, _products(_unit(x), np.arange(len(x)), SOME))


def _products(unit: np.ndarray, rows: np.ndarray, end: int | None = None) -> Iterator[np.ndarray]:
    """Pairs of rows (the first of each before `end`) that may reach the threshold."""
    room = np.empty(BLOCK * BLOCK, np.float32)
    for first in range(0, len(rows) if end is None else min(end, len(rows)), BLOCK):
        x = unit[rows[first : first + BLOCK]]
        for second in range(first, len(rows), BLOCK):
            y = unit[rows[second : second + BLOCK]]
            product = room[: len(x) * len(y)].reshape(len(x), len(y))
            np.matmul(x, y.T, out=product)
            i, j = np.divmod(np.flatnonzero(product >= T - 1e-4), len(y))
            upper = i + first < j + second
            yield np.stack([rows[i[upper] + first], rows[j[upper] + second]], axis=1)


def _unit(x: np.ndarray) -> np.ndarray:
    unit = x.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit


def _decided(x: np.ndarray, proposed: Iterator[np.ndarray]) -> np.ndarray:
    """The pairs whose cosine in float64 is at or above the threshold."""
    found = [np.empty((0, 2), np.int64)]
    for pairs in proposed:
        for start in range(0, len(pairs), 20_000):
            part = pairs[start : start + 20_000]
            a, b = x[part[:, 0]].astype(np.float64), x[part[:, 1]].astype(np.float64)
            lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
            found.append(part[(a * b).sum(axis=1) / lengths >= T])
    return np.concatenate(found)


def faiss_range(x: np.ndarray) -> np.ndarray:
    """Pairs of a range search."""
    import faiss

    faiss.omp_set_num_threads(1)
    unit = _unit(x)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(unit)

    def hits() -> Iterator[np.ndarray]:
        for start in range(0, len(unit), 8_192):
            limits, _, found = index.range_search(unit[start : start + 8_192], T - 1e-4)
            i = np.repeat(np.arange(len(limits) - 1), np.diff(limits).astype(np.int64)) + start
            yield np.stack([i, found], axis=1)[i < found]

    return _decided(x, hits())


def within(x: np.ndarray) -> np.ndarray:
    """Pairs within clusters."""
    import faiss

    faiss.omp_set_num_threads(1)
    unit = _unit(x)
    means = faiss.Kmeans(WIDTH, int(len(x) ** 0.5), niter=10, spherical=True, seed=1)
    means.train(unit)
    _, nearest = means.index.search(unit, 1)
    order = np.argsort(nearest[:, 0], kind="stable")
    cuts = np.flatnonzero(np.diff(nearest[order, 0])) + 1

    def hits() -> Iterator[np.ndarray]:
        for rows in np.split(order, cuts):
            yield from _products(unit, rows)

    return _decided(x, hits())


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ours": ours,
    "brute": brute,
    "some": some,
    "faiss": faiss_range,
    "within": within,
}


def one(side: str, data: Path, pairs: Path) -> None:
    """Measure one side in this process; its pairs go to a file, figures to stdout."""
    x = np.load(data)
    FUNCTIONS[side](x[:3_000])  # imports, and a first product
    began, cpu = time.monotonic(), cpu_s()
    found = FUNCTIONS[side](x)
    figures = {"cpu_s": round(cpu_s() - cpu, 2), "wall_s": round(time.monotonic() - began, 2), "pairs": len(found)}
    status = Path("/proc/self/status")  # the system's own figure counts what the parent held too
    if status.exists():
        figures["peak_mb"] = int(status.read_text().partition("VmHWM:")[2].split()[0]) // 1024
    found = np.sort(found, axis=1)
    np.save(pairs, np.sort(found[:, 0] * len(x) + found[:, 1]))
    print(json.dumps(figures))


def compared(kind: str, count: int, sides: list[str], whole: int, place: Path) -> dict[str, Any]:
    """All sides on the same vectors, against the pairs of brute force."""
    data = place / "vectors.npy"
    np.save(data, np.concatenate(list(vectors(kind, count))))
    found: dict[str, Any] = {}
    all_pairs = count * (count - 1) / 2
    if count > whole:
        sides = ["some" if side == "brute" else side for side in sides if side != "faiss"]
    for side in sides:
        command = [sys.executable, __file__, "--one", side, "--data", str(data), "--pairs", str(place / f"{side}.npy")]
        core = for_faiss() if side == "faiss" else {}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | core)
        found[side] = json.loads(done.stdout.splitlines()[-1])
    truth = next((side for side in ("brute", "some") if side in sides), None)
    if truth is None:
        return {"bench": "dedup", "kind": kind, "clips": count, "threads": 1, "sides": found}
    looked_at = all_pairs if truth == "brute" else SOME * (count - SOME) + SOME * (SOME - 1) / 2
    brute_cpu = found[truth]["cpu_s"] * all_pairs / looked_at
    wanted = np.load(place / f"{truth}.npy")
    for side in sides:
        own = np.load(place / f"{side}.npy")
        own = own if truth == "brute" else own[own // count < SOME]
        right = len(np.intersect1d(own, wanted, assume_unique=True))
        found[side] |= {"recall": round(right / max(1, len(wanted)), 6), "wrong": len(own) - right}
        found[side]["cpu_of_brute"] = round(found[side]["cpu_s"] / brute_cpu, 3)
    found[truth]["million_pairs_per_cpu_s"] = round(looked_at / found[truth]["cpu_s"] / 1e6)
    if truth == "some":
        found["brute"] = {"cpu_s": round(brute_cpu, 1), "scaled_from": found.pop("some")}
    return {"bench": "dedup", "kind": kind, "clips": count, "threads": 1, "sides": found}


class Watch(threading.Thread):
    """CPU and memory of this process and of what it started, twice a second until it is told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.cpu: dict[int, float] = {}
        self.samples: list[dict[str, float]] = []
        self._ended = threading.Event()
        self._began = time.monotonic()

    def run(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._ended.wait(0.5):
            largest = 0.0
            for process in [me, *me.children(recursive=True)]:
                try:
                    times, memory = process.cpu_times(), process.memory_info()
                    worker = process.name().startswith("ray::")
                except psutil.NoSuchProcess:
                    continue
                if worker or process.pid == me.pid:
                    self.cpu[process.pid] = times.user + times.system
                if worker:
                    largest = max(largest, (memory.rss - memory.shared) / 1e6)
            driver = me.memory_info().rss / 1e6
            at = time.monotonic() - self._began
            self.samples.append({"s": round(at, 1), "task_mb": round(largest), "driver_mb": round(driver)})

    def end(self) -> None:
        """Stop sampling."""
        self._ended.set()
        self.join()


def spread_join(kind: str, count: int, *, crowds: bool, place: Path) -> dict[str, Any]:
    """The join on Ray, of an archive made for it."""
    from raydist import runtime
    from raydist.config import load
    from raydist.dedup import spread
    from raydist.store import schema

    table = schema.embeddings_table("bench-00000001")
    _archive(place, table, kind, count, crowds=crowds)
    config = load(options={"archive": str(place), "dedup.tasks": 2}, environment={}).config
    with runtime.session(config.ray) as resources:
        watch = Watch()
        watch.start()
        began, before = time.monotonic(), cpu_s()
        side = spread.Side(location=str(place), table=table)
        found = spread.join(config, resources, side, place / "work", threshold=T)
        seconds = time.monotonic() - began
        watch.end()
    watch.cpu[os.getpid()] = cpu_s() - before
    samples = watch.samples
    return {
        "bench": "dedup on Ray",
        "kind": kind,
        "clips": count,
        "crowds": crowds,
        "tasks": 2,
        "cpu_s": round(sum(watch.cpu.values()), 1),
        "wall_s": round(seconds, 1),
        "pairs": found.pairs,
        "written": found.written,
        "left_out": found.left_out,
        "in_crowds": found.crowds.num_rows,
        "share_compared": round(found.share, 5),
        "share_whole": round(found.whole / (count * (count - 1) / 2), 5),
        "bytes_read": found.bytes_read,
        "largest_task_mb": max(sample["task_mb"] for sample in samples),
        "driver_mb": max(sample["driver_mb"] for sample in samples),
        "memory": samples[:: max(1, len(samples) // 40)],
        "edges_bytes": sum(file.stat().st_size for file in found.edges.glob("*.parquet")),
    }


def _archive(place: Path, table: str, kind: str, count: int, *, crowds: bool) -> None:
    """Clips and their vectors, and nothing else, in fragments of 50,000 rows."""
    import pyarrow as pa

    from raydist.store import commit as commits
    from raydist.store import schema

    start = 0
    for x in vectors(kind, count, crowds=crowds):
        keys = pa.array(np.arange(start, start + len(x)))
        names = pa.array([f"v.mp4#t={key}" for key in keys.to_pylist()])
        given = {"clip_key": keys, "clip_id": names, "fingerprint": pa.array(["a"] * len(x))}
        given["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), WIDTH)
        for name, kind_of in (("clips", schema.CLIPS), (table, schema.embeddings(WIDTH))):
            columns = [given.get(field.name, pa.nulls(len(x), field.type)) for field in kind_of]
            commits.append(str(place), name, pa.Table.from_arrays(columns, schema=kind_of), kind_of)
        start += len(x)


def grouping(edges: int) -> dict[str, Any]:
    """How long groups and keepers of random edges take."""
    from raydist.dedup.components import components, keepers

    generator = np.random.default_rng(0)
    clips = edges
    drawn = generator.integers(0, clips, (edges, 2))
    order = generator.permutation(clips)
    marks = [(time.monotonic(), cpu_s())]
    labels = components(clips, drawn)
    marks.append((time.monotonic(), cpu_s()))
    kept, _ = keepers(order, drawn)
    marks.append((time.monotonic(), cpu_s()))
    wall, cpu = (np.round(np.diff(times), 2).tolist() for times in zip(*marks, strict=True))
    return {
        "bench": "grouping",
        "clips": clips,
        "edges": edges,
        "groups": len(np.unique(labels)),
        "kept": int(kept.sum()),
        "components": {"cpu_s": cpu[0], "wall_s": wall[0]},
        "keepers": {"cpu_s": cpu[1], "wall_s": wall[1]},
    }


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """CPU against clips, a line a side."""
    if all(result["bench"] == "grouping" for result in results):
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(KINDS), figsize=(11, 4.5), sharey=True)
    for axis, kind in zip(axes, KINDS, strict=True):
        for side in SIDES:
            found = {
                r["clips"]: r["sides"][side]["cpu_s"]
                for r in results
                if r.get("sides", {}).get(side) and r["kind"] == kind
            }
            axis.plot(sorted(found), [found[n] for n in sorted(found)], marker="o", label=side)
        on_ray = {r["clips"]: r["cpu_s"] for r in results if r["bench"] == "dedup on Ray" and r["kind"] == kind}
        axis.plot(sorted(on_ray), [on_ray[n] for n in sorted(on_ray)], marker="s", label="ours, on Ray")
        axis.set(xscale="log", yscale="log", xlabel="clips", title=f"{kind}, 512 numbers, cosine >= {T}")
        axis.grid(visible=True, which="both", alpha=0.3)
    axes[0].set_ylabel("CPU seconds")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    """Measure; print a JSON line for each measurement."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--clips", default="", help="numbers of clips to compare the sides at")
    options.add_argument("--kinds", default=",".join(KINDS))
    options.add_argument("--sides", default=",".join(SIDES))
    options.add_argument("--ray", default="", help="numbers of clips to join on Ray, clustered")
    options.add_argument(
        "--million", nargs="?", const="plain,crowds", default="", help="join a million clips on Ray, also with crowds"
    )
    options.add_argument("--edges", type=int, default=0, help="edges to group, such as 10000000")
    options.add_argument("--out", type=Path, required="--one" not in sys.argv, help="folder for results and the plot")
    options.add_argument("--whole", type=int, default=150_000, help="clips up to which brute force looks at all pairs")
    options.add_argument("--one", choices=FUNCTIONS, help=argparse.SUPPRESS)
    options.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--pairs", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        one(given.one, given.data, given.pairs)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    store = given.out / "results.json"

    def keep(result: dict[str, Any]) -> None:
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}"
        result |= {"at": at, "commit": commit(), "cpu": cpu_name(), "cores": os.cpu_count()}
        print(json.dumps(result), flush=True)
        earlier = json.loads(store.read_text()) if store.exists() else []
        store.write_text(json.dumps([*earlier, result], indent=1) + "\n")
        draw([*earlier, result], given.out / "cost.png")

    if given.edges:
        keep(grouping(given.edges))
    for count in map(int, filter(None, given.clips.split(","))):
        for kind in given.kinds.split(","):
            with tempfile.TemporaryDirectory(dir=given.out) as place:
                keep(compared(kind, count, given.sides.split(","), given.whole, Path(place)))
    plans = [(int(count), False) for count in filter(None, given.ray.split(","))]
    plans += [(1_000_000, kind == "crowds") for kind in filter(None, given.million.split(","))]
    for count, crowds in plans:
        with tempfile.TemporaryDirectory(dir=given.out) as place:
            keep(spread_join("clustered", count, crowds=crowds, place=Path(place)))


if __name__ == "__main__":
    main()
