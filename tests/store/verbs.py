"""verbs: commands of raydist one after the other on one Ray instance, in a process of its own.

    python tests/store/verbs.py FOLDER '[["scan", ...], ...]'      # prints a JSON line a command

FOLDER is Ray's, with all logs; its name must be short. A bucket's credentials are the environment's, also for Ray's
workers: the instance that tests share has other ones.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from contextlib import redirect_stdout

for name, value in {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_worker_register_timeout_seconds": "300",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(name, value)  # Ray reads its own when it is imported

import ray  # noqa: E402

from raydist.cli import main  # noqa: E402


def start(folder: str) -> None:
    """Start Ray; a busy machine may need longer than Ray waits for its own processes."""
    for left in (2, 1, 0):
        try:
            ray.init(address="local", num_cpus=4, include_dashboard=False, _temp_dir=folder, logging_level="error")
        except Exception:
            ray.shutdown()
            if not left:
                raise
        else:
            return


def run(folder: str, commands: list[list[str]]) -> None:
    """Run them all; the rest too where one fails."""
    start(folder)
    try:
        for command in commands:
            began, code, out = time.monotonic(), 0, io.StringIO()
            try:
                with redirect_stdout(out):
                    main(command)
            except SystemExit as end:
                code = int(end.code or 0)
            seconds = time.monotonic() - began
            line = {"verb": command[0], "code": code, "out": out.getvalue(), "seconds": round(seconds, 1)}
            print(json.dumps(line), flush=True)  # noqa: T201  # what the test reads
    finally:
        ray.shutdown()


if __name__ == "__main__":
    run(sys.argv[1], json.loads(sys.argv[2]))
