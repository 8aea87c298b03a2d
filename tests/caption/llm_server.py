"""llm_server: providers of captions on loopback, for the real client libraries: Gemini's and OpenAI's wire formats.

Counts    every request that arrives, when, with which key and media, how it was answered and what it cost (`llm_wire`
          says how tokens are counted); a lock around all of it, so the counts are right under any number of clients
Faults    by probability, decided by seed, content and attempt, so the same run has the same faults however its threads
          fall; or by `plan`, a list of faults for the next requests in the order of their arrival
Speaks    `caption_of` the media, so that a test can tell whose caption it has; or what `speak` says

    with LLMServer(faults={"rate": 0.05, "server": 0.05}) as server:
        client = genai.Client(api_key="k", http_options={"base_url": server.url})
        client = openai.OpenAI(api_key="k", base_url=server.url + "/v1")
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import select
import socket
import struct
import sys
import threading
import time
import traceback
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import gemini_wire
import llm_faults
import openai_wire
from gemini_jobs import Jobs
from llm_faults import FAULTS
from llm_wire import BadRequestError, Received, Reply, caption_of

__all__ = ["FAULTS", "LLMServer", "Received", "caption_of"]


class LLMServer:
    """A context manager: the server runs inside of it."""

    def __init__(
        self,
        *,
        faults: Mapping[str, float] = {},
        seed: int = 0,
        latency_s: float = 0.0,
        retry_after_s: float = 1.0,
        retry_after: str = "seconds",
        speak: Callable[[Received], Sequence[str]] | None = None,
        requests_per_window: int | None = None,
        window_s: float = 60.0,
        slow_s: float = 1.0,
        keys: Collection[str] | None = None,
        echo: bool = False,
        models: Collection[str] | None = None,
        thinking: str = "",
        thoughts: int = 0,
        formats: bool = True,
        batch_s: float = 0.0,
    ) -> None:
        """
        Args:
            faults: a name of FAULTS -> its probability, 1 together at most.
            retry_after: how the client is told when to come again: `seconds` or `date` in the header, `body` (Gemini's
                RetryInfo alone), or empty: not at all.
            requests_per_window: more arrivals than that in `window_s` get 429.
            keys: those that are right; None: any, and none.
            echo: every error repeats the client's key, in its body and in a header.
            models: those that there are; None: any.
            thinking: what a model says to a budget of thoughts: empty, fine; `always`, it cannot be 0; `never`, there
                is no such thing.
            thoughts: tokens of thoughts that are counted for each answer of Gemini.
            formats: whether OpenAI's `response_format` is known.
            batch_s: seconds until a job of Gemini's batch API is done.
        """
        if unknown := set(faults) - set(FAULTS):
            raise ValueError(f"faults {sorted(unknown)}: expected some of {sorted(FAULTS)}")
        if sum(faults.values()) > 1 + 1e-9:
            raise ValueError(f"faults {dict(faults)}: more than 1 together")
        self.faults, self.seed, self.latency_s, self.slow_s = dict(faults), seed, latency_s, slow_s
        self.retry_after_s, self.retry_after = retry_after_s, retry_after
        self.requests_per_window, self.window_s = requests_per_window, window_s
        self.keys, self.echo, self.models = keys, echo, models
        self.thinking, self.thoughts, self.formats = thinking, thoughts, formats
        self._speak = speak
        self._lock = threading.Lock()
        self._attempts: Counter[str] = Counter()
        self._long: dict[str, str] = {}
        self._accepted: deque[float] = deque()
        self.received: list[Received] = []
        self.calls: list[tuple[str, str, int]] = []
        """All other requests, such as those of files and jobs: method, path, status."""
        self.plan: deque[str] = deque()
        """Faults of the next requests; `ok` for none. When it is empty, `faults` decides."""
        self.jobs = Jobs(self, batch_s)
        self.ended = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _Server(("127.0.0.1", 0), handler)
        self._http.failures = []
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()
        assert not self._http.failures, "\n".join(self._http.failures)

    @property
    def billed(self) -> tuple[int, int]:
        """Tokens in and out of all requests that were answered 200; jobs of the batch API apart (`jobs.billed`)."""
        with self._lock:
            paid = [received for received in self.received if received.status == 200]
        return sum(received.tokens_in for received in paid), sum(received.tokens_out for received in paid)

    def most_in(self, seconds: float) -> int:
        """The most requests, whatever their status, that arrived in any window of that length."""
        with self._lock:
            times = sorted(received.at for received in self.received)
        return max((bisect_right(times, time) - bisect_right(times, time - seconds) for time in times), default=0)

    def counts(self) -> dict[str, int]:
        """Requests by fault; `ok`: those without one."""
        with self._lock:
            return dict(Counter(received.fault or "ok" for received in self.received))

    def captions(self, received: Received) -> list[str]:
        """What is said when nothing goes wrong."""
        if self._speak is not None:
            return list(self._speak(received))
        return [caption_of(received.images, received.video, number) for number in range(received.expected)]

    def arrive(self, received: Received) -> str:
        """Count a request in and decide its fault."""
        with self._lock:
            content = received.content
            self._attempts[content] += 1
            received.attempt = self._attempts[content]
            fault = self.plan.popleft() if self.plan else self.drawn(content, received.attempt)
            if self.requests_per_window is not None:
                while self._accepted and self._accepted[0] <= received.at - self.window_s:
                    self._accepted.popleft()
                if len(self._accepted) >= self.requests_per_window:
                    fault = "rate"
                else:
                    self._accepted.append(received.at)
            if fault == "long" and self._long.setdefault(received.media, received.words) != received.words:
                fault = ""
            received.fault = "" if fault == "ok" else fault
            self.received.append(received)
            return received.fault

    def drawn(self, content: str, attempt: int) -> str:
        """The fault of the n-th request with this content."""
        digest = hashlib.sha256(f"{self.seed}/{content}/{attempt}".encode()).digest()
        draw = int.from_bytes(digest[:8], "big") / 2**64
        for name in sorted(self.faults):
            draw -= self.faults[name]
            if draw < 0:
                return name
        return ""

    def reply(self, received: Received, fault: str) -> Reply:
        """What is answered."""
        manner = {"slow": "slow", "timeout": "hang", "reset": "reset", "cut": "cut"}.get(fault, "")
        if manner in ("hang", "reset"):
            return Reply(status=0, manner=manner)
        if fault == "garbage":  # of something in between, not of the provider: nothing is billed
            received.tokens_in = 0
            return Reply(status=200, body=b"<html>All is well</html>")
        if fault == "redirect":
            return Reply(status=307, headers={"Location": f"{self.url}/elsewhere"})
        if fault == "gateway":
            return Reply(status=502, body=b"<html><body>502 Bad Gateway</body></html>")
        wire = llm_faults.gemini if received.api == "gemini" else llm_faults.openai
        found = wire(self, received, fault)
        found.manner = manner
        return found

    def unfit(self, received: Received) -> Reply | None:
        """What real servers refuse, some models more than others."""
        if received.api == "openai":
            if not self.formats and "response_format" in received.body:
                return openai_wire.error(400, "'response_format' is not supported by this server.")
            return None
        thinking = received.body.get("generationConfig", {}).get("thinkingConfig")
        if self.thinking == "never" and thinking is not None:
            return gemini_wire.error(400, "Thinking is not supported by this model.")
        if self.thinking == "always" and (thinking or {}).get("thinkingBudget") == 0:
            return gemini_wire.error(400, "Budget 0 is invalid. This model only works in thinking mode.")
        return None

    def again(self) -> dict[str, str]:
        """The header that says when to come again."""
        if self.retry_after == "seconds":
            return {"Retry-After": f"{self.retry_after_s:g}"}
        if self.retry_after == "date":
            return {"Retry-After": formatdate(time.time() + self.retry_after_s, usegmt=True)}
        return {}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    failures: list[str]

    def handle_error(self, *_: object) -> None:
        """Keep what is wrong with this server; clients that hang up are part of the tests."""
        if not isinstance(sys.exception(), OSError):
            self.failures.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    owner: LLMServer

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        arrived = time.monotonic()
        data = self._body()
        gemini = "x-goog-api-key" in self.headers or self.path.startswith(("/v1beta/", "/upload/"))
        # Both of Gemini's versions are served alike; the client says v1 unless it is told otherwise.
        url = urlsplit(re.sub("^(/upload)?/v1/", r"\1/v1beta/", self.path) if gemini else self.path)
        key = self.headers.get("x-goog-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        asks = url.path.endswith((":generateContent", "/chat/completions"))
        received = None
        try:
            refused = self._refused(gemini, key, url.path)
            if refused is not None:
                reply = refused
            elif asks:
                received, reply = self._asked(arrived, gemini, key, url.path, json.loads(data))
            else:
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                reply = self.owner.jobs.other(method, url.path, query, self.headers, data)
        except BadRequestError as bad:
            reply = (gemini_wire if gemini else openai_wire).error(bad.status, str(bad))
        if received is None:
            self.owner.calls.append((method, url.path, reply.status))
        if self.owner.echo and reply.status >= 400:
            reply = Reply(status=reply.status, body=_with_key(reply.body, key), headers={**reply.headers, "X-Key": key})
        if self.owner.latency_s and asks:
            self.owner.ended.wait(self.owner.latency_s)
        self._send(reply)

    def _asked(self, at: float, gemini: bool, key: str, path: str, body: dict[str, Any]) -> tuple[Received, Reply]:
        if gemini:
            body = gemini_wire.camel(body)
            fields = gemini_wire.read(path.removeprefix("/v1beta/models/").removesuffix(":generateContent"), body)
        else:
            fields = openai_wire.read(body)
        if self.owner.models is not None and fields["model"] not in self.owner.models:
            raise BadRequestError(f"models/{fields['model']} is not found for API version v1beta.", 404)
        api = "gemini" if gemini else "openai"
        received = Received(at=at, api=api, key=key, body=body, connection=self.client_address, **fields)
        fault = self.owner.arrive(received)
        reply = self.owner.unfit(received) or self.owner.reply(received, fault)
        received.status = reply.status
        return received, reply

    def _refused(self, gemini: bool, key: str, path: str) -> Reply | None:
        if self.owner.keys is None or key in self.owner.keys or "upload_id=" in self.path:
            return None
        return gemini_wire.bad_key() if gemini else openai_wire.bad_key(key)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            size = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(size)
            if len(data) < size:
                raise ConnectionResetError("the client was killed in the middle of its request")
            return data
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, reply: Reply) -> None:
        if reply.manner == "hang":
            self._wait_for_the_end()
        if reply.manner in ("hang", "reset"):
            self.close_connection = True
            if reply.manner == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        headers = {"Content-Type": "application/json; charset=UTF-8", **reply.headers, "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            if reply.manner == "cut":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif reply.manner == "slow":
                self._dribble(body)
            else:
                self.wfile.write(body)

    def _dribble(self, body: bytes) -> None:
        pieces = max(1, min(len(body), round(self.owner.slow_s / 0.05)))
        size = -(-len(body) // pieces)
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            self.wfile.flush()
            if self.owner.ended.wait(self.owner.slow_s / pieces):
                return

    def _wait_for_the_end(self) -> None:
        while not self.owner.ended.wait(0.02):
            if select.select([self.connection], [], [], 0)[0]:
                return  # the client hung up: it has nothing more to say


def _with_key(body: Mapping[str, Any] | bytes, key: str) -> bytes:
    """An error that repeats the key wherever it may."""
    if isinstance(body, bytes):
        return body + f"<p>{key}</p>".encode()
    said = json.loads(json.dumps(body))
    said["error"]["message"] = f"{said['error']['message']} (key {key})"
    return json.dumps(said).encode()
