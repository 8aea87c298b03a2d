"""submit: a verb as a job on a Ray cluster.

Reads   the verb's arguments and settings; the files of settings and lists that they name
Sends   raydist, those files, and no more: never videos, never credentials
Again   a job that died is submitted anew with the same words: what is done in the archive is not done again
"""

from __future__ import annotations

import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from raydist.submit.order import Order

_READY_S, _PAUSE_S = 60.0, 2.0
_NOT_READY = "No available agent"
"""Ray says so for some seconds after a head's start, and asks to try again."""


def send(client: JobSubmissionClient, address: str, order: Order) -> str:
    """Submit the order and return the job's id.

    Raises:
        UsageError: the files are more than Ray takes.
        ResourceError: the job server refuses.
    """
    from raydist.submit.client import errors
    from raydist.submit.package import entrypoint, environment_of

    job = f"{order.verb}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    with tempfile.TemporaryDirectory(prefix="raydist-job-") as folder, errors(address):
        environment = environment_of(order, job, Path(folder))
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                return client.submit_job(
                    entrypoint=entrypoint(order),
                    submission_id=job,
                    runtime_env=environment,
                    metadata={"raydist": order.verb, "archive": order.archive},
                )
            except RuntimeError as error:
                if _NOT_READY not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)


def page(address: str, job: str) -> str:
    """The job's page on the dashboard."""
    return f"{address}/#/jobs/{job}"
