"""remote: an address -> an open file to seek and read in, over whatever server it is on.

Gives     a file over ranged reads; over a temporary copy where the server knows no ranges
Promises  passing failures are tried again as the settings say; what stays is a SourceError: missing, forbidden,
          unreadable, not_a_file, changed, too_large. FFmpeg gets the file, never the address
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import av.error

from raydist import address
from raydist.clips.ranged import END_BYTES, RangedFile
from raydist.clips.retry import Tries
from raydist.errors import SourceError
from raydist.records import Remote


@dataclass(slots=True)
class Meter:
    """What was asked of a server."""

    bytes_read: int = 0
    requests: int = 0
    """Those that failed included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSource:
    """An open file on a server."""

    bytes: int
    modified_ns: int
    file: BinaryIO
    meter: Meter
    expect: Callable[[int, int], None]
    """Say that reading will go from one place to another and no further."""
    check: Callable[[], None]
    """Raises the SourceError of a read that went wrong and that a decoder may have passed over, or `changed`."""


class _Object(Protocol):
    size: int
    head: bytes
    """What came with opening."""

    @property
    def modified_ns(self) -> int: ...

    def read(self, start: int, length: int) -> bytes: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


def shown(location: str) -> str:
    """For a message: without what may be secret."""
    return repr(address.public(location))


@contextmanager
def open_remote(
    location: str, settings: Remote, waits: Callable[[float], None] = lambda seconds: None
) -> Iterator[RemoteSource]:
    """Open what lies at an address.

    Args:
        location: of one file.
        settings: how servers are asked.
        waits: told how many seconds asking may take, before it begins.

    Raises:
        SourceError: missing, not_a_file, forbidden, unreadable, empty, or too_large (a server without ranges).
    """
    tries, meter = Tries(settings, waits), Meter()

    def counted() -> _Object:
        meter.requests += 1
        return _open(location, settings)

    found = tries(shown(location), counted)
    try:
        if found.size == 0:
            raise SourceError("empty", f"{shown(location)} has no bytes")
        yield from _opened(location, found, tries, meter)
    finally:
        found.close()


def _opened(location: str, found: _Object, tries: Tries, meter: Meter) -> Iterator[RemoteSource]:
    copy = _copied(found, tries, meter)
    if copy is not None:
        with copy:
            copy.seek(0, 2)
            size = copy.tell()
            copy.seek(0)
            yield RemoteSource(
                bytes=size,
                modified_ns=found.modified_ns,
                file=copy,
                meter=meter,
                expect=lambda start, end: None,
                check=lambda: None,
            )
        return

    def fetch(start: int, length: int) -> bytes:
        def attempt() -> bytes:
            meter.requests += 1
            return found.read(start, length)

        data = tries(shown(location), attempt, tries.longest_s(length))
        meter.bytes_read += len(data)
        return data

    file = RangedFile(fetch, found.size, found.head)
    meter.bytes_read += len(found.head)
    checked = meter.bytes_read

    def check() -> None:
        nonlocal checked
        if file.failure is not None:
            raise file.failure
        if meter.bytes_read > checked:
            tries(shown(location), found.check)
            checked = meter.bytes_read

    try:
        yield RemoteSource(
            bytes=found.size,
            modified_ns=found.modified_ns,
            file=cast(BinaryIO, file),
            meter=meter,
            expect=file.expect,
            check=check,
        )
    except SourceError as error:
        if file.failure is None:
            raise
        raise file.failure from error  # what was made of a file cut short says less
    finally:
        if file.failure is not None:
            _forget_stashed()


def _forget_stashed() -> None:
    """What a reader raised within FFmpeg is raised at PyAV's next call, which may be for another file."""
    with suppress(SourceError):
        av.error.err_check(0)


def _copied(found: _Object, tries: Tries, meter: Meter) -> BinaryIO | None:
    """All of a file whose server knows no ranges; None: it does."""
    from raydist.clips.web import WebFile  # as below

    if not isinstance(found, WebFile) or found.has_ranges:
        return None

    def count(length: int) -> None:
        meter.bytes_read += length

    meter.requests += 1
    return found.download(tries, count)


def _open(location: str, settings: Remote) -> _Object:
    # Here and not above: the clients take a tenth of a second to load, and files on a disk need neither.
    if address.scheme_of(location) in address.BUCKETS:
        from raydist.clips.buckets import BucketObject

        return BucketObject(location, settings)
    from raydist.clips.web import WebFile

    return WebFile(location, settings, END_BYTES)
