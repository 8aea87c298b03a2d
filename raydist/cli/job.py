"""The second step of a job on the cluster: check what every node sees, then run the verb as the command line does.

python -m raydist.cli.job raydist_job.json
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from raydist import cli, runtime
from raydist.errors import RaydistError
from raydist.progress import talk
from raydist.sections import Ray


def main(file: str) -> None:
    """Run the job that `file` describes, in a folder that holds what it names."""
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    os.environ.update(job["environment"])
    from raydist.submit import arrival, marks  # once the environment is as where the job was submitted

    runtime.take_stops()
    try:
        with runtime.session(Ray()):
            arrival.check(job, arrival.places_of(job["archive"], _overrides(job)))
            talk.print("checked: every node sees the archive and what was named")
            with marks.marked():  # within the session, which sends what workers print to stderr
                cli.main(list(job["arguments"]))
    except RaydistError as error:
        talk.print(f"error: {error}", markup=False)
        raise SystemExit(error.exit_code) from None


def _overrides(job: dict[str, Any]) -> dict[str, str]:
    """[roots] of the settings that came with the job."""
    from raydist.config import load

    named = job["arguments"]
    file = named[named.index("--config") + 1] if "--config" in named else None
    return dict(load(file).config.roots)


if __name__ == "__main__":
    main(sys.argv[1])
