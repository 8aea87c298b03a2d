"""web: files at `http://` and `https://`, through fsspec's HTTP file system.

Reads     ranges; a server that knows none, or no length, is read once into a temporary file that has no name
Gives     the bytes that were asked for: an answer with others, more or fewer counts as a try that failed
Promises  redirects lead to http(s) only, and from https to https; one request is one try; user, password and query are
          in no message. A file that changes while it is read is noticed by its ETag, size or time
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from raydist import address
from raydist.clips.retry import PassingError, Tries
from raydist.errors import SourceError
from raydist.records import Remote

if TYPE_CHECKING:
    from aiohttp import ClientResponse

_REDIRECTS = 10
_PIECE_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
"""Content-Range: first and last byte, and the size of all (RFC 9110, section 14.4)."""


class WebFile:
    """One file on a web server; each method is one try, but for `download`. Opening reads the first `head_bytes`."""

    def __init__(self, location: str, settings: Remote, head_bytes: int = 1) -> None:
        self._location = location
        self._shown = repr(address.public(location))
        self._settings = settings
        self._tag = self._modified = ""
        self._longest_s = Tries(settings).longest_s
        self.size = -1
        """-1: the server does not say."""
        self.has_ranges = False
        self.head = b""
        self._ask((0, head_bytes), lambda answer: self._learn(answer, head_bytes), self._longest_s(head_bytes))

    @property
    def modified_ns(self) -> int:
        """When it was changed; without a time, a number near 0 that follows the ETag; now, if there is neither."""
        if self._modified:
            with suppress(ValueError, TypeError):
                return int(parsedate_to_datetime(self._modified).timestamp() * 1e9)
        if self._tag:
            return int.from_bytes(blake2b(self._tag.encode(), digest_size=4).digest(), "big")
        return int(datetime.now(UTC).timestamp() * 1e9)

    def read(self, start: int, length: int) -> bytes:
        """A range, whole."""

        async def body(answer: ClientResponse) -> bytes:
            self._require_same(answer)
            if answer.status != 206:
                raise PassingError(f"status {answer.status} in place of a range")
            _require_range(answer, start, start + length)
            return await _exactly(answer, length)

        data: bytes = self._ask((start, length), body, self._longest_s(length))
        return data

    def check(self) -> None:
        """Nothing: each answer says which version of the file it is of."""

    def close(self) -> None:
        """Nothing: connections are kept for the next file."""

    def download(self, tries: Tries, count: Callable[[int], None]) -> BinaryIO:
        """All of it, into a file without a name; `count` is told of bytes that came.

        Raises:
            SourceError: too_large, or as reading does.
        """
        limit, why = self._settings.whole_bytes, "reads no ranges" if self.size >= 0 else "does not say how long it is"
        if self.size > limit:
            raise self._too_large(f"has {self.size:,} bytes", why)
        file: BinaryIO = tempfile.TemporaryFile(prefix="raydist-")  # noqa: SIM115  # the caller closes it
        longest_s = min(self._longest_s(self.size if self.size >= 0 else limit), self._settings.whole_s)
        ends = time.monotonic() + self._settings.whole_s

        async def save(answer: ClientResponse) -> None:
            self._require_same(answer)
            if answer.status != 200:
                raise PassingError(f"status {answer.status} in place of the whole file")
            file.seek(0)
            file.truncate()
            async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                count(len(piece))
                if file.tell() + len(piece) > limit:
                    raise self._too_large(f"has more than {limit:,} bytes", why)
                file.write(piece)
            if self.size >= 0 and file.tell() != self.size:
                raise PassingError(f"the answer ended after {file.tell():,} of {self.size:,} bytes")

        def attempt() -> None:
            try:
                self._ask(None, save, min(longest_s, ends - time.monotonic()))
            except PassingError as error:
                if time.monotonic() < ends:
                    raise
                raise self._too_slow(file.tell(), why) from error

        try:
            tries(self._shown, attempt, longest_s)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def _too_large(self, size: str, why: str) -> SourceError:
        return SourceError(
            "too_large",
            f"{self._shown} {size} and its server {why}, so that all of it would have to be downloaded for each read: "
            f"the limit is source.whole_mb={self._settings.whole_bytes >> 20}. Raise it, or copy the file",
        )

    def _too_slow(self, came: int, why: str) -> SourceError:
        of = f" of {self.size:,}" if self.size >= 0 else ""
        return SourceError(
            "unreadable",
            f"{self._shown}: its server {why}, and {came:,}{of} bytes came within "
            f"source.whole_s={self._settings.whole_s:g} seconds. Raise it, or copy the file",
        )

    async def _learn(self, answer: ClientResponse, length: int) -> None:
        """From the answer to a first range: size, time, tag, and whether ranges work."""
        self._tag, self._modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        total = int(found[3]) if found and found[3] != "*" else -1
        if answer.status == 206 and total >= 0:
            length = min(length, total)
            _require_range(answer, 0, length)
            self.size, self.has_ranges, self.head = total, True, await _exactly(answer, length)
        elif answer.status == 416:
            self.size = max(0, total)
        elif answer.status == 200:
            self.size = int(answer.headers.get("Content-Length", -1))

    def _require_same(self, answer: ClientResponse) -> None:
        same = self._tag == answer.headers.get("ETag", "") and self._modified == answer.headers.get("Last-Modified", "")
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not same or (found and found[3] not in ("*", str(self.size))):
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError("changed", f"{self._shown} changed while it was read; scan again")

    def _ask(
        self, part: tuple[int, int] | None, use: Callable[[ClientResponse], Awaitable[Any]], seconds: float
    ) -> Any:
        """One try of at most so many seconds, for (start, length) or for all."""
        headers = {"Accept-Encoding": "identity"}
        if part is not None:
            start, length = part
            headers["Range"] = f"bytes={start}-{start + length - 1}"
        if self._tag and not self._tag.startswith("W/"):
            headers["If-Match"] = self._tag
        from fsspec.asyn import sync

        files = _file_system(self._settings)
        return sync(files.loop, self._exchange, headers, seconds, use)

    async def _exchange(
        self, headers: dict[str, str], seconds: float, use: Callable[[ClientResponse], Awaitable[Any]]
    ) -> Any:
        """One request and its answer, and what the client raises as what it means."""
        import aiohttp

        try:
            async with asyncio.timeout(seconds):
                return await self._follow(headers, use)
        except TimeoutError as error:
            raise PassingError(f"no answer, or no more of it, within {self._settings.read_s:g} s") from error
        except aiohttp.InvalidURL as error:
            raise SourceError("missing", f"{self._shown} is no URL: expected http(s)://HOST[:PORT]/PATH") from error
        except (aiohttp.ClientError, OSError) as error:
            what = re.sub(r"\s+", " ", str(error)) or type(error).__name__
            if any(secret in what for secret in self._secrets()):
                what = type(error).__name__
            raise PassingError(what[:300]) from error

    async def _follow(self, headers: dict[str, str], use: Callable[[ClientResponse], Awaitable[Any]]) -> Any:
        session = await _file_system(self._settings).set_session()
        url = self._location
        for _ in range(_REDIRECTS):
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status not in (301, 302, 303, 307, 308):
                    self._require_good(answer)
                    return await use(answer)
                target = urljoin(url, answer.headers.get("Location", ""))
            if address.scheme_of(target) not in address.WEB or (url.startswith("https:") > target.startswith("https:")):
                raise SourceError(
                    "refused_format",
                    f"{self._shown} redirects to {address.public(target)!r}: expected http(s), and https from https",
                )
            url = target
        raise SourceError("unreadable", f"{self._shown} redirects more than {_REDIRECTS} times")

    def _require_good(self, answer: ClientResponse) -> None:
        status = answer.status
        if status in (200, 206, 416):
            if status == 416 and self.size >= 0:
                raise self._changed()
            encoding = answer.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity":
                raise SourceError(
                    "unreadable",
                    f"{self._shown} comes compressed (Content-Encoding: {encoding[:40]!r}): expected the bytes of a "
                    "video, as was asked. Turn compression off for videos on that server, or copy the file",
                )
            return
        said = f"status {status} {answer.reason or ''}".strip()
        if status == 412:
            raise self._changed()
        if status in (404, 410):
            raise SourceError("missing", f"{self._shown} does not exist ({said})")
        if status in (401, 403, 407):
            raise SourceError(
                "forbidden", f"{self._shown} may not be read ({said}): check the address, or give a login in ~/.netrc"
            )
        if status >= 500 or status in (408, 425, 429):
            raise PassingError(said, _seconds(answer.headers.get("Retry-After", "")))
        raise SourceError("unreadable", f"{self._shown}: {said}")

    def _secrets(self) -> list[str]:
        split = urlsplit(self._location)
        return [part for part in (split.query, split.password, split.username) if part]


def _require_range(answer: ClientResponse, start: int, end: int) -> None:
    """Frames made of other bytes than those that were asked for would be wrong without a sign."""
    said = answer.headers.get("Content-Range", "")
    found = _RANGE.fullmatch(said)
    if not found or (found[1], found[2]) != (str(start), str(end - 1)):
        raise PassingError(f"Content-Range {said[:80]!r} in place of 'bytes {start}-{end - 1}/...'")


async def _exactly(answer: ClientResponse, length: int) -> bytes:
    """A body of so many bytes; no more of it is kept than that."""
    pieces: list[bytes] = []
    missing = length
    while missing >= 0:
        piece = await answer.content.read(missing + 1)
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    if missing:
        came = "goes on beyond" if missing < 0 else f"ended after {length - missing:,} of"
        raise PassingError(f"the answer {came} {length:,} bytes")
    return b"".join(pieces)


def _seconds(retry_after: str) -> float:
    """Of a Retry-After header: seconds, or a date."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return 0.0


@cache
def _file_system(settings: Remote) -> Any:
    try:
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem
    except ImportError as error:
        raise SourceError(
            "unreadable", f"http(s) addresses need {error.name}: install it with `pip install 'raydist[http]'`"
        ) from error
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s, sock_read=settings.read_s)
    return HTTPFileSystem(
        client_kwargs={"timeout": timeout, "trust_env": True, "auto_decompress": False}, skip_instance_cache=True
    )
