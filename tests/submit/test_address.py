"""Where a job server is, and what somebody is told who names another place."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pytest

from raydist import jobs
from raydist.errors import ResourceError, UsageError
from raydist.submit import client


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in client.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def served(status: int, body: bytes, token: str = "") -> Iterator[str]:
    """A web server that always gives that answer, to who has the token where there is one."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = not token or token in str(dict(self.headers))
            self.send_response(status if wanted else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            time.sleep(1.0)  # and hangs up without an answer

        do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://other:8265")
    assert client.address_of("head:8265/") == "http://head:8265"
    assert client.address_of(None) == "http://other:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://jobs.example")
    assert client.address_of(None) == "https://jobs.example"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "no cluster was named.*http://head:8265"),
        ("ray://head:10001", "Ray's client.*probably http://head:8265"),
        ("head:10001", "Ray's client port.*probably http://head:8265"),
        ("head:6379", "control store.*probably http://head:8265"),
        ("ftp://head", "expected the address"),
        ("http://head:none", "no address"),
        ("auto", "expected the address"),
    ],
)
def test_another_address_than_a_job_servers_is_refused_with_the_likely_one(given: str | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        client.address_of(given)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(UsageError) as refused:
        client.address_of("http://me:hunter2@head:8265")
    assert "hunter2" not in str(refused.value)


def test_a_dead_address_is_told_soon() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"nobody answers at .*port-forward"):
        client.connect(f"http://127.0.0.1:{port}")
    assert time.monotonic() - began < 60


def test_a_server_that_never_answers_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ANSWERS_S", 0.5)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(ResourceError, match="nobody answers at"):
            client.connect(f"http://127.0.0.1:{deaf.getsockname()[1]}")


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>a shop</html>"), (404, b"no"), (200, b"[]")])
def test_another_server_is_told_from_a_job_server(status: int, body: bytes) -> None:
    with served(status, body) as place, pytest.raises(ResourceError, match="no job server of Ray"):
        client.connect(place)


def test_a_server_of_another_protocol_is_told_from_a_job_server() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def hang_up() -> None:
            connection, _ = other.accept()
            connection.recv(100)
            connection.sendall(b"\x00\x00\x06\x04\x00\x00")
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(ResourceError, match="another protocol"):
            client.connect(f"http://127.0.0.1:{other.getsockname()[1]}")


def test_what_is_sent_to_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(200, json.dumps({"ray_version": version("ray"), "version": "4"}).encode()) as address:
        sender = client.connect(address)
        monkeypatch.setattr(client, "_READS_S", 0.2)
        monkeypatch.setattr(client, "_UPLOADS_S", 0.2)
        with pytest.raises(ResourceError, match=r"does not answer any more .*timed out"):
            jobs.stop(sender, address, "a-job")
        with pytest.raises(ResourceError, match=r"does not answer any more .*timed out"), client.errors(address):
            sender._do_request("PUT", "/api/packages/gcs/some.zip", data=b"some")


def test_another_version_of_ray_is_refused_unless_it_is_wanted() -> None:
    answer = json.dumps({"version": "4", "ray_version": "2.1.0", "ray_commit": "", "session_name": ""}).encode()
    with served(200, answer) as place:
        with pytest.raises(ResourceError, match=r"runs Ray 2\.1\.0, this machine .*--any-version"):
            client.connect(place, any_version=False)
        client.connect(place, any_version=True)


def test_another_version_is_refused_at_once_where_a_token_is_wanted_first() -> None:
    answer = json.dumps({"version": "4", "ray_version": "2.1.0", "ray_commit": "", "session_name": ""}).encode()
    code = "import sys; from raydist.submit import client; client.connect(sys.argv[1], any_version=False)"
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32}
    with served(200, answer, "t" * 32) as place:
        words = [sys.executable, "-c", code, place]  # of its own: Ray reads the token once
        ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert "ResourceError" in ended.stderr
    assert "runs Ray 2.1.0, this machine" in ended.stderr


@pytest.mark.parametrize(
    ("text", "job", "raised"),
    [
        ("Request failed with status code 404: Job a-job does not exist.", "a-job", client.UnknownJobError),
        ("Request failed with status code 404: Job a-job does not exist.", "", ResourceError),
        ("Request failed with status code 500: the package gcs://x.zip does not exist.", "a-job", ResourceError),
        ("the path /no does not exist", "", ResourceError),
    ],
)
def test_only_a_job_that_was_asked_for_can_be_unknown(text: str, job: str, raised: type[Exception]) -> None:
    with pytest.raises(raised), client.errors("http://head:8265", job):
        raise RuntimeError(text)
