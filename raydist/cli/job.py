"""The second step of a job on the cluster: check what every node sees, then run the verb as the command line does.

python -m raydist.cli.job raydist_job.json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raydist import cli, runtime
from raydist.progress import talk
from raydist.sections import Ray


def main(file: str) -> None:
    """Run the job that `file` describes, in a folder that holds what it names."""
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    os.environ.update(job["environment"])
    from raydist.submit import arrival, marks  # once the environment is as where the job was submitted

    runtime.take_stops()

    def checked_and_run() -> None:
        with runtime.session(Ray()) as resources:
            unseen = resources.nodes == 1 and (resources.grows or _is_told_to_grow(job["arguments"]))
            arrival.check(job, arrival.places_of(job["archive"], _overrides(job)), unseen=unseen)
            talk.print("checked: every node sees the archive and what was named")
            with marks.marked():  # within the session, which sends what workers print to stderr
                cli.main(list(job["arguments"]))

    cli.told(checked_and_run)


def _overrides(job: dict[str, Any]) -> dict[str, str]:
    """Roots that `--set roots.NAME=FOLDER` places; those of a file stay where they were."""
    changes = [word.removeprefix("--set=") for word in job["arguments"] if word.startswith("--set=roots.")]
    parted = [change.partition("=") for change in changes]
    return {name.strip().removeprefix("roots."): place.strip() for name, _, place in parted}


def _is_told_to_grow(arguments: Sequence[str]) -> bool:
    """Whether the settings say that nodes come: `ray.max_cpus`, `ray.max_gpus`."""
    named = any(os.environ.get(f"RAYDIST_RAY_MAX_{kind}", "0") not in ("", "0") for kind in ("CPUS", "GPUS"))
    return named or any(word.removeprefix("--set=").startswith("ray.max_") for word in arguments)


if __name__ == "__main__":
    main(sys.argv[1])
