"""loopback: a web server on 127.0.0.1 that misbehaves on demand; also a proxy in front of another server.

`Loopback(files)` serves bytes by path, with ranges, ETag and times like a common web server; `Loopback(upstream=PORT)`
hands requests on. `fail` queues faults, `asked` lists the requests, `sent` counts the bytes of bodies.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_PIECE = 1 << 16
_OWN = ("connection", "transfer-encoding", "expect")
"""Headers that are of one connection."""


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    method: str
    path: str
    """With its query."""
    range: str
    headers: Mapping[str, str]


@dataclass
class Fault:
    """What happens to the next requests.

    `status`; `reset` before an answer; `half` of a body; `stall`; `drip`; `endless`, a body that goes on; `shifted`,
    another range; `unnamed`, a range that does not say which; `gzip`, as the header says.
    """

    kind: str
    times: float
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    where: Callable[[Asked], bool] = lambda asked: True
    body: bytes = b""


class Loopback:
    """The server; a context manager."""

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        upstream: int = 0,
        ranges: bool = True,
        lengths: bool = True,
        etags: bool = True,
        times: bool = True,
        drops: Collection[str] = (),
    ) -> None:
        """
        Args:
            drops: headers, in small letters, that are not handed on to `upstream`.
        """
        self.files = dict(files or {})
        self.modified = dict.fromkeys(self.files, 1_700_000_000.0)
        self.tags = {path: md5(data).hexdigest() for path, data in self.files.items()}
        self.upstream, self.ranges, self.lengths, self.etags, self.times = upstream, ranges, lengths, etags, times
        self.drops = (*_OWN, *drops)
        self.asked: list[Asked] = []
        self.sent = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._faults: list[Fault] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Loopback:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, path: str, data: bytes) -> None:
        """Add or replace a file."""
        self.files[path] = data
        self.tags[path] = md5(data).hexdigest()
        self.modified[path] = self.modified.get(path, 1_700_000_000.0) + 60

    def fail(
        self,
        kind: str,
        times: float = 1,
        *,
        status: int = 503,
        headers: Mapping[str, str] | None = None,
        where: Callable[[Asked], bool] = lambda asked: True,
        body: bytes = b"",
    ) -> None:
        """Let the next `times` requests that match go wrong."""
        self._faults.append(Fault(kind, times, status, headers or {}, where, body))

    def heal(self) -> None:
        """No more faults."""
        self._faults.clear()

    def forget(self) -> None:
        """Start counting anew."""
        self.asked.clear()
        self.sent = 0

    def take(self, asked: Asked) -> Fault | None:
        """The fault of this request, if any."""
        with self.lock:
            self.asked.append(asked)
            for fault in self._faults:
                if fault.times >= 1 and fault.where(asked):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go away in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    loopback: Loopback

    def log_message(self, *args: object) -> None:
        pass

    def answer(self) -> None:
        body = self.body()
        asked = Asked(self.command, self.path, self.headers.get("Range", ""), dict(self.headers.items()))
        fault = self.loopback.take(asked)
        kind = fault.kind if fault else ""
        if kind == "reset":
            self.reset()
        elif kind == "stall":
            self.loopback.closing.wait(60)
            self.close_connection = True
        elif fault and kind == "status":
            self.reply(fault.status, dict(fault.headers), fault.body)
        elif self.loopback.upstream:
            self.hand_on(body, kind)
        else:
            self.reply(*self.local(asked, kind), kind)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            return self.rfile.read(length) if length else b""
        pieces = []
        while length := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(length))
            self.rfile.readline()
        while self.rfile.readline().strip():  # what follows the last piece
            pass
        return b"".join(pieces)

    def reset(self) -> None:
        # Closing with linger 0 sends a reset instead of an end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def hand_on(self, body: bytes, kind: str) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.loopback.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in self.loopback.drops}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        data = answer.read()
        dropped = ("connection", "transfer-encoding", "content-length", "date", "server")
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
        size = answer.getheader("Content-Length")
        upstream.close()
        self.reply(answer.status, kept, data, kind, size=int(size) if self.command == "HEAD" and size else None)

    def local(self, asked: Asked, kind: str) -> tuple[int, dict[str, str], bytes]:
        path = asked.path.partition("?")[0]
        if path not in self.loopback.files:
            return 404, {}, b"no such file"
        data = self.loopback.files[path]
        headers = {"Content-Type": "video/mp4"}
        if kind == "gzip":
            headers["Content-Encoding"] = "gzip"
        if self.loopback.etags:
            headers["ETag"] = f'"{self.loopback.tags[path]}"'
        if self.loopback.times:
            headers["Last-Modified"] = formatdate(self.loopback.modified[path], usegmt=True)
        wanted = self.headers.get("If-Match")
        if wanted and self.loopback.etags and wanted != headers["ETag"]:
            return 412, {}, b""
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.range)
        if not self.loopback.ranges or not found:
            return 200, headers, data
        return _part(data, headers, found[1], found[2], kind)

    def reply(
        self, status: int, headers: dict[str, str], data: bytes, kind: str = "", *, size: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if (self.loopback.lengths or self.loopback.upstream) and kind != "endless":
            self.send_header("Content-Length", str(len(data) if size is None else size))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD" or status == 304:
            return
        try:
            self.send(data[: len(data) // 2] if kind == "half" else data, kind)
        except OSError:
            self.close_connection = True
        if kind == "half":
            self.wfile.flush()
            self.reset()

    def send(self, data: bytes, kind: str) -> None:
        step = 16 if kind == "drip" else _PIECE
        for place in range(0, len(data), step):
            if kind == "drip" and self.loopback.closing.wait(0.1):
                return
            piece = data[place : place + step]
            self.wfile.write(piece)
            self.loopback.sent += len(piece)
        while kind == "endless" and not self.loopback.closing.is_set():
            self.wfile.write(bytes(_PIECE))
            self.loopback.sent += _PIECE


def _part(data: bytes, headers: dict[str, str], first: str, last: str, kind: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request for a range of a file."""
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last) + 1 if first and last else len(data), len(data))
    if start >= len(data):
        return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
    if kind == "shifted":
        by = 1000 if start < 1000 else -1000
        start, end = start + by, min(end + by, len(data))
    headers["Accept-Ranges"] = "bytes"
    if kind != "unnamed":
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return 206, headers, data[start:end]


def _handler(server: Loopback) -> type[BaseHTTPRequestHandler]:
    methods = ("GET", "HEAD", "PUT", "POST", "DELETE")
    return type("Handler", (_Handler,), {"loopback": server, **{f"do_{name}": _Handler.answer for name in methods}})


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Until it holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
