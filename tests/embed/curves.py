"""curves: one embed run in a process of its own, and how much memory its processes have while it lasts.

    python tests/embed/curves.py ARCHIVE RAY_FOLDER REPORT [SETTING ...]

embeds with stand-ins on a Ray of its own and writes the report. `watched` starts that and samples it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "embed")]

from raydist.store import read  # noqa: E402  # after the path is set

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "embed")]),
}
SCRAPED = {"RAY_metrics_report_interval_ms": "1000"}
"""Set where the endpoint is read; once a second costs the node's agent a third of a core."""


@dataclass
class Curves:
    """What was sampled; a list holds a number a sample."""

    seconds: list[float] = field(default_factory=list)
    clips: list[int] = field(default_factory=list)
    """Committed."""
    own_mib: dict[str, list[float]] = field(default_factory=dict)
    """Role -> anonymous memory of its largest process: what it holds itself, Ray's object store left out."""
    all_mib: list[float] = field(default_factory=list)
    """That of all processes together."""
    processes: list[int] = field(default_factory=list)
    """How many there are."""
    cpu_s: dict[str, float] = field(default_factory=dict)
    """Role -> CPU seconds of all its processes, those that ended included, up to when they were last seen."""
    store_mib: list[float] = field(default_factory=list)
    """Shared memory of the raylet: the object store."""
    report: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """What was on Ray's Prometheus endpoint: name -> tags of each series, its last value as `value`."""

    def growth_mib(self, role: str, after: float = 0.25) -> float:
        """How much higher the median of a role's last quarter lies than that of the quarter from `after` on."""
        sampled = self.between(role, after, after + 0.25), self.between(role, 0.75, 1.0)
        first, last = (sorted(values)[len(values) // 2] for values in sampled)
        return last - first

    def between(self, role: str, low: float, high: float) -> list[float]:
        """Samples of a role while this part of all clips was committed, and Ray was there."""
        total = max(self.clips)
        samples = zip(self.clips, self.own_mib[role], self.own_mib["raylet"], strict=True)
        return [value for done, value, raylet in samples if low * total <= done <= high * total and done and raylet]


def watched(
    archive: Path, *settings: str, every_s: float = 2.0, scraped: bool = False, kills: Sequence[str] = ()
) -> Curves:
    """Run and sample; the curves hold the report too.

    Args:
        scraped: read the figures on Ray's endpoint too.
        kills: roles of which a process is killed once something is committed.
    """
    with tempfile.TemporaryDirectory(prefix="rn", ignore_cleanup_errors=True) as temporary:  # short, for sockets
        result = Path(temporary) / "report.json"
        command = [sys.executable, __file__, str(archive), f"{temporary}/ray", str(result), *settings]
        environment = {**os.environ, **ENVIRONMENT, **(SCRAPED if scraped else {})}
        curves = _sampled(archive, subprocess.Popen(command, env=environment), every_s, list(kills))
        written = json.loads(result.read_text())
    curves.report, curves.figures = written["report"], written["figures"]
    return curves


def _sampled(archive: Path, driver: subprocess.Popen[bytes], every_s: float, kills: list[str]) -> Curves:
    curves, began = Curves(), time.monotonic()
    sampled: dict[str, list[float]] = defaultdict(list)
    spent: dict[tuple[int, float], tuple[str, float]] = {}
    try:
        while driver.poll() is None:
            roles, store, held_mib = _memory(driver.pid, spent)
            curves.seconds.append(round(time.monotonic() - began, 2))
            curves.clips.append(_committed(archive))
            curves.store_mib.append(store)
            curves.all_mib.append(round(sum(held_mib), 1))
            curves.processes.append(len(held_mib))
            while kills and curves.clips[-1]:
                _kill(driver.pid, kills.pop())
            for role in {*roles, *sampled}:
                held = sampled[role]
                held += [0.0] * (len(curves.seconds) - 1 - len(held))
                held.append(roles.get(role, 0.0))
            with suppress(subprocess.TimeoutExpired):
                driver.wait(every_s)
    finally:
        if driver.poll() is None:
            driver.terminate()
            driver.wait(60)
    if driver.returncode:
        raise RuntimeError(f"the run ended with {driver.returncode}")
    curves.own_mib = dict(sampled)
    for role, seconds in spent.values():
        curves.cpu_s[role] = curves.cpu_s.get(role, 0.0) + seconds
    return curves


def _kill(pid: int, role: str) -> None:
    victims = [process for process in psutil.Process(pid).children(recursive=True) if _role(process) == role]
    assert victims, f"no {role} is there to be killed"
    victims[0].kill()


def _memory(pid: int, spent: dict[tuple[int, float], tuple[str, float]]) -> tuple[dict[str, float], float, list[float]]:
    """MiB of the largest process of each role, of the object store, and of every process; its CPU time goes to
    `spent`."""
    roles: dict[str, float] = defaultdict(float)
    every: list[float] = []
    store = 0.0
    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(pid)
        for process in [driver, *driver.children(recursive=True)]:
            with suppress(psutil.Error, OSError, KeyError):
                role = "driver" if process.pid == pid else _role(process)
                used = process.cpu_times()
                spent[process.pid, process.create_time()] = role, used.user + used.system
                status = dict(
                    line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                )
                every.append(int(status["RssAnon"].split()[0]) / 1024)
                roles[role] = max(roles[role], every[-1])
                if role == "raylet":
                    store = int(status["RssShmem"].split()[0]) / 1024
    return dict(roles), store, every


def _role(process: psutil.Process) -> str:
    try:
        line = process.cmdline() or [""]
    except psutil.Error:  # gone or a zombie since it was listed
        return "other"
    name = Path(line[0]).name
    if name in ("gcs_server", "raylet"):
        return name.removesuffix("_server")
    if "ray::" in line[0]:
        return "decoder" if "Decoder" in line[0] else "embedder" if "Embedder" in line[0] else "worker"
    return "other"


def _committed(archive: Path) -> int:
    location = str(archive)
    return sum(read.count_rows(location, f"embeddings_{key}") for key in read.model_keys(location))


class Scraper(threading.Thread):
    """Reads the endpoint of this machine's Ray every second, as Prometheus would."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.figures: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)

    def run(self) -> None:
        import ray

        while True:
            time.sleep(1)
            with suppress(Exception):  # there is no Ray yet, or none any more
                (node,) = ray.nodes()
                with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=5) as page:
                    self._read(page.read().decode())

    def _read(self, page: str) -> None:
        for line in page.splitlines():
            found = re.fullmatch(r"(ray_raydist_\w+)\{(.*)\} (\S+)", line)
            if found:
                tags = dict(re.findall(r'(\w+)="([^"]*)"', found[2]))
                self.figures[found[1]][found[2]] = {**tags, "value": found[3]}


def main() -> None:
    """The driver."""
    import synthetic
    from stand_ins import STAND_INS

    from raydist.embed import graph
    from raydist.rendering import as_json

    archive, temporary, result, *settings = sys.argv[1:]
    scraper = Scraper()
    if SCRAPED.items() <= os.environ.items():
        scraper.start()
    began = time.time()
    report = graph.run(synthetic.configure(Path(archive), f"ray.temp_dir={temporary}", *settings), actors=STAND_INS)
    written = {"launched": began, "ended": time.time(), **as_json(report)}
    figures = {name: list(series.values()) for name, series in scraper.figures.items()}
    Path(result).write_text(json.dumps({"report": written, "figures": figures}))


if __name__ == "__main__":
    main()
