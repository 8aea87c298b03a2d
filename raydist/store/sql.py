"""The only place where SQL is assembled: values and names are quoted here, never pasted elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from raydist.errors import StoreError

Value = str | int | float | bool | datetime | None


def quote_sql(value: Value) -> str:
    """A value as an SQL literal of the dialect that Lance filters speak.

    Raises:
        ValueError: for a type that has no literal, or a float that is no number.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        # The parser reads the minus apart and would overflow on the smallest int64.
        return str(value) if value > -(2**63) else "(-9223372036854775807 - 1)"
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value!r} has no SQL literal, expected a finite number")
        return repr(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone, expected an aware time")
        return f"TIMESTAMP '{value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    raise ValueError(f"{value!r} of type {type(value).__name__} has no SQL literal")


def quote_name(column: str) -> str:
    """A column's name, whatever characters it holds."""
    return "`" + column.replace("`", "``") + "`"


def equals(column: str, value: Value) -> str:
    """`column = value`, or `column IS NULL`."""
    if value is None:
        return f"{quote_name(column)} IS NULL"
    return f"{quote_name(column)} = {quote_sql(value)}"


def other_than(column: str, value: Value) -> str:
    """`column <> value`."""
    return f"{quote_name(column)} <> {quote_sql(value)}"


def is_in(column: str, values: Iterable[Value]) -> str:
    """`column IN (…)`; no value at all matches nothing."""
    literals = ", ".join(quote_sql(value) for value in values)
    return f"{quote_name(column)} IN ({literals})" if literals else "FALSE"


def not_in(column: str, values: Iterable[Value]) -> str:
    """`column NOT IN (…)`; without a value everything matches."""
    literals = ", ".join(quote_sql(value) for value in values)
    return f"{quote_name(column)} NOT IN ({literals})" if literals else "TRUE"


def starts_with(column: str, text: str) -> str:
    """Texts that begin with this one."""
    return f"starts_with({quote_name(column)}, {quote_sql(text)})"


def like(column: str, pattern: str) -> str:
    """Texts that fit a pattern in which `*` stands for any letters and `?` for one."""
    escaped = "".join(f"\\{letter}" if letter in "\\%_" else letter for letter in pattern)
    translated = escaped.replace("*", "%").replace("?", "_")
    return f"{quote_name(column)} LIKE {quote_sql(translated)} ESCAPE '\\'"


def pairs_in(number: str, text: str, pairs: Iterable[tuple[int, str | None]]) -> str:
    """The rows whose columns `number` and `text` hold one of the pairs; flat, so that thousands of pairs parse."""
    known = list(pairs)
    joined = f"(CAST({quote_name(number)} AS STRING) || ' ' || {quote_name(text)})"
    whole = [f"{key} {value}" for key, value in known if value is not None]
    literals = ", ".join(map(quote_sql, whole))
    conditions = [f"{is_in(number, {key for key, value in known if value is not None})} AND {joined} IN ({literals})"]
    nulls = [key for key, value in known if value is None]
    parts = (conditions if whole else []) + ([f"{is_in(number, nulls)} AND {equals(text, None)}"] if nulls else [])
    return " OR ".join(f"({part})" for part in parts) or "FALSE"


def between(column: str, low: int | None, high: int | None) -> str:
    """low <= column <= high; None leaves that side open, "" when both are."""
    parts = [f"{quote_name(column)} >= {quote_sql(low)}"] if low is not None else []
    if high is not None:
        parts.append(f"{quote_name(column)} <= {quote_sql(high)}")
    return " AND ".join(parts)


def whole(condition: str) -> str:
    """A condition as a person wrote it, if it may stand in brackets beside others.

    Raises:
        StoreError: if it closes brackets or quotes that it did not open, or leaves some open.
    """
    depth, quote, bare = 0, "", ""
    for letter in condition:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'`\"":
            quote = letter
        else:
            bare += letter
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if depth < 0:
                break
    if depth or quote or "--" in bare or "/*" in bare:
        raise StoreError(
            f"cannot filter by {condition!r}: expected one SQL condition with as many closing brackets and quotes as "
            "opening ones, and no comment"
        )
    return condition


def all_of(*conditions: str | None) -> str | None:
    """The conditions that are given, joined by AND; None when none is."""
    given = [f"({condition})" for condition in conditions if condition]
    return " AND ".join(given) or None


def not_true(condition: str) -> str:
    """The rows that a delete by `condition` leaves, those where it is NULL included."""
    return f"({condition}) IS NOT TRUE"
