"""kills: drivers of embed that are killed at random moments and started again, as processes of their own.

    python tests/embed/kills.py --kills 10 --drivers 1      # an archive of 60 files, 300 clips; prints a JSON line

Promises to show  whatever is killed, clips = rows + failed at the end, each clip has one row and one signature, and no
                  process of ours (drivers, Ray's, decoding children) is left
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from archives import embeddings, rows, scanned, videos, write_viclip  # noqa: E402

from raydist.store import read  # noqa: E402

MARK = "EMBED_KILLS_RUN"
"""In the environment of every process of a run, so that those that are left can be found."""

LONGEST_S = 300.0


@dataclass
class Drivers:
    """Embed commands on one archive."""

    archive: Path
    model: Path
    temporary: str
    kills: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def start(self, own_group: bool = False) -> subprocess.Popen[bytes]:
        """A driver with Ray of its own of small batches that commits five times a second."""
        changes = [f"ray.temp_dir={self.temporary}", "ray.cpus=2", "embed.commit_s=0.2", "embed.decoders=1"]
        changes += ["scan.clip_seconds=1", "embed.batch=1"]
        command = [
            sys.executable,
            "-c",
            "from raydist.cli import main; main()",
            "embed",
            "--archive",
            str(self.archive),
            "--model",
        ]
        command += [str(self.model), *(word for change in changes for word in ("--set", change))]
        environment = {**os.environ, MARK: self.temporary, "PYTHONPATH": str(ROOT)}
        log = open(Path(self.temporary) / "driver.log", "ab")  # noqa: SIM115  # the process keeps it
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=self.temporary, start_new_session=own_group
        )

    def run(self, kills: int, at_once: int, seed: int) -> None:
        """Keep `at_once` drivers going, kill one at random moments, and let the last ones end by themselves."""
        running: list[subprocess.Popen[bytes]] = []
        try:
            running += [self.start() for _ in range(at_once)]
            self._storm(running, kills, random.Random(seed))
            codes = [driver.wait(timeout=LONGEST_S) for driver in running]
            for _ in range(5):  # on a crowded machine Ray itself may fail to start
                self.exits.update(codes)
                if not any(codes):
                    break
                running.append(self.start())
                codes = [running[-1].wait(timeout=LONGEST_S)]
        finally:
            for driver in running:
                driver.kill()

    def _storm(self, running: list[subprocess.Popen[bytes]], kills: int, chance: random.Random) -> None:
        """Kill and start again. Some kills come while Ray starts, most while rows are written."""
        while self.kills < kills and (waiting := self.waiting()):
            target = waiting - chance.randint(1, max(1, waiting // (kills - self.kills + 1)))
            patience_s = chance.uniform(0, 8) if chance.random() < 0.25 else LONGEST_S
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline and self.waiting() > target:
                if all(driver.poll() is not None for driver in running):
                    break
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 0.2))
            victim = running.pop(chance.randrange(len(running)))
            if victim.poll() is None:
                victim.send_signal(signal.SIGKILL)
                self.kills += 1
            self.exits[victim.wait()] += 1
            running.append(self.start())

    def waiting(self) -> int:
        """Clips that have no row yet."""
        location = str(self.archive)
        tables = [f"embeddings_{key}" for key in read.model_keys(location)]
        return read.count_rows(location, "clips") - sum(read.count_rows(location, table) for table in tables)

    def left_over(self, patience_s: float = 150.0) -> list[str]:
        """Processes of the run that outlive it.

        Ray's own agents notice by asking from time to time that their raylet is gone: on a crowded machine that takes
        more than half a minute.
        """
        deadline = time.monotonic() + patience_s
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            try:
                if process.environ().get(MARK) == self.temporary and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.info['cmdline'] or [])[:120]}")
            except (psutil.Error, OSError):
                continue
        return found


def build(folder: Path, files: int, seconds: int) -> tuple[Path, Path]:
    """An archive that was scanned, and a model."""
    scanned(folder / "archive", videos(folder / "videos", files, seconds))
    return folder / "archive", write_viclip(folder / "small")


def outcome(drivers: Drivers) -> dict[str, Any]:
    """What is in the archive in the end."""
    found = embeddings(drivers.archive)
    signatures = [(row["clip_key"], row["fingerprint"]) for row in rows(drivers.archive, "signatures")]
    clips = {row["clip_id"] for row in rows(drivers.archive, "clips")}
    reports = [json.loads(path.read_text()) for path in drivers.archive.glob("runs/embed-*/report.json")]
    return {
        "kills": drivers.kills,
        "exits": dict(drivers.exits),
        "clips": len(clips),
        "rows": len(found),
        "of_clips": len(clips & set(found)),
        "signatures": len(signatures),
        "unique_signatures": len(set(signatures)),
        "failed": len(rows(drivers.archive, "failures")),
        # Of the drivers that ended: clips that another one had committed meanwhile, and commits redone for that reason.
        "done_twice": sum(report["details"]["attempted"] - report["rows"] - report["failed"] for report in reports),
        "conflicts": sum(report["details"]["conflicts"] for report in reports),
        "left_over": drivers.left_over(),
    }


def main() -> None:
    """Run the storm and print what is left."""
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--drivers", type=int, default=1)
    options.add_argument("--files", type=int, default=60)
    options.add_argument("--seconds", type=int, default=8)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rk", ignore_cleanup_errors=True) as folder:
        archive, model = build(Path(folder), given.files, given.seconds)
        drivers = Drivers(archive, model, folder)
        drivers.run(given.kills, given.drivers, given.seed)
        figures = outcome(drivers)
        sys.stdout.write(
            json.dumps({"drivers": given.drivers, **figures, "seconds": round(time.monotonic() - began)}) + "\n"
        )


if __name__ == "__main__":
    main()
