"""Jobs of Gemini's Batch API: made of a file of requests, found by name, waited for, and their answers read.

Source    ai.google.dev/gemini-api/docs/batch-api: half the price, answers within a day, a file of at most 2 GB
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from raydist.caption.asking import Access, AskError
from raydist.caption.gemini import ask_error, client_of, exceptions
from raydist.caption.patience import Patience

_DONE = {"JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED"}
_ENDED = {"JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}
_CLOCKS_S = 600.0
"""What two clocks may differ by."""
_SHORTEST_S = 2.0

T = TypeVar("T")


class EndedError(Exception):
    """A job that ended without answers."""


class GoneError(Exception):
    """A job, or its answers, that the server does not have, or not any more."""


class Jobs:
    """Jobs of one model. Used by several threads at once."""

    def __init__(self, access: Access, patience: Patience, poll_s: float) -> None:
        """
        Args:
            poll_s: the longest pause between two looks at a job.
        """
        self._access = access
        self._patience = patience
        self._poll_s = poll_s
        self._client = client_of(access)

    def upload(self, path: Path, name: str) -> str:
        """Send a file of requests; its name there.

        Raises:
            AskError: it did not work, after as many tries as are allowed.
        """
        from google.genai import types

        config = types.UploadFileConfig(display_name=name, mime_type="jsonl")
        return str(self._tried(lambda: self._client.files.upload(file=os.fspath(path), config=config)).name)

    def create(self, name: str, file: str, since: float) -> str:
        """Make a job; its name there. A job that was made although the answer got lost is found by its display name.

        Raises:
            AskError: it did not work, after as many tries as are allowed.
        """
        unsure = False

        def make() -> str:
            nonlocal unsure
            if unsure and (made := self.found(name, since)):
                return made
            unsure = True
            job = self._client.batches.create(model=self._access.model, src=file, config={"display_name": name})
            return str(job.name)

        return self._tried(make)

    def found(self, name: str, since: float) -> str:
        """The newest job with a display name that was made after `since`; empty: there is none.

        Raises:
            AskError: the server did not say.
        """
        return self._tried(lambda: self._listed(name, since))

    def _listed(self, name: str, since: float) -> str:
        jobs = [
            job
            for job in self._client.batches.list(config={"page_size": 100})
            if job.display_name == name
            and (job.create_time is None or job.create_time.timestamp() >= since - _CLOCKS_S)
            and str(getattr(job.state, "value", job.state)) not in _ENDED
        ]
        jobs.sort(key=lambda job: job.create_time.timestamp() if job.create_time else 0.0)
        return str(jobs[-1].name) if jobs else ""

    def answers(self, job: str) -> Iterator[dict[str, Any]]:
        """Wait for a job; its answers, a line each: `key`, and `response` or `error`.

        Raises:
            EndedError: it ended without any.
            GoneError: the server does not have it.
            AskError: the server cannot be asked.
        """
        file = self._waited(job)
        with tempfile.TemporaryDirectory(prefix="raydist-") as folder:
            path = os.path.join(folder, "answers.jsonl")
            self._tried(lambda: self._client.files.download(file=file, destination=path), gone=True)
            with open(path, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    found = _parsed(line)
                    if found is not None:
                        yield found

    def delete_file(self, name: str) -> None:
        """Delete uploaded requests, which go by themselves after some days."""
        try:
            self._client.files.delete(name=name)
        except exceptions():
            return

    def _waited(self, name: str) -> str:
        """The file of a job's answers, once it is done."""
        pause_s = min(_SHORTEST_S, self._poll_s)
        while True:
            job = self._tried(lambda: self._client.batches.get(name=name), gone=True)
            state = str(getattr(job.state, "value", job.state))
            if state in _ENDED:
                raise EndedError(f"{name} ended as {state.removeprefix('JOB_STATE_').lower()}")
            if state in _DONE:
                if job.dest is None or not job.dest.file_name:
                    raise GoneError(f"{name} is done and names no file of answers")
                return str(job.dest.file_name)
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, self._poll_s)

    def _tried(self, work: Callable[[], T], gone: bool = False) -> T:
        """What it gives, after as many tries as it takes.

        Args:
            gone: whether a refusal means that there is no such thing.
        """
        caught: tuple[type[Exception], ...] = (*exceptions(), KeyError)
        tried = 0
        while True:
            tried += 1
            try:
                return work()
            except caught as error:
                if gone and getattr(error, "code", None) in (403, 404):
                    failure: Exception = GoneError(str(ask_error(error, self._access)))
                else:
                    failure = _translated(error, self._access)
            if not isinstance(failure, AskError) or not self._patience.again(failure, tried):
                raise failure
            time.sleep(self._patience.pause_s(failure, tried))


def _translated(error: Exception, access: Access) -> AskError:
    if isinstance(error, KeyError):  # the client's own, for an upload without an address
        return AskError("server", f"Gemini ({access.model}) gave no address to upload to")
    return ask_error(error, access)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("key"), str) else None
