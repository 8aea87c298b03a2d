"""service: what the decoding process does: limits on itself, then requests line by line until there are no more.

Reads   JSON requests on stdin
Writes  JSON results, a line each, to one descriptor; frames into another
See     `clips.child`, which starts it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from raydist.clips.cut import cut_spans
from raydist.clips.decode import decode_spans
from raydist.clips.probe import probe
from raydist.errors import SourceError
from raydist.records import Cut, DecodedClip, Limits, Remote, Span

_PR_SET_PDEATHSIG = 1
T = TypeVar("T")


@dataclass
class _Service:
    replies: int
    frames: int
    limits: Limits
    taken: bool = True
    """Whether the parent has taken the frames that were written last."""

    def reply(self, **fields: Any) -> None:
        line = json.dumps(fields).encode() + b"\n"
        while line:
            line = line[os.write(self.replies, line) :]

    def allow(self, clips: int) -> None:
        """From now on, CPU time for this many clips."""
        _allow_cpu(self.limits.cpu_s * clips)

    def allow_together(self, clips: int) -> None:
        self.allow(clips)
        self.reply(allow=clips)

    def waits(self, seconds: float) -> None:
        """Asking a server may take so long from now on."""
        self.reply(waits=seconds)

    def probe(self, request: dict[str, Any]) -> None:
        self.allow(1)
        try:
            found = probe(request["location"], self.limits, self.waits)
        except SourceError as error:
            self.reply(reason=error.reason, detail=error.detail)
        else:
            self.reply(probe=asdict(found))

    def decode(self, request: dict[str, Any]) -> None:
        names = ("frames", "size_px", "resize", "sampling", "hashes")
        self._serve(request, decode_spans, names, _no_clip, self._send)

    def cut(self, request: dict[str, Any]) -> None:
        self._serve(request, cut_spans, ("max_px", "max_bytes", "rate"), _no_cut, self._send_cut)

    def _serve(
        self,
        request: dict[str, Any],
        results: Callable[..., Iterator[T]],
        names: tuple[str, ...],
        failed: Callable[[Span, SourceError], T],
        send: Callable[[T], None],
    ) -> None:
        """A result for each span; what concerns the whole file becomes the reason of the spans that are left."""
        spans = [Span(start_ms=start, end_ms=end) for start, end in request["spans"]]
        done = 0
        self.allow(1)
        try:
            for result in results(
                request["location"],
                spans,
                **{name: request[name] for name in names},
                fingerprint=request["fingerprint"],
                limits=self.limits,
                allow=self.allow_together,
                waits=self.waits,
            ):
                done += 1
                send(result)
                self.allow(1)
        except SourceError as error:
            for span in spans[done:]:
                send(failed(span, error))

    def _send(self, clip: DecodedClip) -> None:
        shape = None
        if clip.frames is not None:
            shape = clip.frames.shape
            self._hand_over(np.ascontiguousarray(clip.frames).data.cast("B"))
        fields = {
            name: getattr(clip, name)
            for name in (
                "frame_times_ms",
                "offsets_ms",
                "filled_frames",
                "corrupt_frames",
                "frame_hashes",
                "cpu_s",
                "bytes_read",
                "reason",
                "detail",
            )
        }
        self.reply(clip={"shape": shape, **fields})

    def _send_cut(self, cut: Cut) -> None:
        if cut.data:
            self._hand_over(memoryview(cut.data))
        names = ("width_px", "height_px", "copied", "cpu_s", "bytes_read", "reason", "detail")
        self.reply(cut={"bytes": len(cut.data), **{name: getattr(cut, name) for name in names}})

    def _hand_over(self, data: memoryview) -> None:
        """Once the parent has taken what was written before."""
        if not self.taken:
            sys.stdin.buffer.readline()
        _write_frames(self.frames, data)
        self.taken = False

    def finish(self) -> None:
        """Before the next request: the answer to the last frames is still in the way, and its file in memory.

        A container and its streams refer to each other, and the collector counts objects, not bytes.
        """
        gc.collect()
        if not self.taken:
            sys.stdin.buffer.readline()
            self.taken = True


def main(arguments: list[str]) -> None:
    """Serve until stdin ends. Arguments: replies, frames, parent's pid, limits as JSON."""
    replies, frames, parent = map(int, arguments[:3])
    given = json.loads(arguments[3])
    limits = Limits(**{**given, "remote": Remote(**given["remote"])})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it closes stdin
    _die_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not limits.hwaccel:  # a GPU's driver reserves more address space than any limit would be
        _limit_memory(limits.memory_bytes)
    service = _Service(replies, frames, limits)

    def report(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        reason = "too_large" if issubclass(kind, MemoryError) else "crashed"
        service.reply(died=[reason, f"{kind.__name__}: {value}"])

    sys.excepthook = report
    gc.freeze()  # what was imported stays: a collection then takes a millisecond
    service.reply(ready=True)
    verbs = {"probe": service.probe, "decode": service.decode, "cut": service.cut}
    while line := sys.stdin.buffer.readline():
        service.reply(taken=True)
        request = json.loads(line)
        verbs[request["verb"]](request)
        service.finish()


def _no_clip(span: Span, error: SourceError) -> DecodedClip:
    return DecodedClip(span=span, frames=None, reason=error.reason, detail=error.detail)


def _no_cut(span: Span, error: SourceError) -> Cut:
    return Cut(span=span, reason=error.reason, detail=error.detail)


def _allow_cpu(seconds: float) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _limit_memory(beyond: int) -> None:
    if sys.platform != "linux":
        return
    with open("/proc/self/statm", "rb") as file:
        size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + beyond, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            os._exit(1)


def _write_frames(descriptor: int, view: memoryview) -> None:
    place = 0
    while place < len(view):
        place += os.pwrite(descriptor, view[place:], place)
