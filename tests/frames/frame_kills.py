"""kills: drivers that build a frame cache, killed at random moments and started again, as processes of their own.

Promises to show  whatever is killed, each clip has one row of frames and one signature at the end
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from archives import rows
from framed import captioned

from raydist.store import read

ROOT = Path(__file__).resolve().parents[2]
TABLE = "frames_viclip_64_exact_8_raw"
LONGEST_S = 300.0

_DRIVER = """
import sys
from raydist.clips.decoder import Geometry
from raydist.config import load
from raydist.frames.build import ensure
from raydist.store.pairs import captioned_clips

archive, temporary = sys.argv[1:]
changes = (f"ray.temp_dir={temporary}", "ray.cpus=2", "embed.commit_s=0.2", "embed.decoders=1")
config = load(changes=changes, options={"archive": archive}, environment={}).config
pairs = captioned_clips(archive, None)
built = ensure(config, pairs, Geometry(frames=8, sampling="exact", size_px=64, resize="viclip"))
sys.exit(len(built.failed))
"""


class Drivers:
    """Builds of one archive's cache."""

    def __init__(self, temporary: Path, files: int, seconds: int) -> None:
        self.archive = captioned(temporary, files, seconds)
        self.clips = len(rows(self.archive, "clips"))
        self.kills = 0
        self._temporary = temporary

    def start(self) -> subprocess.Popen[bytes]:
        """A driver with Ray of its own, that commits five times a second."""
        log = open(self._temporary / "driver.log", "ab")  # noqa: SIM115  # the process keeps it
        command = [sys.executable, "-c", _DRIVER, str(self.archive), str(self._temporary)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self._temporary)

    def run(self, kills: int, seed: int) -> None:
        """Start, kill once some rows more are there, start again, and let the last one end by itself."""
        chance = random.Random(seed)
        for left in range(kills, 0, -1):
            target = self.cached() + chance.randint(1, max(1, (self.clips - self.cached()) // (left + 1)))
            driver = self.start()
            deadline = time.monotonic() + LONGEST_S
            while self.cached() < target and driver.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 0.2))
            if driver.poll() is None:
                driver.send_signal(signal.SIGKILL)
                self.kills += 1
            driver.wait()
        last = self.start()
        try:
            assert last.wait(timeout=LONGEST_S) == 0, (self._temporary / "driver.log").read_text()
        finally:
            last.kill()

    def cached(self) -> int:
        """Rows of frames."""
        return read.count_rows(str(self.archive), TABLE)

    def check(self) -> None:
        """Each clip once."""
        clips = Counter((row["clip_key"], row["fingerprint"]) for row in rows(self.archive, "clips"))
        for table in (TABLE, "signatures"):
            batches = read.scan_batches(str(self.archive), table, ["clip_key", "fingerprint"])
            found = Counter(tuple(row.values()) for batch in batches for row in batch.to_pylist())
            assert found == clips, table
        assert not list((self.archive / "runs").glob("*/manifest"))
