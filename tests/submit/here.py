"""here: clusters of this machine as processes of their own, and commands of raydist that speak to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LONGEST_S = 600.0
"""What any one step may take on a busy machine."""

_STARTS = 4

MAIN = "from raydist.cli import main; main()"


@dataclass
class Here:
    """A cluster on this machine."""

    process: subprocess.Popen[str]
    jobs: str
    """Its job server."""
    gcs: str
    folder: str

    def tell(self, word: str) -> int:
        """`add CPUS`, `kill` or `nodes`; the number of nodes then."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return int(json.loads(self.process.stdout.readline()))

    def driver(self) -> psutil.Process | None:
        """The process of the job that runs."""
        for process in psutil.process_iter(["cmdline"]):
            if "raydist.cli.job" in (process.info["cmdline"] or []):
                try:
                    if process.environ().get("RAY_TMPDIR") == self.folder:
                        return process
                except psutil.Error:
                    continue
        return None


@contextmanager
def cluster(*nodes: str, **environment: str) -> Iterator[Here]:
    """A cluster of these nodes: CPUs each, `+gpu` for a fake GPU; the first is the head."""
    found = _begun(nodes, environment)
    try:
        yield found
    finally:
        assert found.process.stdin is not None
        found.process.stdin.close()
        try:
            found.process.wait(60)
        except subprocess.TimeoutExpired:
            found.process.kill()


def _begun(nodes: tuple[str, ...], environment: Mapping[str, str]) -> Here:
    """Tried again where a busy machine needs longer than the 30 s that Ray gives a node."""
    for _ in range(_STARTS):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "cluster_of.py"), *nodes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if line:
            return Here(process=process, **json.loads(line))
        process.wait(60)
    raise AssertionError(f"the cluster did not start in {_STARTS} tries")


def start(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """A command of raydist."""
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
    )


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> list[dict[str, Any]]:
        """stdout, which must be JSON to the last line."""
        return [json.loads(line) for line in self.out.splitlines()]


def end(process: subprocess.Popen[str], seconds: float = LONGEST_S) -> Ended:
    """Wait for a command."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"did not end in {seconds:.0f} s\n{out}\n{err}") from None
    return Ended(code=process.returncode, out=out, err=err)


def run(*arguments: str, cwd: Path | None = None, seconds: float = LONGEST_S, **environment: str) -> Ended:
    """A command of raydist, to its end."""
    return end(start(*arguments, cwd=cwd, **environment), seconds)


def wait_for(true: Callable[[], Any], seconds: float = LONGEST_S) -> Any:
    """Until it is true."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"did not come true in {seconds:.0f} s"
        time.sleep(0.05)
    return found
