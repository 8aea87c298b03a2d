"""buckets: objects at `s3://` and `gs://`, through `pyarrow.fs`.

Reads     credentials from the usual places only: environment, shared files and profiles, the machine's role
Gives     an object to read ranges of, what lies below a prefix, and every error as a SourceError or one that may pass
Promises  one request is one try: the clients' own retries are off, `clips.retry` does them all
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from raydist import address
from raydist.clips.retry import PassingError, Tries
from raydist.errors import SourceError, UsageError
from raydist.records import Remote

T = TypeVar("T")

_MISSING = re.compile(r"NO_SUCH_KEY|NO_SUCH_BUCKET|RESOURCE_NOT_FOUND|NOT_FOUND|HTTP status 404|Path does not exist")
_FORBIDDEN = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|"
    r"MISSING_AUTHENTICATION_TOKEN|OPT_IN_REQUIRED|EXPIRED_?TOKEN|InvalidToken|PERMISSION_DENIED|UNAUTHENTICATED|"
    r"HTTP status 40[13]",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"HTTP status (?:5\d\d|429|408)|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT|"
    r"REQUEST_LIMIT_EXCEEDED|NETWORK_CONNECTION|INTERNAL_ERROR|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|"
    r"ABORTED|INTERNAL|UNKNOWN: |Retry policy exhausted|curlCode"
)
_NOISE = re.compile(r"\(Request ID:[^)]*\)|No response body\.?|When [^:]*: |Details?: |Retry policy exhausted[^:]*: ")
_HELP = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, a role of this machine, or source.anonymous=true",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or source.anonymous=true",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something in a bucket."""

    name: str
    is_folder: bool
    bytes: int
    modified_ns: int


class BucketObject:
    """One open object; each method is one try."""

    head = b""

    def __init__(self, location: str, settings: Remote) -> None:
        """
        Raises:
            SourceError: not_a_file, missing, forbidden, unreadable.
        """
        _require_file(location)
        self._location = location
        self._files = _file_system(location, settings)
        self._file = self._open()
        self._stamp = self._stamp_of(self._file)
        self.size, _, self.modified_ns = self._stamp

    def read(self, start: int, length: int) -> bytes:
        """A range, whole."""
        data: bytes = _translated(self._location, lambda: self._file.read_at(length, start))
        if len(data) < length:
            raise PassingError(f"the answer ended after {len(data):,} of {length:,} bytes")
        return data

    def check(self) -> None:
        """
        Raises:
            SourceError: changed, if the object is no longer the one that was opened.
        """
        # Google's client reads the generation that was opened and no other.
        if address.scheme_of(self._location) == "s3":
            with self._open() as file:
                if self._stamp_of(file) != self._stamp:
                    changed = f"{shown(self._location)} changed while it was read; scan again"
                    raise SourceError("changed", changed)

    def close(self) -> None:
        """Let go of it."""
        with suppress(OSError):
            self._file.close()

    def _open(self) -> Any:
        return _translated(self._location, lambda: self._files.open_input_file(_path(self._location)))

    def _stamp_of(self, file: Any) -> tuple[int, str, int]:
        """Size, ETag and time of change in ns."""
        if address.scheme_of(self._location) == "gs":  # to be asked, its file would begin to read all of the object
            info = _translated(self._location, lambda: self._files.get_file_info(_path(self._location)))
            return info.size or 0, "", info.mtime_ns or 0
        known = {_text(key).lower(): _text(value) for key, value in (file.metadata() or {}).items()}
        found = re.match(r"[\d-]{10}T[\d:]{8}", known.get("last-modified", ""))
        modified_ns = int(datetime.fromisoformat(found[0] + "+00:00").timestamp() * 1e9) if found else 0
        return _translated(self._location, file.size), known.get("etag", ""), modified_ns


def look(location: str, settings: Remote) -> Entry | None:
    """What an address names, None: nothing.

    Raises:
        SourceError: forbidden, unreadable.
    """
    files = _file_system(location, settings)

    def attempt() -> fs.FileInfo:
        return _translated(location, lambda: files.get_file_info(_path(location)))

    info = Tries(settings)(shown(location), attempt)
    return None if info.type == fs.FileType.NotFound else _entry(info)


def entries(location: str, settings: Remote) -> Iterator[Entry]:
    """What lies directly below a prefix.

    Raises:
        SourceError: missing (the bucket), forbidden, unreadable.
    """
    files = _file_system(location, settings)
    # Google's client tells folders only where an object stands for them, so all below is listed and put together.
    everything = address.scheme_of(location) == "gs"
    selector = fs.FileSelector(_path(location), allow_not_found=True, recursive=everything)

    def attempt() -> list[fs.FileInfo]:
        found: list[fs.FileInfo] = _translated(location, lambda: files.get_file_info(selector))
        return found

    folders: set[str] = set()
    for info in Tries(settings)(shown(location), attempt):
        name, slash, _ = info.path.removeprefix(selector.base_dir).removeprefix("/").partition("/")
        is_folder = bool(slash) or info.type == fs.FileType.Directory
        if not name or name in folders:  # a key that ends with a slash stands for its folder; see also `_path`
            continue
        if is_folder:
            folders.add(name)
            yield Entry(name=name, is_folder=True, bytes=0, modified_ns=0)
        else:
            yield _entry(info)


def shown(location: str) -> str:
    """For a message."""
    return repr(address.public(location))


def _entry(info: fs.FileInfo) -> Entry:
    return Entry(
        name=info.base_name,
        is_folder=info.type == fs.FileType.Directory,
        bytes=info.size or 0,
        modified_ns=info.mtime_ns or 0,
    )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _require_file(location: str) -> None:
    key = location.partition("://")[2].rstrip("/").partition("/")[2]
    if not key or location.endswith("/"):
        kind = "a folder of a bucket" if key else "a bucket"
        raise SourceError(
            "not_a_file", f"{shown(location)} names {kind}: expected a file in one, without '/' at its end"
        )


def _path(location: str) -> str:
    """As the clients take it.

    Raises:
        SourceError: unreadable; the clients take no key with an empty part, and list none.
    """
    path = location.partition("://")[2]
    if path.startswith("/") or "//" in path:
        what = "names no bucket" if path.startswith("/") else "has nothing between two '/' of its key"
        raise SourceError(
            "unreadable",
            f"{shown(location)} {what}: expected {address.scheme_of(location)}://BUCKET/KEY. Keys with '//' cannot be "
            "read; copy the object to another key",
        )
    return path


def _translated(location: str, call: Callable[[], T]) -> T:
    """What the client raises, as what it means."""
    try:
        return call()
    except FileNotFoundError as error:
        raise SourceError("missing", f"{shown(location)} does not exist") from error
    except (OSError, pa.ArrowException) as error:
        text = str(error)
        what = " ".join(_NOISE.sub("", text).split()).rstrip(" :")[:300]
        if _MISSING.search(text):
            raise SourceError("missing", f"{shown(location)} does not exist ({what})") from error
        if _FORBIDDEN.search(text):
            help_ = _HELP[address.scheme_of(location)]
            raise SourceError("forbidden", f"{shown(location)} may not be read ({what}): check {help_}") from error
        if _PASSING.search(text):
            raise PassingError(what) from error
        if "HTTP status 301" in text or "PERMANENT_REDIRECT" in text:
            what += "; the bucket is in another region: set source.region"
        raise SourceError("unreadable", f"{shown(location)}: {what}") from error


def _file_system(location: str, settings: Remote) -> Any:
    if address.scheme_of(location) == "gs":
        return _gs(settings, os.environ.get("STORAGE_EMULATOR_HOST", ""))
    server = endpoint(settings)
    region = settings.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        # What S3-compatible servers mostly take for their only one.
        region = "us-east-1" if server else _region_of(_path(location).partition("/")[0])
    return _s3(settings, server, region)


def endpoint(settings: Remote) -> str:
    """The S3 endpoint that was set; empty: Amazon's own."""
    return settings.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@cache
def _region_of(bucket: str) -> str | None:
    """As Amazon says; None leaves it to the client."""
    with suppress(OSError, pa.ArrowException):
        region: str = fs.resolve_s3_region(bucket)
        return region
    return None


@cache
def _s3(settings: Remote, server: str, region: str | None) -> Any:
    options: dict[str, Any] = {}
    if server:
        split = urlsplit(server if "://" in server else f"https://{server}")
        if split.scheme not in address.WEB or not split.hostname:
            raise UsageError(f"the S3 endpoint is {address.public(server)!r}: expected http(s)://HOST[:PORT]")
        options = {"endpoint_override": split.netloc.rpartition("@")[2], "scheme": split.scheme}
    return fs.S3FileSystem(
        anonymous=settings.anonymous,
        region=region,
        connect_timeout=settings.connect_s,
        request_timeout=settings.read_s,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        **options,
    )


@cache
def _gs(settings: Remote, server: str) -> Any:
    options: dict[str, Any] = {}
    if server:
        split = urlsplit(server if "://" in server else f"http://{server}")
        options = {"endpoint_override": split.netloc, "scheme": split.scheme}
    # The client retries by itself until a time is over; with next to none it makes one try.
    return fs.GcsFileSystem(anonymous=settings.anonymous, retry_time_limit=timedelta(milliseconds=1), **options)
