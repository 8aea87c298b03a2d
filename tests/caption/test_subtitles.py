"""Subtitles: what a viewer reads of them, and which clips it stands for."""

from __future__ import annotations

import pytest
from archives import fails_with
from libraries import A, Library, noted

from raydist.caption.subtitles import cues, without_language
from raydist.errors import UsageError

LONG = "v/long.mp4"


def said(text: str) -> list[tuple[int, int, str]]:
    return [(cue.start_ms, cue.end_ms, cue.text) for cue in cues(text)[0]]


def test_subrip_is_read_as_it_is_shown() -> None:
    text = (
        "\ufeff1\r\n00:00:01,000 --> 00:00:02,500 X1:40 X2:600\r\n<i>Hello,</i>\r\n"
        '{\\an8}<font color="#fff">you</font>\r\n\r\n'
        "2\r\n01:00:03.000-->01:00:04,5\r\nTom &amp; Jerry: a < b &lt;b&gt;\u200b\r\n"
        "3\r\n01:00:05,000 --> 01:00:06,000\r\n42\\Nyears"
    )
    assert said(text) == [
        (1000, 2500, "Hello, you"),
        (3_603_000, 3_604_500, "Tom & Jerry: a < b <b>"),
        (3_605_000, 3_606_000, "42 years"),
    ]


def test_webvtt_is_read_without_its_notes_styles_voices_and_names() -> None:
    text = (
        "WEBVTT - a title\nKind: captions\n\nNOTE not shown\n1 --> no\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.000 --> 00:02.000 align:start position:0%\n<v Fred>Hi <c.loud>there</c>,<00:01.500> you\n\n"
        "1:00:00.250 --> 1:00:01.000\n- One\n- Two\n"
    )
    assert said(text) == [(1000, 2000, "Hi there, you"), (3_600_250, 3_601_000, "- One - Two")]


def test_texts_that_roll_up_count_once() -> None:
    text = (
        "WEBVTT\n\n00:00.000 --> 00:02.000\n \nhello<00:00.500><c> world</c>\n\n"
        "00:02.000 --> 00:02.010\nhello world\n \n\n"
        "00:02.010 --> 00:04.000\nhello world\nnext<00:03.000><c> words</c>\n\n"
        "00:04.000 --> 00:04.010\nnext words\n \n\n"
        "00:04.010 --> 00:06.000\nnext words\nthe end\n"
    )
    assert [text for _, _, text in said(text)] == ["hello world", "next words", "the end"]
    assert said(text)[0][:2] == (0, 2010)


def test_texts_that_are_repeated_or_written_word_by_word_count_once_and_later_ones_again() -> None:
    text = "\n\n".join(
        f"{number}\n00:00:0{start},000 --> 00:00:0{end},000\n{words}"
        for number, (start, end, words) in enumerate(
            [(0, 1, "a dog"), (1, 2, "a dog"), (2, 3, "a dog jumps"), (5, 6, "a dog"), (5, 6, "a dog")]
        )
    )
    assert said(text) == [(0, 3000, "a dog jumps"), (5000, 6000, "a dog")]


def test_cues_whose_times_are_none_are_counted() -> None:
    text = "1\n00:00:02,000 --> 00:00:01,000\nx\n\n2\n0:0:x9 --> 00:00:01,000\ny\n\n3\n00:00:03,000 --> 00:00:04,000\nz"
    found, broken = cues(text)
    assert ([cue.text for cue in found], broken) == (["z"], 2)
    assert cues("1 --> x 2\n-->\n1 -->\n 1 -> 2 ") == ([], 2)
    assert cues("") == cues("no subtitles at all") == ([], 0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("line", ["1-->" + " " * 300_000, "{\\" * 300_000, "<a" * 300_000])
def test_long_lines_take_no_longer_than_they_are(line: str) -> None:
    found, _ = cues(f"00:00:01,000 --> 00:00:02,000\na dog\n{line}\n\n{line}")
    assert found[0].text.startswith("a dog")


@pytest.mark.parametrize(
    ("stem", "plain"),
    [
        ("f/film.en", "f/film"),
        ("film.pt-BR", "film"),
        ("film.GER", "film"),
        ("part.one", "part.one"),
        ("take.II.cut", "take.II.cut"),
        ("film.en.sdh", "film"),
        ("film", "film"),
        ("a.b/film", "a.b/film"),
        ("film.2019", "film.2019"),
        ("film.part1", "film.part1"),
    ],
)
def test_a_language_is_no_part_of_a_name(stem: str, plain: str) -> None:
    assert without_language(stem) == plain


def test_a_cue_belongs_to_the_clip_that_holds_most_of_it_and_to_those_that_it_covers(library: Library) -> None:
    file = library.write(
        "1\n00:00:00,100 --> 00:00:00,400\nfirst\n\n2\n00:00:00,900 --> 00:00:01,300\nsecond\n\n"
        "3\n00:00:01,400 --> 00:00:03,000\nboth\n\n4\n00:00:09,000 --> 00:00:10,000\nnowhere\n",
        "long.en.srt",
    )
    report = library.take(file)
    assert library.held() == [
        (f"{LONG}#t=0,1", 0, "first"),
        (f"{LONG}#t=1,2", 0, "second"),
        (f"{LONG}#t=1,2", 1, "both"),
        (f"{LONG}#t=2,3", 0, "both"),
    ]
    assert report.counts["unmatched"] == 1
    assert noted(report, "where the archive has no clip", "long.en.srt, line 14")
    assert noted(report, "captions from: 1 .srt")


def test_a_caption_reaches_beyond_a_clip_that_it_covers(library: Library) -> None:
    library.take(library.write("WEBVTT\n\n00:00.000 --> 00:09.000\na still life\n", "a.vtt"))
    assert library.held() == [(A, 0, "a still life")]


def test_subtitles_of_no_video_and_without_text_are_refused_with_the_reason(library: Library) -> None:
    with fails_with(UsageError, "name no video", "'nowhere'", "nowhere.srt, line 2", "v/a.mp4"):
        library.take(library.write("1\n00:00:00,000 --> 00:00:01,000\nx\n", "nowhere.srt"))
    with fails_with(UsageError, "holds no captions", "1 subtitles left out"):
        library.take(library.write("1\n00:00:02,000 --> 00:00:01,000\nx\n", "a.srt"))
    with fails_with(UsageError, "holds no captions", "a.vtt is no text"):
        library.take(library.write(b"WEBVTT\0\0\0", "a.vtt"))
