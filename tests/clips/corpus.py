"""corpus: every bad file through decoding processes, as a scan and an embedding would, in a process of its own.

    python tests/clips/corpus.py ../shared/badvideo [--light] [--cut] [--processes 2]

Prints  one JSON object: cases, seconds on the clock and of CPU, the peak resident memory of any decoding process,
        processes left behind, the slowest cases, and each case that did not end as the manifest says
Light   leaves out the files that take seconds whatever reads them
Cut     makes an mp4 of each file's first 30 seconds in the place of frames
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import psutil

from raydist.clips.child import Child
from raydist.errors import SourceError
from raydist.records import Limits, Span

HEAVY = {
    "sps_8192x8192.264",
    "real_8192x4320.mp4",
    "index_bomb_3m.mp4",
    "edit_tiny_segments_2000.mp4",
}
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


def location(row: dict[str, str], files: Path, special: Path) -> str:
    """Where a case lies."""
    if row["kind"] in ("file", "support"):
        return str(files / row["file"])
    raw = row["file"].encode()
    if row["kind"] == "badname":
        raw = re.sub(rb"%([0-9A-F]{2})", lambda digits: bytes([int(digits.group(1), 16)]), raw)
    return os.fsdecode(os.path.join(os.fsencode(special), raw))


def status(child: Child, path: str) -> str:
    """`ok`, `ok_filled` or `failed:reason` of the file's first 30 seconds."""
    try:
        length = child.probe(path).duration_ms
    except SourceError as error:
        return f"failed:{error.reason}"
    spans = [Span(start_ms=0, end_ms=min(30_000, length))]
    clips = list(child.decode(path, spans, frames=8, size_px=224, resize="viclip"))
    if len(clips) != 1:
        return f"{len(clips)} results"
    if clips[0].frames is None:
        return f"failed:{clips[0].reason}"
    if clips[0].frames.shape != (8, 224, 224, 3):
        return f"frames of {clips[0].frames.shape}"
    return "ok_filled" if clips[0].filled_frames else "ok"


def status_of_cut(child: Child, path: str) -> str:
    """The same of a cut; what is filled in frames is left out there."""
    try:
        length = child.probe(path).duration_ms
    except SourceError as error:
        return f"failed:{error.reason}"
    spans = [Span(start_ms=0, end_ms=min(30_000, length)), Span(start_ms=length // 3, end_ms=length // 2)]
    cuts = list(child.cut(path, spans, max_px=224, max_bytes=4 << 20))
    if len(cuts) != 2:
        return f"{len(cuts)} results"
    if cuts[0].reason:
        return f"failed:{cuts[0].reason}"
    with av.open(io.BytesIO(cuts[0].data)) as container:
        return "ok" if next(container.decode(video=0), None) else "no picture"


def allowed(row: dict[str, str]) -> set[str]:
    """The statuses that a case may end with; `failed` stands for any reason."""
    expected = row["expected"] if row["expected"] != "failed" else f"failed:{row['expected_reason']}"
    return {expected.removesuffix(":"), *row["alternatives"].split("|")} - {""}


def main() -> None:
    """Run the corpus and print what came of it."""
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--light", action="store_true")
    options.add_argument("--cut", action="store_true")
    options.add_argument("--processes", type=int, default=2)
    given = options.parse_args()
    with (given.folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not (given.light and row["file"] in HEAVY)]
    rows.sort(key=lambda row: row["file"] not in HEAVY)  # the long ones first
    children = [Child(Limits()) for _ in range(given.processes)]
    free = list(children)
    pids: set[int | None] = set()
    wrong: list[tuple[str, str, list[str]]] = []
    took: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as special:
        subprocess.run([sys.executable, given.folder / "make_special.py", special], check=True)

        def run(row: dict[str, str]) -> None:
            child, started = free.pop(), time.monotonic()
            got = (status_of_cut if given.cut else status)(child, location(row, given.folder / "files", Path(special)))
            pids.add(child.pid)
            free.append(child)
            took[row["file"]] = round(time.monotonic() - started, 2)
            may = {status.replace("ok_filled", "ok") if given.cut else status for status in allowed(row)}
            if got not in may and not ("failed" in may and got.startswith("failed")):
                wrong.append((row["file"], got, sorted(may)))

        started = time.monotonic()
        with ThreadPoolExecutor(given.processes) as pool:
            list(pool.map(run, rows))
            for child in children:
                child.close()
            seconds = time.monotonic() - started
    left = [pid for pid in pids if pid and psutil.pid_exists(pid)]
    left += [process.pid for process in psutil.Process().children(recursive=True)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss * _MAXRSS_BYTES
    slowest = sorted(took.items(), key=lambda item: -item[1])[:8]
    times = {"seconds": round(seconds, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1)}
    figures = {"cases": len(rows), **times, "peak_mb": peak >> 20, "left": left}
    sys.stdout.write(json.dumps({**figures, "slowest": dict(slowest), "wrong": wrong}) + "\n")


if __name__ == "__main__":
    main()
