"""caption_kills: captioning drivers that are killed at random moments and started again, as processes of their own.

    python tests/caption/caption_kills.py --clips 300 --kills 5      # prints a JSON line

Promises to show  whatever is killed, each clip has its own caption once, and no more is paid for twice than was in
                  flight when a driver was killed
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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from asked import KEY, KEYS, MODELS, Asked, archive_of, outcome  # noqa: E402
from llm_server import LLMServer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MARK = "CAPTION_KILLS_RUN"
"""In the environment of every process of a run, so that they can be found."""
IN_FLIGHT = 8
LONGEST_S = 300.0


@dataclass
class Drivers:
    """`raydist caption --provider` on one archive, one process after the other."""

    asked: Asked
    temporary: Path
    kills: int = 0
    exits: Counter[int] = field(default_factory=Counter)

    def start(self) -> subprocess.Popen[bytes]:
        """A driver with Ray of its own, that commits every second."""
        url = self.asked.server.url + ("/v1" if self.asked.api == "openai" else "")
        changes = [
            f"ray.temp_dir={self.temporary}",
            "ray.cpus=2",
            "caption.commit_s=1",
            "caption.decoders=1",
            f"caption.in_flight={IN_FLIGHT}",
            f"caption.base_url={url}",
            "scan.clip_seconds=1",
        ]
        words = ["caption", "--archive", str(self.asked.archive), "--provider", self.asked.api]
        words += ["--model", MODELS[self.asked.api], *(word for change in changes for word in ("--set", change))]
        command = [sys.executable, "-c", "from raydist.cli import main; main()", *words]
        environment = {**os.environ, MARK: str(self.temporary), KEYS[self.asked.api]: KEY, "PYTHONPATH": str(ROOT)}
        log = open(self.temporary / "driver.log", "ab")  # noqa: SIM115  # the process keeps it
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=self.temporary, start_new_session=True
        )

    def run(self, kills: int, seed: int) -> None:
        """Kill the driver in the middle of its requests, again and again, and let the last one end by itself."""
        chance = random.Random(seed)
        clips = len(self.asked.expected())
        for number in range(kills):
            driver = self.start()
            wanted = clips * (number + 1) // (kills + 1)
            deadline = time.monotonic() + LONGEST_S
            while len(self.asked.server.received) < wanted and driver.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 1.5))
            if driver.poll() is None:
                # The driver alone, whose workers live on for a moment; or all of them at once, as a machine that dies.
                for victim in [driver.pid] if number % 2 else self._processes():
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                self.kills += 1
            self.exits[driver.wait()] += 1
        for _ in range(5):  # on a crowded machine Ray itself may fail to start
            last = self.start()
            code = last.wait(timeout=LONGEST_S)
            self.exits[code] += 1
            if code == 0:
                break

    def _processes(self) -> list[int]:
        """All that drivers started, and themselves."""
        found = []
        for process in psutil.process_iter(["pid"]):
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == str(self.temporary):
                    found.append(process.pid)
        return found


def storm(folder: Path, api: str, clips: int, kills: int, seed: int, latency_s: float = 0.4) -> dict[str, Any]:
    """Caption an archive through kills; what is in it in the end, and what was paid."""
    archive = archive_of(folder, clips, a_file=20)
    with LLMServer(latency_s=latency_s, seed=seed) as server:
        asked = Asked(archive, server, api)
        drivers = Drivers(asked, folder)
        drivers.run(kills, seed)
        found = outcome(asked, asked.expected())
    return {**found, "kills": drivers.kills, "exits": dict(drivers.exits), "in_flight": IN_FLIGHT}


def main() -> None:
    """Run the storm and print what is left."""
    options = argparse.ArgumentParser()
    options.add_argument("--clips", type=int, default=300)
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--api", choices=sorted(KEYS), default="gemini")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rk", ignore_cleanup_errors=True) as folder:
        figures = storm(Path(folder), given.api, given.clips, given.kills, given.seed)
    sys.stdout.write(json.dumps({**figures, "seconds": round(time.monotonic() - began)}) + "\n")


if __name__ == "__main__":
    main()
