"""Following a job whose server goes away, falls silent, forgets, or cannot be reached by web sockets.

The server is one of our own that says what Ray's says, as far as following asks; the client is Ray's.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import ray
from aiohttp import WSMsgType, web

from raydist.errors import ResourceError, UsageError
from raydist.submit import client, follow
from raydist.submit.marks import MARK

pytestmark = pytest.mark.timeout(60)
LOG = f"one\n{MARK}two\nthree\n"


@dataclass
class Head:
    """A job server: each answer is given once, the last for ever."""

    status: list[Any] = field(default_factory=lambda: ["RUNNING", "SUCCEEDED"])
    """Of the job; a number is an error of HTTP; never: no answer."""
    tail: list[str] = field(default_factory=lambda: ["whole"])
    """whole, half (then closed), reset (after half), silent (after half), 404, 502."""
    logs: list[Any] = field(default_factory=lambda: [LOG])
    code: int | None = 0
    message: str = ""
    asked: int = 0
    url: str = ""

    @staticmethod
    def _next(answers: list[Any]) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": ""})

    async def info(self, _: web.Request) -> web.Response:
        self.asked += 1
        status = self._next(self.status)
        if status == "never":
            await asyncio.sleep(60)
        if isinstance(status, int):
            return web.Response(status=status, text="Job a-job does not exist")
        done = status not in ("RUNNING", "PENDING")
        told = {"type": "SUBMISSION", "submission_id": "a-job", "status": status, "entrypoint": "x"}
        return web.json_response({**told, "driver_exit_code": self.code if done else None, "message": self.message})

    async def whole_log(self, _: web.Request) -> web.Response:
        logs = self._next(self.logs)
        return web.Response(status=logs) if isinstance(logs, int) else web.json_response({"logs": logs})

    async def tailed(self, request: web.Request) -> web.StreamResponse:
        how = self._next(self.tail)
        if how.isdigit():
            return web.Response(status=int(how))
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        await answer.send_str(LOG if how == "whole" else LOG[:7])
        if how == "silent":
            while (await answer.receive()).type is not WSMsgType.CLOSED:
                pass
        if how == "reset":
            assert request.transport is not None
            request.transport.abort()
        return answer


@contextlib.contextmanager
def served(head: Head) -> Iterator[Head]:
    """The server, in a thread."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_get("/api/version", head.version)
    app.router.add_get("/api/jobs/a-job", head.info)
    app.router.add_get("/api/jobs/a-job/logs", head.whole_log)
    app.router.add_get("/api/jobs/a-job/logs/tail", head.tailed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def begin() -> str:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    head.url = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield head
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_AWAY_S": 1.0, "_PAUSE_S": 0.05, "_SOON_S": 0.05, "_SILENT_S": 0.3, "_REST_S": 0.3}.items():
        monkeypatch.setattr(follow, name, seconds)


@dataclass
class Seen:
    """What who follows has seen."""

    ended: follow.Ended | None = None
    data: list[str] = field(default_factory=list)
    talk: list[str] = field(default_factory=list)


def followed(head: Head) -> Seen:
    """The job to its end."""
    seen = Seen()
    with served(head):
        asker = client.connect(head.url)
        seen.ended = follow.follow(asker, head.url, "a-job", seen.data.append, seen.talk.append)
    return seen


WHOLE = (["two"], ["one", "three"])


@pytest.mark.parametrize(
    "tail", [["whole"], ["half", "whole"], ["reset", "whole"], ["silent"], ["404"], ["502"], ["reset"], ["half"]]
)
def test_a_log_is_shown_once_however_its_connection_ends(tail: list[str]) -> None:
    seen = followed(Head(tail=tail, status=[*["RUNNING"] * 4, "SUCCEEDED"]))
    assert (seen.data, seen.talk) == WHOLE
    assert seen.ended == follow.Ended(code=0, status="SUCCEEDED")


def test_a_head_that_cannot_answer_for_a_while_is_waited_for() -> None:
    seen = followed(Head(status=["RUNNING", 502, 502, 503, "RUNNING", "FAILED"], tail=["half"], code=3))
    assert (seen.data, seen.talk) == WHOLE
    assert seen.ended == follow.Ended(code=3, status="FAILED")


def test_each_time_that_a_head_is_away_counts_anew() -> None:
    began = time.monotonic()
    seen = followed(Head(status=[*["RUNNING", *[502] * 4] * 6, "SUCCEEDED"], tail=["reset"]))
    assert seen.ended == follow.Ended(code=0, status="SUCCEEDED")
    assert time.monotonic() - began > follow._AWAY_S  # all together; each was shorter


def test_a_head_that_stays_away_is_told_with_how_to_go_on() -> None:
    with pytest.raises(ResourceError, match=r"the job 'a-job' may go on: `raydist jobs logs a-job --follow"):
        followed(Head(status=["RUNNING", 502], tail=["half"]))


def test_a_head_that_was_restarted_and_forgot_the_job_is_told() -> None:
    with pytest.raises(ResourceError, match="was restarted and does not know the job 'a-job' any more") as told:
        followed(Head(status=["RUNNING", 404]))
    assert told.value.exit_code == 1


def test_a_job_that_never_was_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="knows no job 'a-job'"):
        followed(Head(status=[404]))


@pytest.mark.parametrize("logs", [500, 404])
def test_a_job_that_ended_gives_its_code_also_without_its_log(logs: int) -> None:
    seen = followed(Head(status=["RUNNING", "SUCCEEDED"], tail=["half"], logs=[logs]))
    assert seen.ended == follow.Ended(code=0, status="SUCCEEDED")
    assert seen.talk[0] == "one"
    assert any("the end of the log cannot be read" in line for line in seen.talk)


def test_an_error_at_the_end_is_tried_again() -> None:
    seen = followed(Head(status=["SUCCEEDED"], logs=[500, LOG]))
    assert (seen.data, seen.talk) == WHOLE


def test_an_answer_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_READS_S", 0.2)
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"does not answer any more.*may go on"):
        followed(Head(status=["RUNNING", "never"], tail=["half"]))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("status", "code", "message", "ended"),
    [
        ("STOPPED", None, "", follow.Ended(code=130, status="STOPPED")),
        ("FAILED", -9, "", follow.Ended(code=137, status="FAILED")),
        ("FAILED", None, "no agent", follow.Ended(code=1, status="FAILED", message="no agent")),
        ("SUCCEEDED", None, "", follow.Ended(code=0, status="SUCCEEDED")),
    ],
)
def test_how_a_job_ended_is_an_exit_code(status: str, code: int | None, message: str, ended: follow.Ended) -> None:
    assert followed(Head(status=[status], code=code, message=message)).ended == ended
