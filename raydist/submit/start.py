"""The first step of a job on the cluster: is this a Python, a Ray and a set of packages that raydist runs on?

Reads   raydist_job.json beside it: what the machine has that submitted the job
Writes  nothing; hands over to `raydist.cli.job`, or says what is wrong and ends

It is copied into the job's folder as raydist_start.py and runs before raydist can be imported: it needs nothing but
Python itself, of whatever version Ray runs on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

REFUSED = 1
_ANYWAY = "; --any-version runs it all the same"

VersionOf = Callable[[str], "str | None"]
"""Name of a package -> its version here, None where it is missing."""


def problem(job: dict[str, Any], python: tuple[int, int], version_of: VersionOf) -> str:
    """What is wrong, or an empty text.

    Args:
        job: what the submitting machine has.
        python: major and minor version of this Python.
    """
    here, there, least = (".".join(map(str, version)) for version in (python, job["python"], job["least_python"]))
    if python < tuple(job["least_python"]):
        return f"the cluster runs Python {here}; raydist needs {least} or newer there: use another image"
    if here != there and not job["any_version"]:
        return f"the cluster runs Python {here}, this machine {there}: expected the same{_ANYWAY}"
    ray = version_of("ray")
    if ray != job["ray"] and not job["any_version"]:
        return f"the cluster runs Ray {ray}, this machine {job['ray']}: expected the same{_ANYWAY}"
    return _packages(job, version_of)


def _packages(job: dict[str, Any], version_of: VersionOf) -> str:
    if not job["packaged"]:
        found = version_of("raydist")
        if found is None:
            return f"the cluster has no raydist: leave out --installed, or install raydist {job['raydist']} there"
        if found != job["raydist"] and not job["any_version"]:
            return (
                f"the cluster has raydist {found}, this machine {job['raydist']}: leave out --installed, which brings "
                f"this machine's{_ANYWAY}"
            )
        return ""
    lacking = [each for each in job["requires"] if not _fits(each, version_of)]
    if lacking:
        return (
            f"the cluster's Python lacks {', '.join(lacking)}: use an image that has what raydist needs "
            "(cluster/README.md), or install it on all nodes"
        )
    return ""


def _fits(wanted: str, version_of: VersionOf) -> bool:
    """Whether `name>=1,<2` is here."""
    from packaging.requirements import Requirement  # Ray needs it, so it is here once Ray is

    requirement = Requirement(wanted)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    found = version_of(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _version_of(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Check, then become the job."""
    with open("raydist_job.json", encoding="utf-8") as file:
        wrong = problem(json.load(file), sys.version_info[:2], _version_of)
    if wrong:
        sys.stderr.write(f"error: {wrong}\n")
        sys.exit(REFUSED)
    os.execv(sys.executable, [sys.executable, "-m", "raydist.cli.job", "raydist_job.json"])


if __name__ == "__main__":
    main()
