"""Files of an archive in a bucket, `s3://` or `gs://`, through `obstore`.

Reads     credentials from the usual places only, see `credentials`
Promises  a request that fails is tried again for some seconds; what stays is a StoreError of one line that says what
          to do and holds no credentials
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from raydist import address
from raydist.errors import AwayError, StoreError
from raydist.store import credentials
from raydist.store.location import prepare

T = TypeVar("T")

_TRIES: dict[str, Any] = {
    # Some seconds in all, so that a wrong address is told soon.
    "max_retries": 12,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
    "retry_timeout": timedelta(seconds=30),
}
_CONNECT_S = timedelta(seconds=5)
_READ_S = timedelta(seconds=30)
_SOON_S = timedelta(seconds=5)
_PIECE = 4 << 20
_NAMES = 1000
"""Of objects, in a request."""
_BROKEN_OFF = 6


def create(location: str, name: str, data: bytes) -> bool:
    """Write an object that must not exist; False if it does.

    Also False where the answer to a first try was lost and the second found what it had written.
    """

    def put(store: Any) -> bool:
        try:
            store.put(name, data, mode="create")
        except client().exceptions.AlreadyExistsError:
            return False
        return True

    return _asked(location, put, insist=True)


def replace(location: str, name: str, data: bytes | Path, *, soon: bool = False) -> str:
    """Write an object, or a file as one, whether or not it is there; its new ETag.

    Args:
        soon: within seconds or not at all.
    """
    if isinstance(data, Path):
        data.open("rb").close()  # a file that is gone, or may not be read, is no matter of the bucket's
    return _asked(location, lambda store: str(store.put(name, data)["e_tag"] or ""), soon=soon)


def read(location: str, name: str, *, soon: bool = False) -> bytes | None:
    """An object's bytes, None if there is none; `soon` as for `replace`."""
    return _asked(location, lambda store: _unless_missing(lambda: bytes(store.get(name).bytes())), soon=soon)


def download(location: str, name: str, path: Path) -> str:
    """Write an object's bytes to a file; its ETag.

    Raises:
        OSError: the file cannot be written; the message says what to do.
        StoreError: also if there is none.
    """

    def get(store: Any) -> str:
        found = store.get(name)
        if file.tell():  # a try that broke off
            file.seek(0)
            file.truncate()
        for piece in found.stream(min_chunk_size=_PIECE):
            file.write(bytes(piece))
        file.flush()
        return str(found.meta["e_tag"] or "")

    with path.open("wb") as file:
        return _asked(location, get)


def delete(location: str, name: str) -> None:
    """Delete an object; nothing happens if there is none."""
    _asked(location, lambda store: _unless_missing(lambda: store.delete(name)))


def delete_all(location: str, names: Sequence[str]) -> None:
    """Delete objects, a thousand a request where the server knows that; nothing happens for those that are gone."""
    if address.scheme_of(location) != "s3":
        for name in names:
            delete(location, name)
        return
    for start in range(0, len(names), _NAMES):
        some = list(names[start : start + _NAMES])
        # The client tries no POST again, as it cannot know that this one may be done twice.
        _asked(location, lambda store: _unless_missing(lambda: store.delete(some)), insist=True)  # noqa: B023  # at once


def direct(location: str, prefix: str) -> list[dict[str, Any]]:
    """The objects directly below a prefix: `path`, `size`, `e_tag`, `last_modified`."""
    return _asked(location, lambda store: list(store.list_with_delimiter(prefix or None)["objects"]))


def below(location: str, prefix: str) -> list[dict[str, Any]]:
    """The objects below a prefix, however deep; see `direct`."""
    found = _asked(location, lambda store: [entry for batch in store.list(prefix or None) for entry in batch])
    # Other clients, such as Ray Train's, write empty objects that stand for folders; keys come in their order.
    return [entry for entry, after in zip(found, [*found[1:], None], strict=False) if not _is_folder(entry, after)]


def _is_folder(entry: dict[str, Any], after: dict[str, Any] | None) -> bool:
    return after is not None and entry["size"] == 0 and str(after["path"]).startswith(f"{entry['path']}/")


def folders(location: str, prefix: str = "") -> list[str]:
    """The last names of what has objects below `prefix`, one level down."""
    found = _asked(location, lambda store: list(store.list_with_delimiter(prefix or None)["common_prefixes"]))
    return [name.rstrip("/").rpartition("/")[2] for name in found]


def now(location: str) -> float | None:
    """The time by the server's clock, in seconds since 1970; None where it does not tell."""
    prepare(location)
    usual = {"s3": "https://s3.amazonaws.com", "gs": "https://storage.googleapis.com"}[address.scheme_of(location)]
    server = (os.environ.get("AWS_ENDPOINT_URL") if usual.startswith("https://s3.") else None) or usual
    try:
        # Nothing is asked for but the head of whatever the answer is.
        with urlopen(Request(server, method="HEAD"), timeout=_SOON_S.total_seconds()) as answer:
            told = answer.headers["Date"]
    except HTTPError as error:
        told = error.headers["Date"]
    except (OSError, ValueError):
        return None
    found = parsedate_tz(told or "")
    return None if found is None else float(mktime_tz(found))


def file_system(location: str) -> Any:
    """A bucket as a `pyarrow.fs.FileSystem`; sent to a worker, it opens the bucket as that worker's machine does."""
    prepare(location)
    from pyarrow import fs

    if address.scheme_of(location) == "gs":
        return _gs()
    bucket = location.partition("://")[2].partition("/")[0]
    server = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    options = {"endpoint_override": server.netloc, "scheme": server.scheme} if server.netloc else {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or credentials.region_of(bucket)

    class Bucket(fs.S3FileSystem):  # type: ignore[misc]  # pyarrow is untyped
        def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
            return file_system, (location,)

    return Bucket(
        region=region or None,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=12),
        connect_timeout=_CONNECT_S.total_seconds(),
        request_timeout=_READ_S.total_seconds(),
        **options,
    )


def _gs() -> Any:
    from pyarrow import fs

    server = urlsplit(os.environ.get("STORAGE_EMULATOR_HOST", ""))
    options = {"endpoint_override": server.netloc, "scheme": server.scheme} if server.netloc else {}
    return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=30), **options)


def client() -> Any:
    """
    Raises:
        StoreError: obstore is not installed; the message says what to install.
    """
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ModuleNotFoundError as error:
        raise StoreError(
            "an archive in a bucket needs obstore, which is not installed here: run `pip install 'raydist[s3]'` on "
            "this machine and on every node"
        ) from error
    return obstore


def _asked(location: str, call: Callable[[Any], T], *, soon: bool = False, insist: bool = False) -> T:
    """What `call` gives of the store below `location`; what it raises becomes a StoreError."""
    errors = client().exceptions
    prepare(location)
    # The client reads the environment when it is made: another environment is another client.
    known = tuple(sorted(item for item in os.environ.items() if item[0].startswith(("AWS_", "GOOGLE_"))))
    number = 0
    while True:
        try:
            return call(_opened(location, known, soon))
        except (errors.BaseError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of this machine's disk
            number += 1
            is_away = credentials.is_away(str(error))
            # The client tries requests again, but not where the answer to a listing or a deletion breaks off, nor what
            # may not be done twice for all it knows: an object that must not exist, a deletion of many.
            if number == _BROKEN_OFF or not ("body error" in str(error) or (insist and is_away)):
                wrong = AwayError if is_away else StoreError
                # No cause: Ray and --debug write causes to logs, and this one holds what the server answered.
                raise wrong(credentials.explained(location, str(error))) from None
        time.sleep(random.uniform(0, 0.1) * 2**number)


@lru_cache(maxsize=16)
def _opened(location: str, known: tuple[tuple[str, str], ...], soon: bool) -> Any:
    del known
    bucket, _, prefix = location.partition("://")[2].partition("/")
    options: dict[str, Any] = {"connect_timeout": _CONNECT_S, "timeout": _SOON_S if soon else _READ_S}
    retries = {**_TRIES, "max_retries": 0} if soon else _TRIES
    if address.scheme_of(location) == "gs":
        made = client().store.GCSStore
        return made(bucket, prefix=prefix or None, client_options=options, retry_config=retries)
    if os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true":
        options["allow_http"] = True
    return client().store.S3Store(
        bucket, prefix=prefix or None, client_options=options, retry_config=retries, **credentials.of_s3(bucket)
    )


def _unless_missing(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except FileNotFoundError as error:
        if credentials.is_bucket_missing(str(error)):  # it answers with the status of a missing object
            raise
        return None
