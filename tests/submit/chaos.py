"""chaos: embed as a job on a cluster of three nodes, one with a fake GPU, of which things are killed.

    python tests/submit/chaos.py --files 52 --clips 10            # prints a line of JSON

A worker node is killed, a node is added, the driver is SIGKILLed and the same command submitted again.
Promises to show  every clip has exactly one row at the end, and the reports count each once, that of the night too
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from archives import embeddings, rows, videos  # noqa: E402
from here import Here, cluster, end, run, start, wait_for  # noqa: E402

from raydist.store import read  # noqa: E402

NODES = ("2", "1", "1+gpu")
USUAL = ("embed.device=cpu", "embed.commit_s=0.5", "embed.batch=4")


def done(archive: Path) -> int:
    """Vectors that are committed."""
    keys = read.model_keys(str(archive))
    return read.count_rows(str(archive), f"embeddings_{keys[0]}") if keys else 0


def words(archive: Path, there: Here) -> list[str]:
    """The command."""
    changes = [f"--set={change}" for change in USUAL]
    named = ["--model", "tiny", "--archive", str(archive), "--json", "--address", there.jobs]
    return ["submit", "embed", *changes, *named]


def once(archive: Path, there: Here, *, kill_driver: bool) -> dict[str, Any]:
    """Embed, and kill what can be killed on the way."""
    total = read.count_rows(str(archive), "clips")
    seen: dict[str, Any] = {"clips": total}
    began = time.monotonic()
    job = start(*words(archive, there))
    wait_for(lambda: done(archive) or job.poll() is not None)
    seen["rows_when_node_was_killed"], seen["nodes"] = done(archive), [there.tell("kill")]
    wait_for(lambda: done(archive) > total * 0.3 or job.poll() is not None)
    seen["rows_when_node_was_added"] = done(archive)
    seen["nodes"].append(there.tell("add 1"))
    reports: list[dict[str, Any]] = []
    if kill_driver:
        wait_for(lambda: done(archive) > total * 0.5 or job.poll() is not None)
        driver = there.driver()
        if driver is not None:
            driver.kill()
        ended = end(job)
        seen["rows_when_driver_was_killed"] = done(archive)
        seen["exit_of_killed"], seen["said_of_killed"] = ended.code, ended.err.splitlines()[-1:]
        ended = run(*words(archive, there))
    else:
        ended = end(job)
    reports += ended.json()
    seen["exit"], seen["reports"] = ended.code, [report["counts"] for report in reports]
    if ended.code:
        seen["err"] = ended.err[-2000:]
    seen["seconds"] = round(time.monotonic() - began, 1)
    found = embeddings(archive)  # refuses two rows of a clip
    seen["rows"], seen["failures"] = len(found), len(rows(archive, "failures"))
    seen["every_clip_once"] = set(found) == {row["clip_id"] for row in rows(archive, "clips")}
    books = run("status", "--archive", str(archive), "--json").json()[0]
    seen["books"] = next(iter(books["embeddings"].values()))
    told = run("report", "--archive", str(archive), "--json").json()[0]
    seen["report"] = {**told["stages"]["embed"], "core_hours": told["cost"]["core_hours"]}
    return seen


def main(files: int, clips: int, kill_driver: bool) -> dict[str, Any]:
    """On an archive of so many files of so many clips of a second."""
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        archive, drawn = Path(folder, "archive"), videos(Path(folder, "videos"), files, clips)
        with cluster(*NODES) as there:
            cut = ["--clip-seconds", "1", "--archive", str(archive), "--address", there.jobs]
            scanned = run("submit", "scan", str(drawn), *cut)
            assert scanned.code == 0, scanned.err
            return {"files": files, **once(archive, there, kill_driver=kill_driver)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=52)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--thin", action="store_true", help="the driver is left alone")
    given = parser.parse_args()
    sys.stdout.write(json.dumps(main(given.files, given.clips, not given.thin)) + "\n")
