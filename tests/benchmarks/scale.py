"""bench scale: a night with a million clips, of which none exists: memory, time a block, `status`, planning again.

Answers: does anything of head or workers grow with the number of clips?
Asked for: flat curves, the same for one and four million; `status` < 2 s; planning of a resumed run < 60 s.

    python tests/benchmarks/scale.py --clips 1000000 --keep /tmp/one.json
    python tests/benchmarks/scale.py --clips 4000000 --keep /tmp/four.json
    python tests/benchmarks/scale.py --plot /tmp/one.json /tmp/four.json --out docs/scale.png

    python tests/benchmarks/scale.py --clips 4000000 --books   # `status` and planning alone: no run, no Ray

The rows of `videos` and `clips` are synthetic, decoding and the model are stand-ins with frames of 768 bytes
(`tests/embed/stand_ins.py`); all else is the product's. Without an index of the vectors unless `--index`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "embed")]

import conditions  # noqa: E402  # after the path is set
import curves  # noqa: E402  # the tests' own
import synthetic  # noqa: E402  # as above

from raydist import status  # noqa: E402
from raydist.embed import graph  # noqa: E402
from raydist.embed.ledger import Ledger  # noqa: E402
from raydist.models.registry import describe  # noqa: E402
from raydist.store import commit, schema  # noqa: E402
from raydist.store.manifest import Manifest  # noqa: E402

HEAD = ("driver", "gcs", "raylet")
WORKERS = ("decoder", "embedder", "worker")


def main() -> None:
    """Measure and print one JSON line; or draw what was measured."""
    options = argparse.ArgumentParser()
    options.add_argument("--clips", type=int, default=1_000_000)
    options.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    options.add_argument(
        "--index", action="store_true", help="build the index of the vectors at the end, as embed does"
    )
    options.add_argument("--books", action="store_true", help="write the rows of vectors straight into the archive")
    options.add_argument("--keep", type=Path, help="write the curves there")
    options.add_argument("--plot", nargs="+", type=Path, help="curves that were kept: draw them, measure nothing")
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "scale.png")
    given = options.parse_args()
    if given.plot:
        _draw([json.loads(path.read_text()) for path in given.plot], given.out)
        return
    print(json.dumps(_books(given.clips) if given.books else _measured(given)))


def _books(clips: int) -> dict[str, Any]:
    info = describe("tiny")
    with tempfile.TemporaryDirectory(prefix="rs", ignore_cleanup_errors=True) as place:
        archive = Path(place) / "archive"
        with ProcessPoolExecutor(1, get_context("spawn")) as other:  # what writing takes is not this process's memory
            other.submit(_written, archive, clips).result()
        _peak_mib()
        spent = time.process_time()
        _counts, status_s = _status(archive)
        status_cpu_s = (time.process_time() - spent) / len(status_s)
        status_peak_mib = _peak_mib()
        began, spent = time.monotonic(), time.process_time()
        ledger = Ledger(str(archive), info)
        joined_s, joined_cpu_s, joined_peak_mib = time.monotonic() - began, time.process_time() - spent, _peak_mib()
        manifest = Manifest(Path(place) / "manifest").write(graph._manifest(str(archive), ledger))
        planned_s = time.monotonic() - began
        command_s = _command_s(archive)
    return {
        "bench": "scale",
        "clips": clips,
        "left": ledger.expected,
        "units": manifest.rows,
        "status_s": status_s,
        "status_cpu_s": round(status_cpu_s, 2),
        "status_command_s": command_s,
        "status_peak_mib": status_peak_mib,
        "anti_join_s": round(joined_s, 2),
        "anti_join_cpu_s": round(joined_cpu_s, 2),
        "anti_join_peak_mib": joined_peak_mib,
        "plan_s": round(planned_s, 2),
        "plan_cpu_s": round(time.process_time() - spent, 2),
        "manifest_peak_mib": _peak_mib(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "cpu": conditions.cpu_name(),
    }


def _written(archive: Path, clips: int) -> None:
    synthetic.embed(synthetic.write(archive, clips), describe("tiny"))


def _peak_mib() -> int:
    """The most memory of this process since this was asked last."""
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def _status(archive: Path) -> tuple[dict[str, int], list[float]]:
    """The books of the only model, and what three times `status` take."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        books = status.run(synthetic.configure(archive))
        times.append(round(time.monotonic() - began, 2))
    (counts,) = books["embeddings"].values()
    return counts, times


def _command_s(archive: Path) -> float:
    """What the command takes, its start included."""
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("raydist")), "status", "--archive", str(archive)]
    subprocess.run(command, check=True, capture_output=True)
    return round(time.monotonic() - began, 2)


def _measured(given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rs", ignore_cleanup_errors=True) as place:
        began = time.monotonic()
        archive = synthetic.write(Path(place) / "archive", given.clips)
        written_s = time.monotonic() - began
        settings = [] if given.index else [f"search.index_rows={10 * given.clips}"]
        run = curves.watched(archive, *settings, every_s=given.every)
        after = _after(archive)
    figures = {
        "bench": "scale",
        "clips": given.clips,
        "rows": run.report["rows"],
        "failed": run.report["failed"],
        "archive_written_s": round(written_s, 1),
        **_rates(run),
        "head_mib": {role: _level(run, role) for role in HEAD},
        "workers_mib": {role: _level(run, role) for role in WORKERS},
        "growth_mib": {role: round(run.growth_mib(role), 1) for role in (*HEAD, *WORKERS)},
        "store_mib": round(max(run.store_mib)),
        "all_mib": round(max(run.all_mib)),
        "processes": max(run.processes),
        "cpu_ms_a_clip": {role: round(1000 * spent / given.clips, 3) for role, spent in run.cpu_s.items()},
        **after,
        "load": [round(load, 1) for load in os.getloadavg()],
        "cpu": conditions.cpu_name(),
        "commit": conditions.commit(),
    }
    if given.keep:
        given.keep.write_text(json.dumps({**asdict(run), "figures": figures}))
    return figures


def _rates(run: curves.Curves) -> dict[str, float]:
    """Clips a second in quarters of the run, and what came before its first clip."""
    began, ended = run.report["details"]["active"]
    total = max(run.clips)
    points = [
        next(at for at, done in zip(run.seconds, run.clips, strict=True) if done >= total * part / 4)
        for part in (1, 2, 3, 4)
    ]
    return {
        "seconds": round(run.report["seconds"], 1),
        "until_first_clip_s": round(began - run.report["launched"], 1),
        "clips_per_s": round(total / (ended - began), 1),
        "ms_a_clip_second_quarter": round(4000 * (points[1] - points[0]) / total, 3),
        "ms_a_clip_last_quarter": round(4000 * (points[3] - points[2]) / total, 3),
    }


def _level(run: curves.Curves, role: str) -> list[float]:
    """Anonymous memory: median of the second quarter of the run, median of the last, and the peak of all."""
    middle, last = (sorted(run.between(role, *part)) for part in ((0.25, 0.5), (0.75, 1.0)))
    return [round(middle[len(middle) // 2]), round(last[len(last) // 2]), round(max(run.own_mib[role]))]


def _after(archive: Path) -> dict[str, Any]:
    """`status`, and what a run that begins again plans: with nothing left, and with an eighth of the clips left."""
    counts, status_s = _status(archive)
    command_s = _command_s(archive)
    info = describe("tiny")
    began = time.monotonic()
    Ledger(str(archive), info)
    planned_s = time.monotonic() - began
    commit.delete(str(archive), schema.embeddings_table(info.model_key), "start_s < 75")  # 3 of a video's 25 clips
    began = time.monotonic()
    ledger = Ledger(str(archive), info)
    with tempfile.TemporaryDirectory() as place:
        Manifest(Path(place) / "manifest").write(graph._manifest(str(archive), ledger))
    return {
        "books": counts,
        "status_s": status_s,
        "status_command_s": command_s,
        "plan_s": round(planned_s, 2),
        "plan_of_an_eighth_s": round(time.monotonic() - began, 2),
    }


def _draw(kept: list[dict[str, Any]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), constrained_layout=True)
    styles = ("-", "--", ":")
    for curve, style in zip(kept, styles, strict=False):
        name = f"{curve['figures']['clips'] / 1e6:g} M clips"
        at_work = [place for place, raylet in enumerate(curve["own_mib"]["raylet"]) if raylet and curve["clips"][place]]
        share = [100 * curve["clips"][place] / max(curve["clips"]) for place in at_work]
        for axis, roles in ((axes[0], HEAD), (axes[1], WORKERS)):
            for number, role in enumerate(roles):
                levels = [curve["own_mib"][role][place] for place in at_work]
                axis.plot(share, levels, style, color=f"C{number}", label=f"{role}, {name}")
        axes[2].plot([at / 60 for at in curve["seconds"]], [clips / 1e6 for clips in curve["clips"]], style, label=name)
    for axis, title in ((axes[0], "head: anonymous memory, MiB"), (axes[1], "workers: the largest of each kind, MiB")):
        axis.set(title=title, xlabel="% of the clips committed", ylim=(0, None))
    axes[2].set(title="million clips committed", xlabel="minutes")
    for axis in axes:
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
