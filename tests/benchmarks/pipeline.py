"""bench pipeline: how much of the cores an embed run turns into clips, and what Ray takes for itself.

Answers: how near does the whole pipeline come to its parts, each measured alone in the same run?
Asked for: clips a second of at least 90 % of cores / (CPU seconds a clip of all steps alone).

    python tests/benchmarks/pipeline.py --files 8 --parts 40

Joins encoded shots into files of an order each, scans them, measures decoding (with its child), the model and writing
alone, and then embeds with `tiny` on a Ray of its own. The rate needs a machine that does nothing else; CPU seconds do
not. `--folder` takes real videos in place of the drawn ones.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "clips")]
os.environ.update(
    {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
)

import conditions  # noqa: E402  # after the path is set
from long_file import shuffled_shots  # noqa: E402  # as above
from videos import join  # noqa: E402  # the tests' own encoder

from raydist import embed, scan  # noqa: E402
from raydist.clips.decoder import Decoder, Geometry  # noqa: E402
from raydist.clips.units import clips_a_unit, units  # noqa: E402
from raydist.config import Config, load  # noqa: E402
from raydist.embed.embedder import Embedder, embedded_schema  # noqa: E402
from raydist.embed.graph import BATCH_CPU  # noqa: E402
from raydist.embed.write import write_blocks  # noqa: E402
from raydist.models.registry import describe  # noqa: E402
from raydist.store import commit, read, roots, schema  # noqa: E402


class Watch(threading.Thread):
    """CPU seconds of this process and all below it, by role, until it is told to end; those that ended are kept."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, dict[str, float]]] = []
        self._seen: dict[tuple[int, float], tuple[str, float]] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(2):
            me = psutil.Process()
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.Error):
                    spent = process.cpu_times()
                    role = "driver" if process.pid == me.pid else _role(process)
                    self._seen[process.pid, process.create_time()] = (role, spent.user + spent.system)
            sums: dict[str, float] = defaultdict(float)
            for role, seconds in self._seen.values():
                sums[role] += seconds
            self.samples.append((time.time(), dict(sums)))

    def end(self) -> None:
        self._ended.set()
        self.join()

    def between(self, began: float, ended: float) -> dict[str, float]:
        """By role, from one moment to another."""
        first = min(self.samples, key=lambda sample: abs(sample[0] - began))[1]
        last = min(self.samples, key=lambda sample: abs(sample[0] - ended))[1]
        return {role: spent - first.get(role, 0.0) for role, spent in last.items()}


def _role(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    for mark, role in (
        ("clips.child", "child"),
        ("Decoder", "decoder"),
        ("Embedder", "embedder"),
        ("Repartition", "repartition"),
        ("ReadParquet", "repartition"),
        ("write_blocks", "write"),
        ("raylet/raylet", "raylet"),
        ("gcs_server", "gcs"),
        ("ray::IDLE", "idle workers"),
    ):
        if mark in line:
            return role
    return "ray's agents"


def main() -> None:
    """Measure and print one JSON line."""
    options = argparse.ArgumentParser()
    options.add_argument("--files", type=int, default=8)
    options.add_argument("--parts", type=int, default=40, help="shots of a file, of a clip's length")
    options.add_argument("--distinct", type=int, default=8, help="of which so many are encoded")
    options.add_argument("--seconds", type=int, default=30, help="length of a shot and of a clip")
    options.add_argument("--size", default="640x360")
    options.add_argument("--folder", help="videos to take in place of drawn ones")
    options.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="rp", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        videos = Path(given.folder) if given.folder else _drawn(folder, given)
        config = load(
            changes=[f"scan.clip_seconds={given.seconds}", f"ray.temp_dir={folder / 'r'}", f"ray.cpus={given.cores}"],
            options={"archive": str(folder / "archive"), "embed.model": "tiny"},
            environment={},
        ).config
        scan.run(config, scan.Request(inputs=(str(videos),)))
        alone = _alone(config, folder / "alone", given.cores)
        watch = Watch()
        watch.start()
        report = embed.run(config)
        watch.end()
    print(json.dumps(_figures(given, alone, report.details, report.counts, watch)))


def _figures(
    given: argparse.Namespace, alone: dict[str, float], details: dict[str, object], counts: dict[str, int], watch: Watch
) -> dict[str, object]:
    began, ended = details["active"]  # type: ignore[misc]
    clips = counts["rows"] + counts["failed"]
    spent = watch.between(began, ended)
    needed_s, rate = sum(alone.values()), clips / (ended - began)
    return {
        "bench": "pipeline",
        "clips": clips,
        "cores": given.cores,
        "cpu_ms_a_clip_alone": {name: round(1000 * value, 2) for name, value in alone.items()},
        "clips_per_s": round(rate, 2),
        "efficiency_percent": round(100 * rate * needed_s / given.cores, 1),
        "cpu_ms_a_clip_in_the_run": {role: round(1000 * value / clips, 2) for role, value in sorted(spent.items())},
        "all_cpu_ms_a_clip": round(1000 * sum(spent.values()) / clips, 2),
        "overhead_ms_a_clip": round(1000 * (sum(spent.values()) / clips - needed_s), 2),
        "blocks": -(-clips // clips_a_unit(clips)),
        "busy_percent_of_cores": round(100 * sum(spent.values()) / (ended - began) / given.cores, 1),
        "load": os.getloadavg()[0],
        "cpu": conditions.cpu_name(),
        "commit": conditions.commit(),
    }


def _drawn(folder: Path, given: argparse.Namespace) -> Path:
    width, height = map(int, given.size.split("x"))
    order = shuffled_shots(folder, given.parts, given.distinct, given.seconds, (width, height))
    (folder / "v").mkdir()
    for number in range(given.files):
        join(random.Random(number).sample(order, len(order)), folder / "v" / f"{number:02}.mp4")
    return folder / "v"


def _alone(config: Config, folder: Path, threads: int) -> dict[str, float]:
    """CPU seconds a clip of each step, in this process and with nothing beside it."""
    location, info = config.require_archive(), describe("tiny")
    geometry = Geometry(frames=info.frames, sampling=info.sampling, size_px=info.size_px, resize=info.resize)
    clips = [
        {**row, "has_signature": False} for batch in read.scan_batches(location, "clips") for row in batch.to_pylist()
    ]
    files = {
        row["video_id"]: {name: row[name] for name in ("root", "path", "file_fingerprint")}
        for batch in read.scan_batches(location, "videos")
        for row in batch.to_pylist()
    }
    work = units(clips, files, clips_a_unit(len(clips)))
    decoder = Decoder(roots.places(location, config.roots), geometry, config.limits())
    list(decoder(work.slice(0, 1)))  # its child has started
    spent: dict[str, float] = {}
    before = _cpu_s()
    frames = [table for row in range(work.num_rows) for table in decoder(work.slice(row, 1))]
    spent["decode"] = _cpu_s() - before
    embedder = Embedder(info.location, "", "cpu", geometry, threads)
    batches = list(_batches(pa.concat_tables(frames)))
    embedder(batches[0])
    before = _cpu_s()
    vectors = [embedder(batch) for batch in batches]
    spent["embed"] = _cpu_s() - before
    columns = schema.embeddings(info.dim)
    of = {"embeddings_alone": columns, "signatures": schema.SIGNATURES, "failures": schema.FAILURES}
    for table, kind in of.items():
        commit.Committer(str(folder), table, kind)
    before = _cpu_s()
    write_blocks(
        str(folder), "embeddings_alone", columns, "alone", *(table.cast(embedded_schema(info.dim)) for table in vectors)
    )
    spent["write"] = _cpu_s() - before
    return {name: seconds / len(clips) for name, seconds in spent.items()}


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, BATCH_CPU):
        yield table.slice(start, BATCH_CPU)


def _cpu_s() -> float:
    """Of this process and those below it."""
    me, sum_s = psutil.Process(), 0.0
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.Error):
            spent = process.cpu_times()
            sum_s += spent.user + spent.system
    return sum_s


if __name__ == "__main__":
    main()
