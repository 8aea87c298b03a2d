"""bench busy_cores: how busy embedding keeps the cores with a single long file.

Answers: does one file of two hours spread over all cores, without a tail in which some have nothing left to do?
Asked for: each core busy for at least 85 % of the time from the first decode to the last vector.

    python tests/benchmarks/busy_cores.py --parts 240

Encodes `distinct` short videos, remuxes `parts` of them (in turn) into one long file without encoding again, scans it
and embeds it with `tiny` on a local Ray. Meaningful only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "clips")]

from long_file import shuffled_shots  # noqa: E402  # the benchmark of its cost
from videos import join  # noqa: E402  # the tests' own encoder

from raydist import embed, scan  # noqa: E402  # after the path is set
from raydist.config import load  # noqa: E402


class Watch(threading.Thread):
    """Samples how busy each core is, every half second until it is told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, list[float]]] = []
        self._ended = threading.Event()

    def run(self) -> None:
        psutil.cpu_percent(percpu=True)
        while not self._ended.wait(0.5):
            self.samples.append((time.time(), psutil.cpu_percent(percpu=True)))

    def end(self) -> None:
        self._ended.set()
        self.join()


def main() -> None:
    """Measure and print one JSON line."""
    options = argparse.ArgumentParser()
    options.add_argument("--parts", type=int, default=240, help="short files; two hours of 30-s ones")
    options.add_argument("--distinct", type=int, default=8, help="of which so many are encoded")
    options.add_argument("--seconds", type=int, default=30, help="length of a part and of a clip")
    options.add_argument("--size", default="640x360")
    given = options.parse_args()
    width, height = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        order = shuffled_shots(folder, given.parts, given.distinct, given.seconds, (width, height))
        (folder / "v").mkdir()
        join(order, folder / "v" / "long.mp4")
        options_of = {"archive": str(folder / "archive"), "embed.model": "tiny", "scan.clip_seconds": given.seconds}
        config = load(options=options_of, environment={}).config
        scan.run(config, scan.Request(inputs=(str(folder / "v"),)))
        watch = Watch()
        watch.start()
        report = embed.run(config)
        watch.end()
    began, ended = report.details["active"]
    within = [cores for at, cores in watch.samples if began + 0.5 <= at <= ended]
    figures = {
        "bench": "busy_cores",
        "clips": given.parts,
        "clip_s": given.seconds,
        "size": given.size,
        "rows": report.counts["rows"],
        "active_s": round(ended - began, 1),
        "clips_per_s": report.clips_per_s,
        "decode_cpu_ms_a_clip": round(1000 * report.details["decode_cpu_s"] / given.parts, 1),
        "busy_percent_by_core": [round(sum(core) / len(within), 1) for core in zip(*within, strict=True)],
        "shares": report.shares,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
