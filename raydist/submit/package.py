"""What travels to the cluster: raydist itself, the settings and lists that were named, the job's first step.

Writes  one folder, which no two jobs share: Ray deletes a package when the last job ends that uses it, and another job
        that has just been told that it is there would start without
Never   videos, frames, credentials
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import raydist
from raydist.errors import UsageError
from raydist.submit.order import Order

LIMIT_BYTES = 100 << 20
"""Ray refuses larger packages."""
STOP_S = 120
"""Seconds that a stopped job has to commit what is done; Ray's own 3 are few for a store far away."""

_HERE = Path(__file__).parent


def environment_of(order: Order, job: str, folder: Path) -> dict[str, Any]:
    """The runtime environment of the job of that id, its files laid out in `folder`.

    Raises:
        UsageError: the files are more than Ray takes.
    """
    _refuse_large(order)
    (folder / "raydist_job.json").write_text(json.dumps({"job": job, **order.document()}, indent=1), encoding="utf-8")
    shutil.copy(_HERE / "start.sh", folder / "raydist_job.sh")
    shutil.copy(_HERE / "start.py", folder / "raydist_start.py")
    for name, file in order.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    for name, text in order.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    if not order.installed:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(Path(raydist.__file__).parent, folder / "raydist", ignore=ignored)
    return {"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}}


def entrypoint(order: Order) -> str:
    """The command of the job, as lists of jobs show it. `exec`: the shell's end would hide the verb's."""
    return f"exec sh raydist_job.sh {shlex.join(order.arguments)}"


def _refuse_large(order: Order) -> None:
    sizes = {file: Path(file).stat().st_size for file in order.files.values()}
    if sum(sizes.values()) < LIMIT_BYTES:
        return
    largest = max(sizes, key=lambda file: sizes[file])
    raise UsageError(
        f"the files to send have {sum(sizes.values()) / 1e6:,.0f} MB, {sizes[largest] / 1e6:,.0f} of it {largest!r}: "
        f"Ray takes less than {LIMIT_BYTES >> 20} MiB with a job. Put it where the cluster reads it (its path or "
        "s3:// address there), and name that"
    )
