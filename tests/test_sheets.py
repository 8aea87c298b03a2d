"""Contact sheets: escaped, self-contained, and true to what was found."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raydist.sheets import (
    THUMB_HEIGHT_PX,
    THUMB_WIDTH_PX,
    Hit,
    Row,
    Table,
    contact_sheet,
    picture_sheet,
    strip,
    time_code,
)

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def hit(**changed: object) -> Hit:
    fields: dict[str, object] = {"clip_id": "talks/a.mp4#t=0,2", "score": 0.5, "start_s": 0.0, "end_s": 2.0}
    return Hit(**{**fields, **changed})  # type: ignore[arg-type]


def frames(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 24, 32, 3), np.uint8)


def test_hostile_names_captions_and_queries_are_shown_and_not_run() -> None:
    hostile = hit(clip_id=HOSTILE, caption=HOSTILE, path=f"/videos/{HOSTILE}.mp4", frames=frames())
    page = contact_sheet(HOSTILE, [Row(query=HOSTILE, hits=[hostile], note=HOSTILE)], lead=HOSTILE)
    tags = Tags(page)
    names = [tag for tag, _ in tags.found]
    assert "script" not in names
    assert "img" not in names
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert tags.text.count(HOSTILE) >= 5


@given(st.text(max_size=40))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    tags = Tags(contact_sheet("sheet", [Row(query=text, hits=[hit(caption=text)])]))
    # A browser, like this parser, reads CR and NUL in its own way.
    plain = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    shown = tags.text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    assert plain in shown


def test_a_sheet_asks_for_nothing_outside_itself() -> None:
    page = contact_sheet("sheet", [Row(query="q", hits=[hit(frames=frames(), path="/videos/a.mp4")])])
    for tag, attributes in Tags(page).found:
        assert tag not in {"script", "link", "iframe", "img", "video", "object"}
        assert "src" not in attributes
    assert all(address.startswith("data:") for address in re.findall(r"url\(([^)]*)\)", page))
    assert not re.findall(r"https?://", page)
    assert "default-src 'none'" in page


def test_a_hit_links_to_its_moment_in_the_file() -> None:
    page = contact_sheet("sheet", [Row(query="q", hits=[hit(path="/my videos/a#1.mp4", start_s=30.0, end_s=60.0)])])
    links = [attributes["href"] for tag, attributes in Tags(page).found if tag == "a"]
    assert links == ["file:///my%20videos/a%231.mp4#t=30,60"]


def test_a_path_that_is_no_file_of_this_machine_is_not_linked() -> None:
    page = contact_sheet("sheet", [Row(query="q", hits=[hit(path="javascript:alert(1)")])])
    assert not [tag for tag, _ in Tags(page).found if tag == "a"]


def test_right_and_wrong_are_marked_only_where_the_truth_is_known() -> None:
    page = contact_sheet("sheet", [Row(query="q", hits=[hit(right=True), hit(right=False), hit(right=None)])])
    assert [attributes.get("class") for tag, attributes in Tags(page).found if tag == "li"] == ["right", "wrong", None]


def test_a_clip_without_frames_says_so() -> None:
    assert "no picture" in contact_sheet("sheet", [Row(query="q", hits=[hit(frames=None)])])


def test_a_strip_holds_all_frames_side_by_side() -> None:
    tall = np.zeros((3, 64, 16, 3), np.uint8)
    tall[1] = 255
    encoded = strip(tall).removeprefix("data:image/jpeg;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert picture.size == (3 * THUMB_WIDTH_PX, THUMB_HEIGHT_PX)
    levels = np.asarray(picture.convert("L"))[THUMB_HEIGHT_PX // 2]
    assert levels[THUMB_WIDTH_PX * 3 // 2] > 240
    assert levels[THUMB_WIDTH_PX // 2] < 10


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (2.167, "0:02.2"), (75.5, "1:15.5"), (3725.0, "1:02:05"), (59.96, "1:00")]
)
def test_time_codes_read_well(seconds: float, shown: str) -> None:
    assert time_code(seconds) == shown


def test_labels_headings_and_tables_are_shown_and_escaped() -> None:
    table = Table(title=HOSTILE, head=(HOSTILE, "b"), rows=[(HOSTILE, "2")], folded=True)
    row = Row(query="q", hits=[hit(label=HOSTILE), hit()], heading=HOSTILE)
    tags = Tags(contact_sheet("sheet", [row], tables=[table, Table(title="open", head=(), rows=())]))
    names = [tag for tag, _ in tags.found]
    assert not {"script", "img"} & set(names)
    assert tags.text.count(HOSTILE) == 5
    assert [attributes for tag, attributes in tags.found if tag == "details"] == [{}, {"open": None}]
    assert names.count("td") == 2


def test_a_playable_sheet_plays_each_moment_from_its_file_and_nothing_else() -> None:
    there = hit(path="/my videos/a#1.mp4", start_s=30.0, end_s=62.5, offset_s=1.4, frames=frames())
    far, unplayed = hit(path="https://host/b.mp4"), hit(path="/my videos/c.gif", frames=frames())
    tags = Tags(contact_sheet("sheet", [Row(query="q", hits=[there, far, unplayed, hit()])], playable=True))
    films = [attributes for tag, attributes in tags.found if tag == "video"]
    assert [film["src"] for film in films] == [
        "file:///my%20videos/a%231.mp4#t=31.4,63.9",
        "https://host/b.mp4#t=0,2",
    ]
    assert all(film["preload"] == "none" and "controls" in film for film in films)
    poster = str(films[0]["poster"]).removeprefix("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(poster))).size == (320, 240)
    assert "script" not in [tag for tag, _ in tags.found]


def test_hostile_names_cannot_leave_the_film_they_name() -> None:
    hostile = hit(clip_id=HOSTILE, path=f"/videos/{HOSTILE}.mp4", frames=frames())
    names = [tag for tag, _ in Tags(contact_sheet("s", [Row(query="q", hits=[hostile])], playable=True)).found]
    assert names.count("video") == 1
    assert not {"script", "img"} & set(names)


def test_a_row_without_hits_says_why() -> None:
    page = contact_sheet("sheet", [Row(query="q", hits=[], empty="nothing <here>")])
    assert "nothing <here>" in Tags(page).text


def test_a_sheet_as_a_picture_has_a_strip_for_each_hit() -> None:
    rows = [
        Row(query="words\n\0 in any письмо 字", hits=[hit(frames=frames(), caption=HOSTILE), hit()]),
        Row(query="q", hits=[]),
    ]
    picture = Image.open(io.BytesIO(picture_sheet("sheet", rows)))
    assert (picture.format, picture.width) == ("PNG", 1280)
    assert picture.height > 2 * 144
    with pytest.raises(ValueError, match="60,000"):
        picture_sheet("sheet", [Row(query="q", hits=[hit()] * 500)])
