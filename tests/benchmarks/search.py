"""bench search: CPU a query at recall@10 0.95, against faiss and LanceDB's defaults; filters at four selectivities.

Answers: what does a search cost, is the index worth its disk, and does a filter ever come back short?

    python tests/benchmarks/search.py --rows 100000 --work /tmp/search --out results.json
    python tests/benchmarks/search.py --rows 1000000 --work /tmp/search --repeat 5

Vectors and queries are drawn (see `search_data`). Every side is a process of its own with two threads, takes the
smallest effort (partitions, efSearch) that reaches recall@10 0.95 on text-like queries, and is then asked others of
that kind, warm, in batches of 1, 32 and 256; its CPU is user + system of the whole process. Sides take turns in each
round, the figure is the median of the rounds. What was built stays in `--work`, so rounds can be repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import search_data  # noqa: E402
import search_sides  # noqa: E402
from conditions import commit, cpu_name, for_faiss  # noqa: E402
from search_data import QUERIES, K  # noqa: E402
from search_sides import SIDES, THREADS, Raydist, Side, tables  # noqa: E402

from raydist.store import calibrate, nearest, ranking  # noqa: E402

TARGET = 0.95
BATCHES = (1, 32, 256)
TUNED_ON = 512
"""Of the queries; the others are timed."""

SELECTIVITIES = (0.5, 0.05, 0.001)


def main() -> None:
    """Draw, build, tune, measure; one JSON document."""
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--sides", default=",".join(SIDES))
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--out", type=Path)
    options.add_argument("--build-only", action="store_true")
    options.add_argument("--no-filters", action="store_true")
    options.add_argument("--task", nargs="+", help=argparse.SUPPRESS)  # what a side's process is to do
    given = options.parse_args()
    work = given.work / str(given.rows)
    if given.task:
        print(json.dumps(task(SIDES[given.task[0]](work), given.task[1], *map(int, given.task[2:]))))
        return
    search_data.draw(work, given.rows)
    figures: dict[str, Any] = {
        "bench": "search",
        "rows": given.rows,
        "width": search_data.WIDTH,
        "cpu": cpu_name(),
        "threads": THREADS,
        "commit": commit(),
        "sides": {},
    }

    def say(name: str, what: str, *numbers: int) -> Any:
        done = run(given, name, what, *numbers)
        print(name, what, *numbers, json.dumps(done), file=sys.stderr, flush=True)
        return done

    names = given.sides.split(",")
    for name in names:
        figures["sides"][name] = say(name, "build")
    if given.build_only:
        return
    for name in names:
        figures["sides"][name] |= say(name, "tune")
    rounds: dict[str, list[Any]] = {name: [] for name in names}
    for _ in range(given.repeat):
        for name in names:
            rounds[name].append(say(name, "measure", figures["sides"][name]["effort"]))
    for name in names:
        figures["sides"][name] |= summed(rounds[name])
    if {"raydist", "faiss_ivf"} <= set(names):
        ours, theirs = figures["sides"]["raydist"], figures["sides"]["faiss_ivf"]
        figures["cpu_against_faiss_ivf"] = {
            str(batch): round(ours[f"cpu_ms_{batch}"] / theirs[f"cpu_ms_{batch}"], 3) for batch in BATCHES
        }
    if "raydist" in names and not given.no_filters:
        figures["filters"] = say("raydist", "filters")
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures))


def run(given: argparse.Namespace, name: str, what: str, *numbers: int) -> Any:
    """Let a process of its own do it."""
    threads = {key: str(THREADS) for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LANCE_CPU_THREADS")}
    command = [sys.executable, __file__, "--work", str(given.work), "--rows", str(given.rows)]
    done = subprocess.run(
        [*command, "--task", name, what, *map(str, numbers)],
        env={**os.environ, **threads, **(for_faiss() if name.startswith("faiss") else {}), "LANCE_LOG": "error"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def task(side: Side, what: str, *numbers: int) -> dict[str, Any]:
    """What a side's process does."""
    if what == "build":
        return built(side)
    side.open()
    if what == "tune":
        return tuned(side)
    if what == "filters":
        assert isinstance(side, Raydist)
        return filtered(side)
    return measured(side, *numbers)


def built(side: Side) -> dict[str, Any]:
    """Build what is not there; time, CPU, memory, disk."""
    note = side.work / f"{type(side).__name__}.json"
    if note.exists():
        return dict(json.loads(note.read_text()))
    side.prepare()
    began, before = time.monotonic(), cpu_s()
    side.build()
    figures = {
        "build_s": round(time.monotonic() - began, 1),
        "build_cpu_s": round(cpu_s() - before, 1),
        "peak_memory_gb": peak_gb(),
        "disk_mb": round(side.bytes() / 1e6, 1),
    }
    note.write_text(json.dumps(figures))
    return figures


def tuned(side: Side) -> dict[str, Any]:
    """The smallest effort that reaches the recall on the first text queries."""
    texts, true = load(side, "texts")
    low, high = 0, 1
    seen: dict[int, float] = {}

    def enough(effort: int) -> bool:
        seen[effort] = recall(side, texts[:TUNED_ON], true[:TUNED_ON], effort)
        return seen[effort] >= TARGET

    while not enough(min(high, side.most())):
        low = min(high, side.most())
        if low == side.most() or (len(seen) > 4 and seen[low] - seen[low // 2] < 0.002):
            break  # more of it brings no more
        high *= 2
    high = min(high, side.most())
    while high - low > max(1, high // 32) and seen.get(high, 0) >= TARGET:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return {"effort": high, "reached": bool(seen[high] >= TARGET), "tuned_recall": round(seen[high], 4)}


def measured(side: Side, effort: int) -> dict[str, Any]:
    """CPU and time a query by size of batch, warm; recall on texts that nothing was tuned on, and on video vectors."""
    texts, true = load(side, "texts")
    videos, true_videos = load(side, "videos")
    rest, true_rest = texts[TUNED_ON:], true[TUNED_ON:]
    figures: dict[str, Any] = {"recall_text": recall(side, rest[:768], true_rest[:768], effort)}  # it warms up, too
    figures["recall_video"] = recall(side, videos[:256], true_videos[:256], effort)
    for batch in BATCHES:
        calls = max(2, min(64, 512 // batch))
        began, before = time.monotonic(), cpu_s()
        for call in range(calls):
            start = call * batch % (QUERIES - TUNED_ON - batch)
            side.search(rest[start : start + batch], K, effort)
        figures[f"cpu_ms_{batch}"] = (cpu_s() - before) / calls / batch * 1e3
        figures[f"wall_ms_{batch}"] = (time.monotonic() - began) / calls / batch * 1e3
    return figures


def filtered(side: Raydist) -> dict[str, Any]:
    """Hits, recall and CPU with conditions that few or many rows pass; through the public path, nothing given."""
    texts, _ = load(side, "texts")
    rows = len(side.vectors)
    # How far to look: as `raydist index` measures it, on texts that are not asked here.
    asked = {"text": calibrate.Asked(texts[:200]), "video": calibrate.sample(side.archive, tables.TABLE, 200)}
    card = calibrate.measure(side.archive, tables.TABLE, asked)
    wheres = {f"{share:.1%}": f"duration_s < {rows * share}" for share in SELECTIVITIES}
    wheres |= {f"{share:.1%} by a column of videos": _views(rows, share) for share in SELECTIVITIES}
    wheres["10 rows"] = "duration_s < 10"
    figures: dict[str, Any] = {"probes": card.probes, "recall": card.recall}
    for name, where in wheres.items():
        for batch in (1, 32):
            asked = texts[TUNED_ON : TUNED_ON + 64]
            exact = nearest.top_k(side.archive, tables.TABLE, asked, K, where, ("clip_key",))
            began = cpu_s()
            found = []
            for start in range(0, len(asked), batch):
                part = asked[start : start + batch]
                found += ranking.top_k(side.archive, tables.TABLE, part, K, where, ("clip_key",))
            cpu_ms = (cpu_s() - began) / len(asked) * 1e3
            pairs = list(zip(found, exact, strict=True))
            same = [len(set(a["clip_key"].to_pylist()) & set(b["clip_key"].to_pylist())) for a, b in pairs]
            figures[f"{name}, batch {batch}"] = {
                "fewest_hits": min(hits.num_rows for hits in found),
                "recall": round(float(np.mean(same)) / K, 4),
                "cpu_ms": round(cpu_ms, 2),
            }
    return figures


def _views(rows: int, share: float) -> str:
    return f"views < {max(1, round(rows / search_sides.CLIPS_A_VIDEO * share))}"


def load(side: Side, name: str) -> tuple[Any, Any]:
    """Queries and their true rows."""
    return np.load(side.work / f"{name}.npy"), np.load(side.work / f"true_{name}.npy")


def recall(side: Side, queries: Any, true: Any, effort: int) -> float:
    """Recall@10."""
    found = np.concatenate([side.search(queries[at : at + 256], K, effort) for at in range(0, len(queries), 256)])
    return float(np.mean([len(set(a) & set(b)) for a, b in zip(found.tolist(), true.tolist(), strict=True)])) / K


def summed(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of the rounds, and their spread for CPU."""
    figures: dict[str, Any] = {key: round(median(each[key] for each in rounds), 4) for key in rounds[0]}
    for batch in BATCHES:
        values = sorted(each[f"cpu_ms_{batch}"] for each in rounds)
        figures[f"cpu_ms_{batch}_spread"] = [round(values[0], 3), round(values[-1], 3)]
    return figures


def peak_gb() -> float:
    """Most memory that this process had; `ru_maxrss` would count its parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return round(sum(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e6, 2)


def cpu_s() -> float:
    """User and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
