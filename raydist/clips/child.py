"""child: decoding in a process that may hang, crash or be killed without taking anything with it.

`Child` is the parent's side; `python -m raydist.clips.child` is the process. It is started by `subprocess`, loads
neither Ray nor torch, and stays for many files.

Promises  every span gives exactly one result, in order. A limit that ends the process costs the span it happened
          in, and a new process goes on with the next; after a crash or a kill a new process tries the span again, for
          not every signal is the file's fault. After `DEATHS` in one call the rest of that call's spans fails alike;
          crashes and kills are counted over calls too, probes included: a file that `DEATHS` of them befell fails at
          once in every later call. A `Child` remembers that, so it holds in one worker process of a run, for the
          `KILLERS` files that killed last; the next worker and the next run begin with none.
Limits    CPU seconds a span (RLIMIT_CPU, which ends even a loop in C); wall-clock time at five times that, watched by
          the parent; address space beyond what the process has at its start (RLIMIT_AS).
Frames    come over an anonymous file (memfd; on macOS an unlinked temporary file), which nothing can leak.
Orphans   none: the process ends at end of file on its requests, and on Linux when the thread that started it does (a
          process lost that way while idle is replaced without a word).
          On macOS there is no such signal and address space is not limited: a limit on memory is Linux's only.
"""

# Shape legend: T frames, H height, W width, 3 colours

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from raydist.clips.source import shown
from raydist.errors import SourceError
from raydist.records import CUT_RATE, Cut, DecodedClip, Limits, Probe, Span

DEATHS = 2
"""Deaths of the process in one file after which the rest of the file is given up."""
KILLERS = 256
"""Files whose deaths by a signal are remembered, at most."""
WALL = 5
"""Wall-clock seconds granted for a CPU second: machines are noisy, and this is for a hang only."""
_START_S = 600.0
"""Wall-clock seconds for the process to start: a machine with far too much to do is slow, not broken."""
_READ_BYTES = 1 << 16
T = TypeVar("T")
_ENVIRONMENT = {
    # One thread: parallelism is over children, and idle threads would count as address space.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Pictures come and go by the megabyte: memory that goes back to the system each time is faulted in again.
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "67108864",
}


@dataclass(frozen=True, slots=True)
class _Death:
    """Why the process is no more, as a failure of the span it worked on."""

    reason: str
    detail: str
    by_signal: bool = False
    """It crashed or was killed, not by a limit of ours: the next process may well live."""


class Killers:
    """Files that crashed their process or had it killed, the last `KILLERS` of them: how often, and how it ended."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str], tuple[int, _Death]] = OrderedDict()

    def add(self, location: str, fingerprint: str, death: _Death) -> None:
        """One more death by a signal; a probe, which knows no fingerprint yet, gives an empty one."""
        count, _ = self._found.pop((location, fingerprint), (0, death))
        self._found[location, fingerprint] = count + 1, death
        if len(self._found) > KILLERS:
            self._found.popitem(last=False)

    def verdict(self, location: str, fingerprint: str) -> _Death | None:
        """The last death in this content of the file, if there were `DEATHS`; what happened to probes counts too."""
        keys = dict.fromkeys([(location, ""), (location, fingerprint)])
        deaths = [self._found[key] for key in keys if key in self._found]
        return deaths[-1][1] if sum(count for count, _ in deaths) >= DEATHS else None


class Child:
    """A decoding process and its limits. Use from one thread, as a context manager or with `close`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._replies = self._frames = -1
        self._buffer = b""
        self._busy = False
        self._killers = Killers()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the process, None where there is none at the moment."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process. The child can be used again afterwards; it starts a new one."""
        if self._process is not None:
            if self._busy:
                self._process.kill()
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            os.close(self._replies)
            os.close(self._frames)
        self._process, self._buffer, self._busy = None, b"", False

    def probe(self, location: str) -> Probe:
        """`clips.probe.probe` in the process.

        Raises:
            SourceError: with the reason; timeout, crashed or too_large where the process died on the file.
        """
        reply: dict[str, Any] | _Death | None = self._killers.verdict(location, "")
        while reply is None:
            self._send({"verb": "probe", "location": location})
            reply = self._reply(self._limits.cpu_s)
            self._busy = False
            if isinstance(reply, _Death) and reply.by_signal:
                self._killers.add(location, "", reply)
                reply = self._killers.verdict(location, "")
        if isinstance(reply, _Death):
            raise SourceError(reply.reason, f"{shown(location)}: {reply.detail}")
        if "reason" in reply:
            raise SourceError(reply["reason"], reply["detail"])
        fields = reply["probe"]
        return Probe(**{**fields, "gaps_ms": tuple((start, end) for start, end in fields["gaps_ms"])})

    def decode(
        self,
        location: str,
        spans: Sequence[Span],
        *,
        frames: int,
        size_px: int | None,
        resize: str,
        sampling: str = "exact",
        hashes: bool = True,
        fingerprint: str = "",
    ) -> Iterator[DecodedClip]:
        """`clips.decode.decode_spans` in the process: exactly one clip a span, in order, whatever happens.

        What concerns the whole file becomes the reason of each of its spans, as does that it killed `DEATHS` processes
        of this child before. The frames belong to the caller.
        """
        request = {
            "verb": "decode",
            "location": location,
            "frames": frames,
            "size_px": size_px,
            "resize": resize,
            "sampling": sampling,
            "hashes": hashes,
            "fingerprint": fingerprint,
        }
        return self._each(request, spans, self._clip, _no_clip)

    def cut(
        self,
        location: str,
        spans: Sequence[Span],
        *,
        max_px: int,
        max_bytes: int,
        rate: int = CUT_RATE,
        fingerprint: str = "",
    ) -> Iterator[Cut]:
        """`clips.cut.cut_spans` in the process: exactly one cut a span, in order, whatever happens; as `decode`."""
        wanted = {"max_px": max_px, "max_bytes": max_bytes, "rate": rate}
        request = {"verb": "cut", "location": location, **wanted, "fingerprint": fingerprint}
        return self._each(request, spans, self._cut, _no_cut)

    def _each(
        self,
        request: dict[str, Any],
        spans: Sequence[Span],
        receive: Callable[[Span], T | _Death],
        failed: Callable[[Span, _Death], T],
    ) -> Iterator[T]:
        """One result a span, by as many processes as it takes, up to `DEATHS` deaths."""
        location, fingerprint = request["location"], request["fingerprint"]
        done = deaths = 0
        given_up = self._killers.verdict(location, fingerprint)
        while done < len(spans) and given_up is None:
            rest = spans[done:]
            self._send({**request, "spans": [[span.start_ms, span.end_ms] for span in rest]})
            death: _Death | None = None
            for number, span in enumerate(rest, 1):
                result = receive(span)
                if isinstance(result, _Death):
                    death = result
                    break
                self._busy = number < len(rest)
                done += 1
                yield result
            if death is None:
                return
            deaths += 1
            if death.by_signal:
                self._killers.add(location, fingerprint, death)
            if deaths >= DEATHS:
                given_up = death
            elif death.by_signal:
                given_up = self._killers.verdict(location, fingerprint)
            else:
                yield failed(spans[done], death)
                done += 1
        if given_up is not None:
            yield from (failed(span, given_up) for span in spans[done:])

    def _clip(self, span: Span) -> DecodedClip | _Death:
        """The next result, once the process has sent it."""
        reply = self._result()
        if isinstance(reply, _Death):
            return reply
        fields = reply["clip"]
        shape = fields.pop("shape")
        pixels = None if shape is None else self._take(shape)
        for name in ("frame_times_ms", "offsets_ms", "frame_hashes"):
            fields[name] = tuple(fields[name])
        return DecodedClip(span=span, frames=pixels, **fields)

    def _cut(self, span: Span) -> Cut | _Death:
        """The same of a cut."""
        reply = self._result()
        if isinstance(reply, _Death):
            return reply
        fields = reply["cut"]
        count = fields.pop("bytes")
        return Cut(span=span, data=self._take([count]).tobytes() if count else b"", **fields)

    def _result(self) -> dict[str, Any] | _Death:
        allowed_s = self._limits.cpu_s
        while True:
            reply = self._reply(allowed_s)
            if isinstance(reply, _Death) or "allow" not in reply:
                return reply
            allowed_s = self._limits.cpu_s * reply["allow"]

    def _take(self, shape: list[int]) -> NDArray[np.uint8]:
        """What the process has written beside its reply."""
        pixels = self._read_frames(shape)
        self._write(b"\n")  # it is taken: its place may be used again
        return pixels

    def _read_frames(self, shape: list[int]) -> NDArray[np.uint8]:
        pixels = np.empty(shape, dtype=np.uint8)
        view = pixels.data.cast("B")
        os.lseek(self._frames, 0, os.SEEK_SET)
        with open(self._frames, "rb", buffering=0, closefd=False) as file:
            place = 0
            while place < len(view):
                count = file.readinto(view[place:])
                if not count:
                    raise RuntimeError(f"the decoding process announced {len(view)} bytes of frames and gave {place}")
                place += count
        return pixels

    def _send(self, request: dict[str, Any]) -> None:
        """Hand a request over; one death before the process takes it is no fault of the file."""
        if self._busy:  # the last request was left in the middle
            self.close()
        line = json.dumps(request).encode() + b"\n"
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self._start()
            if self._write(line) and not isinstance(self._reply(self._limits.cpu_s), _Death):
                self._busy = True
                return
            self.close()
        raise RuntimeError("the decoding process dies before it takes a request")

    def _write(self, line: bytes) -> bool:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def _reply(self, allowed_s: float) -> dict[str, Any] | _Death:
        """One line of the process, or why there is none."""
        wall_s = WALL * allowed_s
        while True:
            deadline = time.monotonic() + wall_s
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                ready, _, _ = select.select([self._replies], [], [], max(0.0, left))
                if not ready:
                    return self._died(_Death("timeout", f"no result after {wall_s:g} s of wall-clock time"))
                data = os.read(self._replies, _READ_BYTES)
                if not data:
                    return self._died(None)
                self._buffer += data
            line, self._buffer = self._buffer.split(b"\n", 1)
            reply: dict[str, Any] = json.loads(line)
            if "waits" in reply:  # for a server, which is no hang
                wall_s = WALL * allowed_s + reply["waits"]
                continue
            return self._died(_Death(*reply["died"])) if "died" in reply else reply

    def _died(self, death: _Death | None) -> _Death:
        assert self._process is not None
        if death is not None:
            self._process.kill()
        code = self._process.wait()
        self.close()
        if death is not None:
            return death
        if code == -signal.SIGXCPU:
            return _Death("timeout", f"more than {self._limits.cpu_s:g} s of CPU time")
        how = f"died of {_signal_name(-code)}" if code < 0 else f"ended with status {code}"
        return _Death("crashed", f"the decoder {how}", by_signal=True)

    def _start(self) -> None:
        self.close()
        replies, child_replies = os.pipe()
        self._replies, self._frames = replies, _anonymous_file()
        arguments = [child_replies, self._frames, os.getpid(), json.dumps(asdict(self._limits))]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "raydist.clips.child", *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(child_replies, self._frames),
                env={
                    **os.environ,
                    **_ENVIRONMENT,
                    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                },
            )
        finally:
            os.close(child_replies)
        reply = self._reply(_START_S / WALL)
        if isinstance(reply, _Death):
            raise RuntimeError(f"the decoding process does not start: {reply.detail}")


def _no_clip(span: Span, death: _Death) -> DecodedClip:
    return DecodedClip(span=span, frames=None, reason=death.reason, detail=death.detail)


def _no_cut(span: Span, death: _Death) -> Cut:
    return Cut(span=span, reason=death.reason, detail=death.detail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _anonymous_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("raydist-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


if __name__ == "__main__":
    from raydist.clips.service import main

    main(sys.argv[1:])
