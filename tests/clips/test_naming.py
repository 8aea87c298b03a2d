"""Names, spans and splits: rules that hold for every input."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.clips import naming
from raydist.clips.naming import NamingTemplate
from raydist.errors import ClipError
from raydist.records import Span

durations_ms = st.integers(0, 400_000)
lengths_ms = st.integers(1_000, 120_000)


def ms(start: int, end: int) -> Span:
    return Span(start_ms=start, end_ms=end)


@given(st.binary())
def test_any_bytes_of_a_path_come_back(raw: bytes) -> None:
    encoded = naming.encode_path(raw)
    assert encoded.encode().decode() == encoded
    assert naming.decode_path(encoded) == raw


@given(st.binary(), st.binary())
def test_two_paths_never_share_their_text(one: bytes, other: bytes) -> None:
    assert (naming.encode_path(one) == naming.encode_path(other)) == (one == other)


def test_a_path_is_readable_unless_it_is_not_utf8() -> None:
    assert naming.encode_path("Größe/日本.mp4".encode()) == "Größe/日本.mp4"
    assert naming.encode_path(b"100%.mp4") == "100%25.mp4"
    assert naming.encode_path(b"caf\xe9.mp4") == "caf%E9.mp4"


def test_an_id_is_the_same_however_letters_are_composed() -> None:
    assert naming.video_id("r", "e\u0301.mp4") == naming.video_id("r", "\u00e9.mp4") == "r/\u00e9.mp4"


@given(st.text(min_size=1), st.integers(0, 10**9), st.integers(1, 10**7))
def test_a_clip_id_parses_into_what_it_was_made_of(video: str, start: int, length: int) -> None:
    span = ms(start, start + length)
    assert naming.parse_clip_id(naming.clip_id(video, span)) == (video, span)


def test_a_clip_id_reads_well() -> None:
    assert naming.clip_id("talks/a.mp4", ms(210_000, 240_000)) == "talks/a.mp4#t=210,240"
    assert naming.clip_id("talks/a.mp4", ms(0, 7_500)) == "talks/a.mp4#t=0,7.5"
    assert naming.clip_id("a#t=1,2.mp4", ms(1, 12_345)) == "a#t=1,2.mp4#t=0.001,12.345"
    assert naming.parse_clip_id("a#t=1,2.mp4#t=0.001,12.345") == ("a#t=1,2.mp4", ms(1, 12_345))


@pytest.mark.parametrize(
    "text", ["", "a.mp4", "a.mp4#t=", "a.mp4#t=1", "a.mp4#t=1,", "a.mp4#t=-1,2", "#t=1,2", "a#t=1e3,2"]
)
def test_what_is_no_clip_id_is_refused_and_named(text: str) -> None:
    with pytest.raises(ClipError, match="no clip id"):
        naming.parse_clip_id(text)


@pytest.mark.parametrize("span", [ms(5, 5), ms(5, 4), ms(-1, 4)])
def test_an_empty_reversed_or_negative_span_has_no_id(span: Span) -> None:
    with pytest.raises(ClipError, match="no span"):
        naming.clip_id("a.mp4", span)


@given(st.text())
def test_a_clip_key_is_a_signed_64_bit_number(text: str) -> None:
    assert -(2**63) <= naming.clip_key(text) < 2**63
    assert naming.clip_key(text) == naming.clip_key(text)


def test_a_clip_key_never_changes() -> None:
    assert naming.clip_key("talks/a.mp4#t=210,240") == -1_377_683_668_306_395_488


@given(durations_ms, lengths_ms, st.integers(0, 10_000))
def test_spans_cover_a_file_without_gap_or_overlap(duration: int, length: int, shortest: int) -> None:
    spans = naming.cut(duration, length, shortest)
    assert spans[0].start_ms == 0
    assert all(one.end_ms == other.start_ms for one, other in pairwise(spans))
    assert all(span.end_ms - span.start_ms == length for span in spans[:-1])
    dropped = max(1, duration) - spans[-1].end_ms
    assert 0 <= dropped < max(1, min(shortest, length))
    last = spans[-1].end_ms - spans[-1].start_ms
    assert last >= min(shortest, length) or len(spans) == 1


@given(st.text())
def test_a_source_is_dealt_the_same_part_every_time(source: str) -> None:
    assert naming.deal(source) == naming.deal(source) in ("train", "val", "test")


def test_about_eight_of_ten_sources_are_for_training() -> None:
    dealt = [naming.deal(f"talks/{number}") for number in range(20_000)]
    assert abs(dealt.count("train") / 20_000 - 0.8) < 0.01
    assert abs(dealt.count("val") / 20_000 - 0.1) < 0.01


def test_the_deal_never_changes() -> None:
    dealt = "train test train train val train train train val train train train"
    assert " ".join(naming.deal(f"talks/{number}") for number in range(12)) == dealt


@given(st.text(), st.integers(1, 2_000))
def test_parts_of_one_video_lie_apart(source: str, clips: int) -> None:
    parts = naming.deal_parts(source, clips)
    assert len(parts) == clips
    if clips < 5:
        assert len(set(parts)) == 1
        return
    runs = [part for number, part in enumerate(parts) if number == 0 or parts[number - 1] != part]
    assert runs == ["train", "gap", "val", "gap", "test"]
    assert parts.count("gap") == 2
    assert parts.count("train") >= parts.count("val") == parts.count("test")


def test_a_template_finds_the_source_and_the_place() -> None:
    template = NamingTemplate(template="{video}_{index}", index_base=1)
    assert template.match("talks/monday_007.mp4") == ("talks/monday", 6)
    assert template.match("talks/monday_part_2.mp4") == ("talks/monday_part", 1)
    assert template.match("talks/monday_0.mp4") is None
    assert template.match("talks/monday.mp4") is None
    assert NamingTemplate(template="{video}/clip_{index}").match("talks/monday/clip_3.mp4") == ("talks/monday", 3)
    assert NamingTemplate(template="{video}.(v+).{index}").match("a.(v+).3.mp4") == ("a", 3)


@pytest.mark.parametrize("template", ["", "{video}", "{index}", "{video}_{video}_{index}"])
def test_a_template_without_both_fields_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        NamingTemplate(template=template)


def test_numbered_parts_look_pre_cut() -> None:
    names = [f"{video}_{index:03d}.mp4" for video in "ab" for index in range(4)]
    assert naming.looks_pre_cut(names) == "{video}_{index}"
    assert naming.looks_pre_cut([f"talk-{index}.mp4" for index in range(1, 9)]) == "{video}-{index}"


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["a_0.mp4", "a_1.mp4"],
        [f"IMG_{number}.mp4" for number in (20240101, 20240203, 20240301, 20240509, 20240611)],
        [f"holiday_{year}.mp4" for year in range(2015, 2024)],
        [f"clip_{number}.mp4" for number in (0, 7, 19, 33, 58)],
        [*(f"a_{index}.mp4" for index in range(5)), *(f"{name}.mp4" for name in "bcdefgh")],
    ],
)
def test_dates_and_odd_numbers_do_not_look_pre_cut(names: list[str]) -> None:
    assert naming.looks_pre_cut(names) is None
