"""Under what conditions a benchmark ran: what its figures must name."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def for_faiss() -> dict[str, str]:
    """Environment of a process that uses faiss: its wheel's OpenBLAS does not know every processor, and where there is
    AVX-512 it must be told, or it takes four times as long."""
    return {"OPENBLAS_CORETYPE": "SkylakeX"} if "avx512f" in _cpu_info() else {}


def cpu_name() -> str:
    """As the system calls it."""
    lines = _cpu_info().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_info() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


def commit() -> str:
    """Of this checkout, short."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
