"""Opening tables, creating them, and turning Lance's errors into ours.

Promises  a handle is fresh at each call (handles go stale); creating a table twice at once keeps one; an error of
          Lance or of the storage below it leaves this module as a `StoreError` without Rust's source paths and without
          what a bucket's server answered, which may hold key ids and session tokens; so do its causes
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import lance
import pyarrow as pa

from raydist.errors import AwayError, StoreError, disk_remedy
from raydist.store import buckets, credentials
from raydist.store.location import folder, is_uri, table_uri

T = TypeVar("T")

_RUST_PLACE = re.compile(r",?\s*/\S+\.rs:\d+:\d+")
_VALID_FIELDS = re.compile(r"\s*Valid fields are [^.]*\.")


def reason_of(error: BaseException, uri: str = "") -> str:
    """What Lance said, without the source lines of its Rust core; of a bucket's server, what it means.

    Args:
        uri: the table's.
    """
    if is_uri(uri) and not isinstance(error, StoreError) and credentials.is_of_server(str(error)):
        return credentials.explained(uri, _RUST_PLACE.sub("", str(error)))
    text = _VALID_FIELDS.sub("", _RUST_PLACE.sub("", str(error)).replace("Invalid user input: ", ""))
    text, remedy = text.strip().rstrip(",."), disk_remedy(error)
    return f"{text}; {remedy}" if remedy else text


def is_of_storage(error: Exception, uri: str) -> bool:
    """Whether Lance raised it for a disk or a bucket's server, not for what it was asked."""
    text = str(error)
    return isinstance(error, OSError) or "LanceError(IO)" in text or (is_uri(uri) and credentials.is_of_server(text))


def trouble(what: str, error: Exception, uri: str) -> StoreError:
    """What Lance raised as an error of ours, of the kind and with the cause that tell whether to try again."""
    is_away = is_uri(uri) and (isinstance(error, AwayError) or credentials.is_away(str(error)))
    found = (AwayError if is_away else StoreError)(f"{what}: {reason_of(error, uri)}")
    found.__cause__ = error
    if is_uri(uri) and not isinstance(error, StoreError):
        # Ray and --debug write causes to logs.
        found.__cause__ = (OSError if isinstance(error, OSError) else ValueError)(credentials.scrubbed(str(error)))
    return found


def columns_text(schema: pa.Schema) -> str:
    """Names and types of columns, for a message."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


@contextmanager
def lance_errors(uri: str, *, where: str | None = None, schema: pa.Schema | None = None) -> Iterator[None]:
    """Turn what Lance raises inside into a StoreError; with `where`, one that lists the columns it may use."""
    try:
        yield
    except (ValueError, OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if where is not None and schema is not None and not is_of_storage(error, uri):
            raise StoreError(
                f"cannot filter by {where!r}: {reason_of(error)}. Expected an SQL condition over the columns "
                f"{columns_text(schema)}; texts stand in single quotes."
            ) from error
        wrong = trouble(f"table {uri!r} cannot be used", error, uri)
        raise wrong from wrong.__cause__


def again(call: Callable[[], T]) -> T:
    """What `call` gives, which may be done twice: tried again where the answer to a listing of a bucket broke off.

    Lance tries all other requests again by itself. A conflict is another's doing and is raised at once.
    """
    for wait in (0.1, 0.2, 0.4, 0.8, 1.6):
        try:
            return call()
        except (OSError, ValueError) as error:
            if "body error" not in str(error):
                raise
            time.sleep(random.uniform(0, wait))
    return call()


def open_table(location: str, table: str, *, version: int | None = None) -> lance.LanceDataset | None:
    """A fresh handle on a table (at `version`, else the latest), None if there is no such table.

    Raises:
        StoreError: if it is there and cannot be opened.
    """
    uri = table_uri(location, table)
    try:
        return again(lambda: lance.dataset(uri, version=version))
    except (ValueError, OSError) as error:
        if "was not found" in str(error) and version is None:
            return None
        wrong = trouble(f"table {uri!r} cannot be opened", error, uri)
        raise wrong from wrong.__cause__


def need_table(location: str, table: str, *, version: int | None = None) -> lance.LanceDataset:
    """Like `open_table`, for a table that must be there.

    Raises:
        StoreError: if it is not; the message lists the tables that are.
    """
    dataset = open_table(location, table, version=version)
    if dataset is None:
        there = ", ".join(table_names(location)) or "none"
        raise StoreError(f"no table {table!r} in the archive {location!r}; its tables: {there}")
    return dataset


def create_table(location: str, table: str, schema: pa.Schema) -> lance.LanceDataset:
    """The table, created empty if it is not there; safe with any number of creators at once.

    The creating commit asks for version 1 and never tries again: a loser finds the winner's table, so no creator can
    overwrite rows.
    """
    dataset = open_table(location, table)
    if dataset is not None:
        return dataset
    uri = table_uri(location, table)
    operation = lance.LanceOperation.Overwrite(schema, [])
    try:
        # No argument says the file format here: Lance's default is the one wanted, and a test holds it to that.
        return again(lambda: lance.LanceDataset.commit(uri, operation, read_version=0, max_retries=0))
    except (OSError, ValueError) as error:
        dataset = open_table(location, table)
        if dataset is None:
            wrong = trouble(f"table {uri!r} cannot be created", error, uri)
            raise wrong from wrong.__cause__
        return dataset


def ensure_columns(location: str, table: str, extra: dict[str, pa.DataType]) -> None:
    """Add columns that the table lacks, empty in the rows that are there.

    Raises:
        StoreError: if a column is there with another type.
    """
    dataset = need_table(location, table)
    there = {field.name: field.type for field in dataset.schema}
    for name, kind in extra.items():
        if name in there and there[name] != kind:
            raise StoreError(
                f"column {name!r} of table {table!r} holds {there[name]}, the new values are {kind}; "
                "rename the new column or give values of that type"
            )
    missing = [pa.field(name, kind) for name, kind in extra.items() if name not in there]
    if missing:
        with lance_errors(dataset.uri):
            dataset.add_columns(pa.schema(missing))


def table_names(location: str) -> list[str]:
    """The tables of an archive, sorted; [] where nothing is."""
    if is_uri(location):
        names = buckets.folders(location)
        return sorted(name.removesuffix(".lance") for name in names if name.endswith(".lance"))
    root = folder(location)
    if not root.is_dir():
        return []
    # A creator that was killed leaves a folder without a version: no table yet.
    return sorted(path.name[:-6] for path in root.glob("*.lance") if any((path / "_versions").glob("*.manifest")))
