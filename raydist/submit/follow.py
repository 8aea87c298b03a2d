"""Following a job: its log as it comes, data on stdout and talk on stderr, and how it ended.

Promises  a connection that breaks is taken up again where it broke; what a job said last is shown whatever happened
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raydist.errors import RaydistError, ResourceError
from raydist.submit.client import errors
from raydist.submit.marks import Told

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

INTERRUPTED = 130
_AWAY_S = 120.0
"""How long a head may be away: one that is restarted comes back."""
_PAUSE_S = 2.0
_SOON_S = 0.2
"""The log ends a little before the job does."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended."""

    code: int
    """That of the verb; 130 where it was stopped, 128 + the signal where it was killed."""
    status: str
    message: str = ""
    """Where the verb itself never ran to its end."""


def follow(client: JobSubmissionClient, address: str, job: str, data: Say, talk: Say) -> Ended:
    """Show the log until the job has ended.

    Args:
        data: gets each line that the verb printed on stdout.
        talk: gets every other line.

    Raises:
        UsageError: there is no such job.
        ResourceError: the cluster is away for longer than a restart takes.
    """
    told, seen, last_s = Told(), 0, time.monotonic()

    def show(text: str) -> None:
        nonlocal seen
        seen += len(text)
        for is_data, line in told.feed(text):
            (data if is_data else talk)(line)

    async def tail() -> None:
        skip = seen
        async for text in client.tail_job_logs(job):
            fresh, skip = text[skip:], max(0, skip - len(text))
            show(fresh)

    while True:
        try:
            with errors(address):
                if client.get_job_info(job).status.is_terminal():
                    break
                asyncio.run(tail())
            last_s = time.monotonic()
            time.sleep(_SOON_S)
        except (ResourceError, OSError) as error:
            if time.monotonic() - last_s > _AWAY_S:
                raise ResourceError(
                    f"{error}; the job {job!r} may go on: `raydist jobs logs {job} --follow --address {address}`"
                ) from error
            time.sleep(_PAUSE_S)
    with errors(address):
        show(client.get_job_logs(job)[seen:])
    for is_data, line in told.rest():
        (data if is_data else talk)(line)
    return ended(client, address, job)


def ended(client: JobSubmissionClient, address: str, job: str) -> Ended:
    """How a job ended that is not running any more."""
    with errors(address):
        info = client.get_job_info(job)
    status, code = str(info.status.value), info.driver_exit_code
    if code is not None:
        return Ended(code=code if code >= 0 else 128 - code, status=status)
    if status == "STOPPED":
        return Ended(code=INTERRUPTED, status=status)
    if status == "SUCCEEDED":
        return Ended(code=0, status=status)
    return Ended(code=RaydistError.exit_code, status=status, message=info.message or "")
