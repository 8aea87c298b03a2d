"""bench train: where the time of a training run goes.

Answers: does training wait for frames, what does the cache save, what do a second worker and chunks change?
Asked for: less than 5 % of the time waiting for data.

    python tests/benchmarks/train.py --folder /var/tmp/train --clips 512 --rounds 3 > rows.jsonl

Draws captioned clips (`--folder` keeps them, with the archive and its cached frames), and trains `tiny` on them with
`raydist train` as it is: frames from the raw and the JPEG cache, decoded anew each epoch, with two workers, in chunks;
in turn, round by round. Figures are of the steps after the first epoch, by the run's own journal, medians over the
rounds. Then memory: one step of a whole batch and of chunks, in a process each. On a GPU the same for ViCLIP-B/16 and
CLIP-L/14@336 with drawn weights (`steps.py`), and a run of ViCLIP-B/16 on the drawn clips; without one a line says so.
Prints one JSON line a row on stdout and a table on stderr. Meaningful only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]

from steps import write_model  # noqa: E402  # the benchmark of a step

from raydist import caption, runtime, scan, train  # noqa: E402
from raydist.config import Config, load  # noqa: E402
from raydist.demo import films  # noqa: E402
from raydist.store.runs import run_folder  # noqa: E402
from raydist.train import journal  # noqa: E402

WAIT_GOAL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to train."""

    name: str
    changes: tuple[str, ...]
    model: str = "tiny"


WAYS = (
    Way(name="raw cache", changes=("train.cache=raw", "train.workers=1")),
    Way(name="JPEG cache", changes=("train.cache=jpeg", "train.workers=1")),
    Way(name="decoded each epoch", changes=("train.cache=none", "train.workers=1")),
    Way(name="raw cache, 2 workers", changes=("train.cache=raw", "train.workers=2")),
    Way(name="raw cache, chunks of 8", changes=("train.cache=raw", "train.workers=1", "train.micro_batch=8")),
)

STEPS_CPU = ((), ("--micro-batch", "8"), ("--checkpointing",))
STEPS_GPU = {
    "viclip-b16": ((), ("--micro-batch", "16"), ("--checkpointing",)),  # the first that fits is taken for the run
    "clip-l14-336": (("--micro-batch", "8"), ("--micro-batch", "16"), ("--checkpointing",)),
}


def main() -> None:
    """Measure; one JSON line a row, then a table."""
    options = argparse.ArgumentParser()
    options.add_argument("--folder", type=Path, help="keeps clips and archive; default: a temporary one")
    options.add_argument("--clips", type=int, default=512, help="drawn videos, a clip each; at most 517")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--epochs", type=int, default=4, help="of which the first one is not counted")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--ways", default="", help="only ways whose name contains this")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="bt") as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        rows = list(_runs(given, folder, WAYS, "cpu"))
        rows += [_emit(_step("tiny", given.batch, "cpu", changes)) for changes in STEPS_CPU]
        if torch.cuda.is_available():
            rows += _on_gpu(given, folder, Path(temporary))
        else:
            _say("no GPU on this machine: ViCLIP-B/16 and CLIP-L/14@336 at full size are left out")
    _say(f"\n{_machine()}\n\n{_table(rows)}")


def _on_gpu(given: argparse.Namespace, folder: Path, temporary: Path) -> list[dict[str, Any]]:
    rows = [_emit(_step(model, given.batch, "cuda", changes)) for model, ways in STEPS_GPU.items() for changes in ways]
    fitting = [row["micro_batch"] for row in rows if row["fits"] and row["model"] == "viclip-b16"]
    if not fitting:
        _say("a run of ViCLIP-B/16 is left out: no way of its step fits this GPU")
        return rows
    chunks, model = f"train.micro_batch={fitting[0]}", write_model("viclip-b16", temporary)
    ways = [
        Way(
            name=f"ViCLIP-B/16, {cache} cache", changes=(f"train.cache={cache}", "train.workers=1", chunks), model=model
        )
        for cache in ("raw", "jpeg")
    ]
    return rows + list(_runs(given, folder, ways, "cuda"))


def _runs(given: argparse.Namespace, folder: Path, ways: Sequence[Way], device: str) -> Iterator[dict[str, Any]]:
    """A row a way, from runs in turn."""
    chosen = [way for way in ways if given.ways in way.name]
    archive = _archive(folder, given.clips)
    taken: dict[str, list[dict[str, float]]] = {way.name: [] for way in chosen}
    with runtime.session(load(environment={}).config.ray):
        for number in range(given.rounds):
            for place, way in enumerate(chosen):
                _say(f"round {number + 1} of {given.rounds}: {way.name}")
                config = _config(archive, way, given, device)
                taken[way.name].append(_run(config, f"bench-{device}-{number}-{place}"))
    for way in chosen:
        rounds = taken[way.name]
        figures = {key: round(median([one[key] for one in rounds]), 4) for key in rounds[0]}
        yield _emit(
            {
                "part": "run",
                "way": way.name,
                "device": device,
                "clips": given.clips,
                "batch": given.batch,
                **figures,
                "waits": [round(one["data_wait"], 4) for one in rounds],
                "first_run_s": round(rounds[0]["run_s"], 1),
                "holds": figures["data_wait"] < WAIT_GOAL,
            }
        )


def _archive(folder: Path, clips: int) -> Path:
    """Drawn clips with captions, scanned; what is there is kept."""
    archive = folder / f"archive-{clips}"
    chosen = films.choose(folder / f"videos-{clips}", clips)
    films.draw(chosen)
    listed = folder / f"captions-{clips}.csv"
    films.write_captions(chosen, listed)
    config = load(options={"archive": str(archive)}, environment={}).config
    scan.run(config, scan.Request(inputs=(str(chosen[0].file.parent),), as_name="drawn"))
    caption.run(config, caption.Request(file=str(listed)))
    return archive


def _config(archive: Path, way: Way, given: argparse.Namespace, device: str) -> Config:
    usual = (f"train.batch={given.batch}", f"train.epochs={given.epochs}", f"train.device={device}")
    options = {"archive": str(archive), "embed.model": way.model}
    return load(changes=(*usual, *way.changes), options=options, environment={}).config


def _run(config: Config, name: str) -> dict[str, float]:
    """Train, and what the journal says of the steps after the first epoch."""
    folder = run_folder(config.require_archive(), name)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier benchmark in this folder
    report = train.run(config, train.Request(run=name))
    steps = [line for line in journal.entries(folder) if "loss" in line and line["epoch"] > 0]
    clips = report.counts["clips"] / report.details["steps_per_epoch"]  # batches differ by a clip at most
    seconds = [clips / line["samples_per_s"] for line in steps]
    waited = sum(line["data_wait"] * took for line, took in zip(steps, seconds, strict=True))
    return {
        "clips_per_s": clips * len(steps) / sum(seconds),
        "data_wait": waited / sum(seconds),
        "step_s": median(seconds),
        "steps": len(steps),
        "run_s": report.seconds,
    }


def _step(model: str, batch: int, device: str, changes: Sequence[str]) -> dict[str, Any]:
    """One step's cost, in a process of its own."""
    script = Path(__file__).with_name("steps.py")
    command = [sys.executable, str(script), "--model", model, "--batch", str(batch), "--device", device, *changes]
    _say(f"a step: {model} {' '.join(changes) or 'whole'}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return {"part": "step", **json.loads(done.stdout)}


def _emit(row: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps({**row, "bench": "train", "machine": _machine(), "commit": _commit()}), flush=True)
    return row


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [["run", "clips/s", "waiting for data", "step, ms"], ["---", "---:", "---:", "---:"]]
    for row in rows:
        if row["part"] == "run":
            wait = f"{row['data_wait']:.1%}" + ("" if row["holds"] else f" (asked: under {WAIT_GOAL:.0%})")
            lines.append([row["way"], f"{row['clips_per_s']:.1f}", wait, f"{1000 * row['step_s']:.0f}"])
    found = [_lines(lines)]
    lines = [["a step of", "on", "clips/s", "memory, GB", "share of peak"], ["---", "---", "---:", "---:", "---:"]]
    for row in rows:
        if row["part"] == "step":
            chunks = f"chunks of {row['micro_batch']}" if row["micro_batch"] else "whole"
            name = f"{row['model']}, {row['batch']} clips, {chunks}" + ", checkpointing" * row["checkpointing"]
            figures = ["does not fit", "-", "-"]
            if row["fits"]:
                share = f"{row['share_of_peak']:.1%}" if "share_of_peak" in row else "-"
                figures = [f"{row['clips_per_s']:.1f}", f"{row['memory_gb']:.2f}", share]
            lines.append([name, row["device"], *figures])
    return "\n\n".join([*found, _lines(lines)])


def _lines(cells: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = f"{os.cpu_count()} x {names[0] if names else platform.processor() or platform.machine()}"
    return f"{name}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else name


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
