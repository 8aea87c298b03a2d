"""Following a job: its log as it comes, data on stdout and talk on stderr, and how it ended.

Promises  a connection that breaks or falls silent is taken up again where it broke; a job that has ended gives its exit
          code whatever becomes of its log
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raydist.errors import INTERRUPTED, RaydistError, ResourceError
from raydist.submit.client import UnknownJobError, errors
from raydist.submit.marks import Told

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_AWAY_S = 120.0
"""How long a head may be away: one that is restarted comes back."""
_PAUSE_S = 2.0
_SOON_S = 0.2
"""The log ends a little before the job does."""
_REST_S = 30.0
"""How long the end of a log is tried for, once the job has ended."""
_SILENT_S = 60.0
"""A connection that says nothing for so long may be dead: a job tells its progress more often."""

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
        ResourceError: the cluster is away for longer than a restart takes, or was restarted and forgot the job.
    """
    log = _Log(client, address, job, data, talk)
    known, away_since = False, 0.0
    while True:
        try:
            with errors(address, job):
                info = client.get_job_info(job)
            known, away_since = True, 0.0
            if info.status.is_terminal():
                break
            log.show()
        except UnknownJobError as error:
            if not known:
                raise
            raise ResourceError(
                f"the head at {address} was restarted and does not know the job {job!r} any more: what was committed "
                "is kept, and the same command, submitted again, goes on from there"
            ) from error
        except (ResourceError, OSError) as error:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > _AWAY_S:
                raise ResourceError(
                    f"{error}; the job {job!r} may go on: `raydist jobs logs {job} --follow --address {address}`"
                ) from error
            time.sleep(_PAUSE_S)
    log.end()
    return ended(info)


def ended(info: JobDetails) -> Ended:
    """How a job ended that is not running any more."""
    status, code = str(info.status.value), info.driver_exit_code
    if code is not None:
        return Ended(code=code if code >= 0 else 128 - code, status=status)
    if status == "STOPPED":
        return Ended(code=INTERRUPTED, status=status)
    if status == "SUCCEEDED":
        return Ended(code=0, status=status)
    return Ended(code=RaydistError.exit_code, status=status, message=info.message or "")


class _Log:
    """What a job says, each line once."""

    def __init__(self, client: JobSubmissionClient, address: str, job: str, data: Say, talk: Say) -> None:
        self._client, self._address, self._job = client, address, job
        self._data, self._talk = data, talk
        self._told, self._seen = Told(), 0

    def show(self) -> None:
        """As it comes, until the connection ends; where there is none to be had, what there is by now."""
        try:
            with errors(self._address, self._job):
                asyncio.run(self._tail())
            time.sleep(_SOON_S)
        except (ResourceError, OSError):  # silence too
            self._show_rest()
            time.sleep(_PAUSE_S)

    def end(self) -> None:
        """The rest, as far as it can be had."""
        tries_until = time.monotonic() + _REST_S
        while True:
            try:
                self._show_rest()
                break
            except (RaydistError, OSError) as error:
                if time.monotonic() > tries_until:
                    self._talk(f"the end of the log cannot be read: {error}")
                    break
                time.sleep(_PAUSE_S)
        self._say(self._told.rest())

    async def _tail(self) -> None:
        skip, pieces = self._seen, self._client.tail_job_logs(self._job)
        with suppress(StopAsyncIteration):
            while True:
                text = await asyncio.wait_for(anext(pieces), _SILENT_S)
                fresh, skip = text[skip:], max(0, skip - len(text))
                self._add(fresh)

    def _show_rest(self) -> None:
        with errors(self._address, self._job):
            text = self._client.get_job_logs(self._job)
        self._add(text[self._seen :])

    def _add(self, text: str) -> None:
        self._seen += len(text)
        self._say(self._told.feed(text))

    def _say(self, lines: Iterable[tuple[bool, str]]) -> None:
        for is_data, line in lines:
            (self._data if is_data else self._talk)(line)
