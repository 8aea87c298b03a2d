"""tabular: lists that people write, export from a spreadsheet or compute: CSV, TSV, JSONL, JSON, Parquet.

Reads     UTF-8, UTF-16 with a mark, else Windows-1252 (Latin-1); fields between commas, semicolons, tabs or bars
Promises  each line comes with its number; what had to be guessed, and lines that do not fit, are said in `notes`
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raydist.errors import UsageError

PLACES = (
    "clip_id", "clip", "clip_name", "clip_key", "video_id", "path", "file", "file_path", "filepath", "filename",
    "file_name", "video", "video_path", "video_file", "video_name", "name", "url", "id",
)  # fmt: skip
"""Names of columns that say which file or clip a line is about, as `plain` gives them."""

_SEPARATORS = ",;\t|"
_LOOKED_AT = 2_000
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_NO_TEXT = {b"PK\x03\x04": "an Excel or OpenDocument spreadsheet", b"\xd0\xcf\x11\xe0": "an Excel spreadsheet"}
_PARQUET = b"PAR1"
_EXPECTED = "expected a CSV, TSV, JSONL, JSON or Parquet file"
_ROWS = 10_000
_TEXT_BYTES = 64 << 10
"""Bytes without a stated encoding are taken for text up to this size on average; larger ones are files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One record of a list."""

    number: int
    """Of its first line in the file, from 1; of its row in Parquet."""
    values: Mapping[str, Any]
    """Column -> text, or what JSON or Parquet give; fields that are not there are left out."""
    source: str = ""
    """Where it is, if lines come from many files."""

    @property
    def where(self) -> str:
        """For messages: `line 2`."""
        return self.source or f"line {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a file lists."""

    file: str
    option: str
    """The option that named the file, for messages: `--from`."""
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    unread: tuple[str, ...] = ()
    """Columns that hold neither text nor numbers, each with what it holds."""
    beside: bool = False
    """Whether lines come from files that bear the names of their videos."""


def read(file: str, option: str) -> Listing:
    """Read a list. What its suffix says does not matter: JSON begins with a brace or a bracket, Parquet with `PAR1`.

    Raises:
        UsageError: no such file, no text, no JSON, quotes that do not close, a damaged file.
    """
    what = f"{option} {file!r}"
    path = os.path.expanduser(file)
    if _head(path, what) == _PARQUET:
        return _from_parquet(path, file, option)
    text, notes = _text(path, what)
    if not text.strip():
        raise UsageError(f"{what} is empty: expected CSV with a line of column names, or a JSON object a line")
    if text.lstrip()[0] in "{[":
        columns, lines = _from_json(text, what)
    else:
        columns, lines, more = _from_csv(text, what)
        notes += more
    return Listing(file=file, option=option, columns=columns, lines=lines, notes=tuple(notes))


def plain(column: str) -> str:
    """A column's name without what differs from one spreadsheet to the next: `File Name` -> `file_name`."""
    return re.sub(r"[\s\-.]+", "_", column.strip().lower())


def columns_of(listing: Listing, names: Sequence[str], named: str = "") -> list[str]:
    """The columns that bear one of the names, in the order of `names`; or only the one that was `named`.

    Raises:
        UsageError: if there is no column of the name that was given.
    """
    if named:
        if named in listing.columns:
            return [named]
        alike = [column for column in listing.columns if plain(column) == plain(named)]
        if len(alike) == 1:
            return alike
        near = difflib.get_close_matches(named, listing.columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {list(listing.columns)}"
        raise UsageError(f"{listing.option} {listing.file!r} has no column {named!r}: {hint}")
    return [column for name in names for column in listing.columns if plain(column) == name]


def best_column(listing: Listing, candidates: Sequence[str], known: Callable[[str], bool]) -> str:
    """Of some columns the one with most values that are known; the first where several do equally well."""
    looked_at = listing.lines[:_LOOKED_AT]

    def hits(column: str) -> int:
        return sum(known(str(line.values.get(column) or "").strip()) for line in looked_at)

    return max(candidates, key=hits) if len(candidates) > 1 else candidates[0]


def _head(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(len(_PARQUET))
    except FileNotFoundError as error:
        raise UsageError(f"{what} does not exist: {_EXPECTED}") from error
    except OSError as error:
        raise UsageError(f"{what} cannot be read ({error.strerror}): {_EXPECTED}") from error


def _text(path: str, what: str) -> tuple[str, list[str]]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError(f"{what} cannot be read ({error.strerror}): {_EXPECTED}") from error
    text, western = decoded(data, what)
    return text, [f"{file_name(path)}: read as Windows-1252 (Latin-1), for it is no UTF-8"] * western


def decoded(data: bytes, what: str) -> tuple[str, bool]:
    """A text from its bytes, and whether they had to be read as Windows-1252.

    Args:
        what: names the text in messages.

    Raises:
        UsageError: no text, or it is not what its mark says.
    """
    for head, kind in _NO_TEXT.items():
        if data.startswith(head):
            raise UsageError(f"{what} is {kind}: expected text; export or save it as CSV")
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    western = False
    try:
        text = data.decode(marked or "utf-8")
    except UnicodeDecodeError as error:
        if marked:
            raise UsageError(f"{what} is damaged: its mark says {marked}, and {error.reason}") from error
        text, western = _western(data), True
    if "\0" in text:
        raise UsageError(f"{what} is no text, it holds zero bytes: expected text in UTF-8")
    return text, western


def file_name(path: str) -> str:
    """The last part of a path."""
    return os.path.basename(path)


def _western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _from_csv(text: str, what: str) -> tuple[tuple[str, ...], tuple[Line, ...], list[str]]:
    lines = io.StringIO(text, newline="")
    skipped = 0
    separator = ""
    first = lines.readline()
    stated = re.fullmatch(r"sep=(.)\s*", first)  # Excel's own way to say it
    if stated:
        separator, skipped = stated[1], 1
    else:
        lines.seek(0)
    separator = separator or _separator(text)
    rows = csv.reader(lines, delimiter=separator, strict=True)
    records: list[Line] = []
    columns: tuple[str, ...] = ()
    misfits: list[int] = []
    for number, row in _numbered(rows, what, skipped):
        if not any(field.strip() for field in row):
            continue
        if not columns:
            columns = tuple(field.strip() for field in row)
            _refuse_twins(columns, what)
        elif len(row) > len(columns) and any(field.strip() for field in row[len(columns) :]):
            misfits.append(number)
        else:
            values = {name: value for name, value in zip(columns, row, strict=False) if name}
            records.append(Line(number=number, values=values))
    notes = []
    if misfits:
        notes.append(
            f"{len(misfits):,} lines left out, such as line {misfits[0]}: more fields than the {len(columns)} columns "
            f"that the first line names; a text that holds {separator!r} must stand in quotes"
        )
    return columns, tuple(records), notes


def _numbered(rows: Any, what: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Records with the number of the line that each begins in."""
    while True:
        number = rows.line_num + 1 + skipped
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(
                f"{what}, line {number}: {error}; expected a text with quotes in quotes, each quote in it doubled: "
                '"she says ""yes"""'
            ) from error
        yield number, row


def _separator(text: str) -> str:
    """The sign that most often stands between the names of the columns, quoted parts left out."""
    head = re.sub(r'"[^"]*"', "", text.lstrip().splitlines()[0])
    return max(_SEPARATORS, key=lambda sign: head.count(sign))


def _refuse_twins(columns: Sequence[str], what: str) -> None:
    twins = [name for name in columns if name and columns.count(name) > 1]
    if twins:
        raise UsageError(f"{what} has two columns named {twins[0]!r}: expected each name once; rename one of them")


def _from_json(text: str, what: str) -> tuple[tuple[str, ...], tuple[Line, ...]]:
    """A list of objects, an object a line, or one object of name -> text."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        found = list(_objects(text, what))
    else:
        if isinstance(whole, dict) and not {plain(name) for name in whole} & set(PLACES):
            whole = [{"path": name, "text": value, "split": value} for name, value in whole.items()]
        whole = [whole] if isinstance(whole, dict) else whole
        found = list(enumerate(whole, start=1))
    records = []
    for number, value in found:
        if not isinstance(value, dict):
            raise UsageError(
                f"{what}, record {number}: {str(value)[:60]!r} is no object; expected one with a name and a text, such "
                'as {"path": "a.mp4", "caption": "a dog jumps"}'
            )
        records.append(Line(number=number, values={str(name): item for name, item in value.items()}))
    columns = tuple(dict.fromkeys(name for record in records for name in record.values))
    return columns, tuple(records)


def _objects(text: str, what: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:  # also nested too deep, or a number of too many digits
                reason = str(error)
                if isinstance(error, json.JSONDecodeError):
                    reason = f"{error.msg}, character {error.pos + 1}"
                raise UsageError(
                    f"{what}, line {number} is no JSON ({reason}): expected an object a line, a list of objects, or CSV"
                ) from error


def _from_parquet(path: str, file: str, option: str) -> Listing:
    """Columns of texts, numbers and lists of texts; others, such as vectors and pictures, are not even read."""
    what = f"{option} {file!r}"
    try:
        with pq.ParquetFile(path) as table:
            schema = table.schema_arrow
            _refuse_twins(schema.names, what)
            kinds = {field.name: _kind(field.type, _mean_bytes(table, field.name)) for field in schema}
            wanted = [name for name, kind in kinds.items() if kind]
            lines: list[Line] = []
            for batch in table.iter_batches(_ROWS, columns=wanted):
                columns = [_values(batch[name]) for name in wanted]
                for row in zip(*columns, strict=True):
                    values = dict(zip(wanted, row, strict=True))
                    lines.append(Line(number=len(lines) + 1, values=values))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{what} is a damaged Parquet file ({reason}): write or copy it again") from error
    unread = tuple(f"{field.name} ({field.type})" for field in schema if not kinds[field.name])
    notes = [f"columns not read, for they hold neither text nor numbers: {', '.join(unread)}"] if unread else []
    return Listing(
        file=file, option=option, columns=tuple(wanted), lines=tuple(lines), notes=tuple(notes), unread=unread
    )


def _mean_bytes(table: pq.ParquetFile, column: str) -> float:
    """Bytes of a value of a flat column, as stored before compression."""
    metadata = table.metadata
    total = 0
    for group in range(metadata.num_row_groups):
        parts = metadata.row_group(group)
        for place in range(parts.num_columns):
            if parts.column(place).path_in_schema == column:
                total += int(parts.column(place).total_uncompressed_size)
    return total / max(1, int(metadata.num_rows))


def _kind(kind: pa.DataType, mean_bytes: float) -> bool:
    """Whether a list may hold such values: texts, numbers, times, several texts."""
    types = pa.types
    if types.is_dictionary(kind):
        return _kind(kind.value_type, mean_bytes)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return mean_bytes <= _TEXT_BYTES
    if types.is_list(kind) or types.is_large_list(kind):
        inner = [field.type for field in kind.value_type] if types.is_struct(kind.value_type) else [kind.value_type]
        several = all(_kind(each, math.inf) for each in inner)
        return several and any(types.is_string(each) or types.is_large_string(each) for each in inner)
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(numbers or texts or types.is_time(kind) or types.is_duration(kind) or types.is_null(kind))


def _values(column: pa.Array) -> list[Any]:
    """As JSON would give them; numbers that are none, as a data frame has where there is nothing, are null."""
    kind = column.type
    if pa.types.is_duration(kind):
        column = column.cast(pa.duration("us"), safe=False)
    elif pa.types.is_time64(kind):
        column = column.cast(pa.time64("us"), safe=False)
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(kind):
        return [None if value is None or value != value else value for value in values]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [value and value.decode("utf-8", errors="replace") for value in values]
    return values
