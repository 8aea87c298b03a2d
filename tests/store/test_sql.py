"""Quoting: whatever a value or a name holds, it stays a value or a name."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store import tables

from raydist.errors import StoreError
from raydist.store import commit, read, schema, sql


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    location = str(tmp_path_factory.mktemp("archive"))
    rows = tables.clips([-(2**63), 0, 7], start_s=[0.1, 1e-9, 30.0], split=["it's", "-- x", 'a"b`c'])
    commit.append(location, "clips", rows, schema.CLIPS)
    commit.append(location, "roots", tables.filled(schema.ROOTS, 1, name="r", at=tables.NOW), schema.ROOTS)
    return location


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_is_compared_as_it_is(archive: str, text: str) -> None:
    matching = sql.all_of(sql.equals("clip_key", 7), f"{sql.quote_sql(text)} = {sql.quote_sql(text)}")
    assert read.count_rows(archive, "clips", matching) == 1
    assert read.count_rows(archive, "clips", sql.equals("split", text)) == (text in ("it's", "-- x", 'a"b`c'))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("clip_key", -(2**63)),
        ("clip_key", 7),
        ("start_s", 0.1),
        ("start_s", 1e-9),
        ("split", "it's"),
        ("split", 'a"b`c'),
    ],
)
def test_a_value_finds_its_row(archive: str, column: str, value: int | float | str) -> None:
    assert read.count_rows(archive, "clips", sql.equals(column, value)) == 1
    assert read.count_rows(archive, "clips", sql.is_in(column, [value])) == 1


def test_a_moment_finds_its_row(archive: str) -> None:
    assert read.count_rows(archive, "roots", sql.equals("at", tables.NOW)) == 1


def test_null_is_found_as_null_and_nothing_is_in_no_values(archive: str) -> None:
    assert read.count_rows(archive, "clips", sql.equals("source_id", None)) == 3
    assert read.count_rows(archive, "clips", sql.is_in("clip_key", [])) == 0
    assert read.count_rows(archive, "clips", sql.not_true(sql.equals("source_id", "x"))) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", datetime(2026, 1, 1)])
def test_what_has_no_literal_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"literal|time zone"):
        sql.quote_sql(value)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(
    pattern=st.text(st.sampled_from("ab*?%_\\'."), max_size=6), text=st.text(st.sampled_from("ab%_\\'*."), max_size=6)
)
def test_a_pattern_knows_two_wildcards_and_no_others(archive: str, pattern: str, text: str) -> None:
    fits = sql.like("split", pattern).replace(sql.quote_name("split"), sql.quote_sql(text))
    expected = re.fullmatch("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), text, re.DOTALL)
    assert read.count_rows(archive, "clips", sql.all_of(fits)) == (3 if expected else 0)


@settings(max_examples=100, deadline=None)
@given(start=st.text(st.sampled_from("it's-x %_\\"), max_size=4))
def test_a_beginning_is_compared_as_it_is(archive: str, start: str) -> None:
    values = ("it's", "-- x", 'a"b`c')
    expected = sum(value.startswith(start) for value in values)
    assert read.count_rows(archive, "clips", sql.starts_with("split", start)) == expected


def test_what_is_not_among_values_is_everything_else(archive: str) -> None:
    assert read.count_rows(archive, "clips", sql.not_in("split", ["it's", "x"])) == 2
    assert read.count_rows(archive, "clips", sql.not_in("split", [])) == 3


@pytest.mark.parametrize("escape", ["TRUE) OR (TRUE", "split = 'x", "(TRUE", "TRUE -- ", "TRUE /* ", "`split = 'x'"])
def test_a_condition_cannot_leave_its_brackets(escape: str) -> None:
    with pytest.raises(StoreError, match="closing brackets and quotes"):
        sql.whole(escape)


@pytest.mark.parametrize("fine", ["(a = 1) OR (b = ')')", "split = '-- it''s /* x'", "`a(b` = 1"])
def test_brackets_and_dashes_in_quotes_are_text(fine: str) -> None:
    assert sql.whole(fine) == fine
