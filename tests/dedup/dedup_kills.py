"""kills: runs of dedup, killed at chosen moments and started again, as processes of their own.

Promises to show  whatever is killed, the tables are those of an unbroken run at the end, and no pair stands twice
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from films import CHANGES, table

from raydist.store import read

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 300.0
TABLES = ("duplicates_", "groups_", "overlaps_", "joined_")


class Runs:
    """Runs of dedup over one archive."""

    def __init__(self, archive: Path, temporary: Path) -> None:
        self.archive = archive
        self.kills = 0
        self._temporary = temporary
        (self._key,) = read.model_keys(str(archive))

    def start(self) -> subprocess.Popen[bytes]:
        """A run with Ray of its own."""
        log = open(self._temporary / "driver.log", "ab")  # noqa: SIM115  # the process keeps it
        changes = (*CHANGES, f"ray.temp_dir={self._temporary}", "ray.cpus=2")
        options = [f"--set={change}" for change in changes]
        command = [sys.executable, "-c", "from raydist.cli import main; main()"]
        command += ["dedup", "--archive", str(self.archive), *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("RAY_ADDRESS", None)
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self._temporary)

    def killed(self, moment: str, chance: random.Random) -> None:
        """Start a run and kill it once it has come to the moment, or a little later."""
        come = self.moments()[moment]
        run = self.start()
        deadline = time.monotonic() + LONGEST_S
        while not come() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            self.kills += 1
        run.wait()

    def moments(self) -> dict[str, Callable[[], bool]]:
        """What a run comes to, one after the other."""
        location, key = str(self.archive), self._key

        def has(name: str) -> Callable[[], bool]:
            return lambda: read.count_rows(location, name) > 0

        return {
            "joining": lambda: any((self.archive / "runs").glob("dedup-*/join")),
            "reading": has("traces"),
            "pairs are stored": has(f"duplicates_{key}"),
            "clips are written down": has(f"joined_{key}"),
            "groups are stored": has(f"groups_{key}"),
        }

    def finish(self) -> None:
        """A run that ends by itself."""
        last = self.start()
        try:
            assert last.wait(timeout=LONGEST_S) == 0, (self._temporary / "driver.log").read_text()
        finally:
            last.kill()

    def check(self, unbroken: Path) -> None:
        """The tables of an unbroken run, each pair once."""
        for prefix in TABLES:
            found, wanted = (
                [{**row, "found_by": ""} for row in table(place, prefix)] for place in (self.archive, unbroken)
            )
            assert found == wanted, prefix
        pairs = Counter((row["a"], row["b"], row["archive_b"]) for row in table(self.archive, "duplicates_"))
        assert set(pairs.values()) == {1}
        assert not list((self.archive / "runs").glob("dedup-*/join"))
