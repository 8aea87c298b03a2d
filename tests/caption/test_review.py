"""The review of captions: what it finds where captions were moved or mixed up, what it says, what its page shows."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from archives import configure, encode, fails_with, made, rows, scanned
from libraries import noted

from raydist import caption, forget
from raydist.caption import repeated, review
from raydist.caption.write import row_of
from raydist.demo import clip as film
from raydist.demo.words import Combination, held_out_combinations
from raydist.demo.words import caption as words_of
from raydist.errors import ArchiveError, StoreError, UsageError
from raydist.records import Report
from raydist.store import commit, schema

VIDEOS, CLIPS = 6, 8
FRAMES = 2 * film.FPS
SECONDS = "scan.clip_seconds=2"

Told = dict[str, str]


@dataclass(frozen=True)
class Shelf:
    """Some videos of eight films each, embedded with `tiny`."""

    archive: Path
    truth: Told
    """Clip id -> what it shows."""

    def of(self, video: int) -> list[str]:
        """The clips of a video, in order."""
        return [f"films/{video}.mp4#t={2 * place},{2 * place + 2}" for place in range(CLIPS)]

    def tell(self, captions: Told) -> None:
        """Bring captions in."""
        file = self.archive.parent / "captions.csv"
        with file.open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([("clip_id", "caption"), *captions.items()])
        caption.run(self.config(), caption.Request(file=str(file)))

    def config(self, *changes: str) -> Any:
        return configure(self.archive, "", SECONDS, *changes)

    def review(self, **options: Any) -> Report:
        return review.run(self.config(), options.pop("out", None), **options)


def drawn(combinations: Sequence[Combination], file: Path) -> None:
    """One video of these films, two seconds each."""
    drawings = [film.prepare(shown, 7) for shown in combinations]
    film.encode((each.draw(number) for each in drawings for number in range(FRAMES)), file)


@pytest.fixture(scope="module")
def embedded(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("review")
    every = held_out_combinations()
    order = np.random.default_rng(3).permutation(len(every))[: VIDEOS * CLIPS].tolist()
    shown = iter([every[place] for place in order])
    (top / "films").mkdir()
    truth = {}
    for video in range(VIDEOS):
        films = list(islice(shown, CLIPS))
        drawn(films, top / "films" / f"{video}.mp4")
        for place, each in enumerate(films):
            truth[f"films/{video}.mp4#t={2 * place},{2 * place + 2}"] = words_of(each)
    from raydist import scan

    scan.run(configure(top / "archive", "", SECONDS), scan.Request(inputs=(str(top / "films"),)))
    made(top / "archive", "tiny", SECONDS)
    assert {row["clip_id"] for row in rows(top / "archive", "clips")} == set(truth)
    (top / "truth.json").write_text(json.dumps(truth))
    return top


@pytest.fixture
def shelf(embedded: Path, tmp_path: Path) -> Shelf:
    shutil.copytree(embedded / "archive", tmp_path / "archive")
    return Shelf(tmp_path / "archive", json.loads((embedded / "truth.json").read_text()))


def page_of(report: Report) -> str:
    return Path(report.details["sheet"]).read_text(encoding="utf-8")


@pytest.mark.ray
def test_right_captions_are_not_suspect(shelf: Shelf) -> None:
    shelf.tell(shelf.truth)
    report = shelf.review(sample=4)
    assert report.counts == {"captions": 48, "clips": 48, "suspects": 0, "shifted_videos": 0, "repeated": 0}
    page = page_of(report)
    assert page.count("<article>") == 4
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert "not decoded" not in page


@pytest.mark.ray
@pytest.mark.parametrize(("step", "says"), [(1, "one later"), (-1, "one earlier"), (2, "two later")])
def test_captions_that_are_moved_by_some_clips_are_found(shelf: Shelf, step: int, says: str) -> None:
    own = shelf.of(2)
    moved = {clip: shelf.truth[own[(place + step) % CLIPS]] for place, clip in enumerate(own)}
    shelf.tell({**shelf.truth, **moved})
    report = shelf.review(sample=2)
    assert (report.counts["shifted_videos"], report.counts["suspects"]) == (1, 0)
    pairs = CLIPS - abs(step)
    assert noted(report, f"captions of films/2.mp4 fit the clip {says} ({pairs} of {pairs})")
    (shift,) = report.details["shifted"]
    assert (shift["video_id"], shift["step"], shift["fit"], shift["compared"]) == ("films/2.mp4", step, pairs, pairs)
    assert f"captions of films/2.mp4 fit the clip {says}" in page_of(report)


@pytest.mark.ray
def test_it_is_found_too_if_all_videos_are_moved(shelf: Shelf) -> None:
    told = {}
    for own in map(shelf.of, range(VIDEOS)):
        told |= {clip: shelf.truth[own[(place + 1) % CLIPS]] for place, clip in enumerate(own)}
    shelf.tell(told)
    report = shelf.review(sample=0)
    assert (report.counts["shifted_videos"], report.counts["suspects"]) == (VIDEOS, 0)
    assert {each["step"] for each in report.details["shifted"]} == {1}
    assert noted(report, "and 1 more videos whose captions fit other clips")


@pytest.mark.ray
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_one_caption_for_all_clips_is_no_reason_to_doubt_one_of_them(shelf: Shelf) -> None:
    shelf.tell(dict.fromkeys(shelf.truth, "a film"))
    report = shelf.review(sample=0)
    assert (report.counts["suspects"], report.counts["shifted_videos"], report.counts["repeated"]) == (0, 0, 1)
    assert noted(report, "48 of 48 clips (100%) have none of their own alone")


@pytest.mark.ray
def test_captions_of_other_clips_come_first_and_right_ones_are_left_alone(shelf: Shelf) -> None:
    a, b, c = shelf.of(0)[1], shelf.of(3)[5], shelf.of(5)[2]
    told = {**shelf.truth, a: shelf.truth[b], b: shelf.truth[c], c: shelf.truth[a]}
    swapped = shelf.of(1)[0], shelf.of(1)[4]
    told |= {swapped[0]: shelf.truth[swapped[1]], swapped[1]: shelf.truth[swapped[0]]}
    shelf.tell(told)
    report = shelf.review(sample=3)
    found = {each["clip_id"]: each for each in report.details["suspects"]}
    assert set(found) == {a, b, c, *swapped}
    for clip, other in (swapped, swapped[::-1]):
        assert found[clip]["fits"] == other
        assert found[clip]["similarity_there"] > found[clip]["similarity"] + 0.2
    assert all(found[clip]["random_clips_that_fit_better"] > 0.02 for clip in (a, b, c))
    assert page_of(report).count("fits another clip of the video better") >= 2
    assert noted(report, "5 captions do not seem to be of their clips")
    again = shelf.review(sample=3)
    assert again.details["suspects"] == report.details["suspects"]


@pytest.mark.ray
def test_captions_that_tell_nothing_of_the_clips_are_said_to_be_so(shelf: Shelf) -> None:
    order = np.random.default_rng(0).permutation(list(shelf.truth.values())).tolist()
    shelf.tell(dict(zip(shelf.truth, order, strict=True)))
    report = shelf.review(sample=1)
    assert noted(report, "tells these captions hardly from random ones")


@pytest.mark.ray
def test_repeated_captions_are_counted_whatever_their_case_and_marks(shelf: Shelf) -> None:
    told = dict(shelf.truth)
    for clip in shelf.of(0):
        told[clip] = "A film."
    told[shelf.of(1)[0]], told[shelf.of(1)[1]] = "a  film", "a dog\u2019s ball <b>"
    shelf.tell(told)
    report = shelf.review(sample=2)
    assert report.counts["repeated"] == 1
    (repeat,) = report.details["repeated"]
    assert (repeat["caption"], repeat["clips"], repeat["forms"]) == ("A film.", 9, 2)
    assert noted(report, "1 captions are of several clips (0 letter for letter); 9 of 48 clips (19%)")
    assert noted(report, "1 videos have one caption for all of their clips, such as films/0.mp4 (8 clips): 'A film.'")
    assert report.details["one_caption"] == [{"video_id": "films/0.mp4", "clips": 8, "caption": "A film."}]


@pytest.mark.ray
def test_clips_without_vectors_are_said_and_others_compared(shelf: Shelf, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    encode(more / "x.mp4", count=20, rate=10)
    from raydist import scan

    scan.run(shelf.config(), scan.Request(inputs=(str(more),)))
    shelf.tell({**shelf.truth, "more/x.mp4#t=0,2": "something else"})
    report = shelf.review(sample=1)
    assert report.counts["captions"] == 49
    assert noted(report, "1 captions are of clips without a vector of tiny")


@pytest.mark.ray
def test_a_review_is_gone_with_the_video_that_it_shows(shelf: Shelf) -> None:
    told = {**shelf.truth, shelf.of(4)[0]: 'it\'s "quoted" & <b>', shelf.of(4)[1]: 'it\'s "quoted" & <b>'}
    shelf.tell(told)
    out = shelf.archive.parent / "elsewhere.html"
    pages = [Path(shelf.review(sample=count).details["sheet"]) for count in (60, 0)]
    outside = shelf.review(out=str(out), sample=1)
    assert outside.details["sheet"] == str(out)
    assert out.exists()
    plan = forget.plan(shelf.config(), ["films/4.mp4"])
    assert plan.exports == (str(out),)
    forget.run(shelf.config(), plan)
    assert [page.exists() for page in pages] == [False, False]
    for report in (shelf.archive / "runs").glob("*/report.json"):
        assert "films/4.mp4" not in report.read_text()
        assert "quoted" not in report.read_text()


def small(tmp_path: Path, name: str = "a.mp4") -> Path:
    (tmp_path / "v").mkdir()
    encode(tmp_path / "v" / name, count=30, rate=10)
    scanned(tmp_path / "archive", tmp_path / "v")
    return tmp_path / "archive"


def brought(archive: Path, text: str) -> None:
    file = archive.parent / "c.csv"
    file.write_text(text)
    caption.run(configure(archive), caption.Request(file=str(file)))


def test_without_vectors_it_does_the_rest_and_says_what_is_missing(tmp_path: Path) -> None:
    archive = small(tmp_path, "<script>alert(1)<.mp4")
    text = "path,start,end,caption\n" + "".join(
        f"<script>alert(1)<.mp4,{start},{start + 1},<script>alert(2)</script>\n" for start in range(3)
    )
    brought(archive, text)
    report = review.run(configure(archive), None)
    assert report.counts == {"captions": 3, "clips": 3, "repeated": 1}
    assert noted(report, "no vectors yet", "raydist embed")
    assert noted(report, "1 videos have one caption for all of their clips")
    page = page_of(report)
    assert Path(report.details["sheet"]) == archive / "runs" / report.run / "captions.html"
    assert "<script" not in page
    assert escape("<script>alert(2)</script>") in page
    assert page.count('src="data:image/jpeg;base64,') == 3
    kept = json.loads((archive / "runs" / report.run / "report.json").read_text())
    assert kept["details"]["repeated"][0]["clips"] == 3


def test_a_page_is_gone_with_a_video_whose_name_or_caption_has_quotation_marks(tmp_path: Path) -> None:
    name = 'it\'s "a" & b.mp4'
    archive = small(tmp_path, name)
    encode(tmp_path / "v" / "other.mp4", count=10, rate=10, seed=5)
    scanned(archive, tmp_path / "v")
    clip = f"v/{name}#t=".replace('"', '""')
    brought(archive, f'clip_id,caption\n"{clip}0,1",the dog\'s day\n"{clip}1,2",the dog\'s day\nv/other.mp4,a cat\n')
    # No film of it is drawn, so only the tables name it.
    page = Path(review.run(configure(archive), None, sample=0).details["sheet"])
    assert "dog&#39;s" in page.read_text()
    (archive / "runs" / "words").mkdir()
    (archive / "runs" / "words" / "page.html").write_text("<p>the dog&#39;s day</p>")
    forget.run(configure(archive), forget.plan(configure(archive), [f"v/{name}"]))
    assert not page.exists()
    assert not (archive / "runs" / "words" / "page.html").exists()


def test_captions_that_were_cut_and_those_of_all_origins_are_shown(tmp_path: Path) -> None:
    archive = small(tmp_path)
    brought(archive, "path,start,end,caption\na.mp4,0,1,one\na.mp4,1,2,two\n")
    (clip, *_) = [row for row in rows(archive, "clips") if row["clip_id"] == "v/a.mp4#t=0,1"]
    at = rows(archive, "captions")[0]["at"]
    new = {**row_of(clip, 0, "a long one, cut", at, "some-model", "x"), "cut": True}
    old = {**row_of({**clip, "fingerprint": "of before"}, 0, "of an earlier content", at, "old")}
    table = pa.Table.from_pylist([new, old], schema=schema.CAPTIONS)
    commit.append(str(archive), "captions", table, schema.CAPTIONS)
    report = review.run(configure(archive), None)
    assert report.counts == {"captions": 3, "clips": 2, "repeated": 0, "cut": 1}
    (cut,) = report.details["cut"]
    assert cut == {"clip_id": "v/a.mp4#t=0,1", "number": 0, "origin": "some-model", "caption": "a long one, cut"}
    page = page_of(report)
    assert "some-model, cut" in page
    assert "of an earlier content" not in page


def test_what_cannot_be_reviewed_is_refused_with_the_reason(tmp_path: Path) -> None:
    archive = small(tmp_path)
    with fails_with(ArchiveError, "no captions to review", "caption --from"):
        review.run(configure(archive), None)
    brought(archive, "path,start,end,caption\na.mp4,0,1,one\n")
    with fails_with(UsageError, "--sheet", "ends in .html"):
        review.run(configure(archive), str(tmp_path / "x.pdf"))
    with fails_with(UsageError, "folder", "does not exist"):
        review.run(configure(archive), str(tmp_path / "none" / "x.html"))
    with fails_with(ArchiveError, "no vectors yet"):
        review.run(configure(archive, "tiny"), None)


@pytest.mark.ray
def test_a_model_that_the_archive_does_not_have_is_refused_if_it_was_named(shelf: Shelf) -> None:
    shelf.tell(shelf.truth)
    with fails_with(StoreError, "no vectors of 'other'", "tiny"):
        review.run(configure(shelf.archive, "other", SECONDS), None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("A dog.", "a  dog", True), ("caf\u00e9", "cafe\u0301", True), ("?!", "!?", False), ("a dog", "a dogs", False),
     ("a-dog", "a dog", True), ("\u72ac", "\u732b", False)],
)  # fmt: skip
def test_captions_are_the_same_but_for_case_and_marks(one: str, other: str, same: bool) -> None:
    assert (repeated.plain(one) == repeated.plain(other)) == same
