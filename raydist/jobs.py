"""jobs: the jobs of a cluster: listed, followed, stopped.

A job that is stopped commits what is done, and the same command goes on from there.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raydist.errors import ResourceError
from raydist.submit.client import errors
from raydist.submit.package import STOP_S

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_POLL_S = 0.5


def listed(client: JobSubmissionClient, address: str) -> list[dict[str, Any]]:
    """Jobs that were submitted, the newest first: `job, status, exit_code, started, seconds, command`."""
    with errors(address):
        found = [job for job in client.list_jobs() if job.submission_id]
    return [_row(job) for job in sorted(found, key=lambda job: job.start_time or 0, reverse=True)]


def _row(job: Any) -> dict[str, Any]:
    started = job.start_time / 1000 if job.start_time else None
    until = job.end_time / 1000 if job.end_time else time.time()
    return {
        "job": job.submission_id,
        "status": str(job.status.value),
        "exit_code": job.driver_exit_code,
        "started": None if started is None else datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": 0 if started is None else round(until - started),
        "command": job.entrypoint.removeprefix("exec sh raydist_job.sh "),
    }


def stop(client: JobSubmissionClient, address: str, job: str) -> dict[str, Any]:
    """Stop a job and wait until it has committed what is done.

    Returns:
        `job`, `status`, and `stopped`: whether it was running until now.

    Raises:
        UsageError: there is no such job.
        ResourceError: it does not end.
    """
    with errors(address, job):
        stopped = client.stop_job(job)
        deadline = time.monotonic() + STOP_S + 30
        while not (status := client.get_job_status(job)).is_terminal():
            if time.monotonic() > deadline:
                raise ResourceError(f"the job {job!r} did not end in {STOP_S + 30} s: see its page on the dashboard")
            time.sleep(_POLL_S)
    return {"job": job, "status": str(status.value), "stopped": stopped}


def render(rows: list[dict[str, Any]]) -> str:
    """The list in lines for a person."""
    if not rows:
        return "no jobs yet: `raydist submit VERB ...` makes one"
    width = max(len(row["job"]) for row in rows)
    lines = []
    for row in rows:
        code = "" if row["exit_code"] in (None, 0) else f" ({row['exit_code']})"
        state = f"{row['status'].lower()}{code}"
        lines.append(f"{row['job']:<{width}}  {state:<15} {row['seconds']:>7,} s  {row['command']}")
    return "\n".join(lines)
