"""The user's own split: what a list of splits does to clips, to copies beside vectors, and to later scans."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import fails_with
from library import Library

from raydist.errors import UsageError
from raydist.records import Report
from raydist.scan import resplit
from raydist.store import splits


def tell(library: Library, text: str, **request: object) -> Report:
    file = library.archive.parent / "splits.csv"
    file.write_text(text)
    return library.scan(nothing=True, splits=str(file), **request)


def dealt(library: Library, table: str = "clips") -> dict[str, str]:
    return {row["clip_id"].partition("#")[0]: row["split"] for row in library.rows(table, "clip_id", "split")}


def told(library: Library) -> dict[str, str | None]:
    return {row["path"]: row["split_override"] for row in library.rows("videos", "path", "split_override")}


@pytest.fixture
def talks(library: Library) -> Library:
    for number, name in enumerate("abcd"):
        library.video(f"{name}.mp4", seed=number)
    library.scan()
    library.embed_all()
    return library


TEXT = "path,split\na.mp4,test\nb.mp4,Validation\nc.mp4,train\n"


def test_a_list_of_splits_moves_clips_and_the_copies_beside_their_vectors(talks: Library) -> None:
    before = dealt(talks)
    report = tell(talks, TEXT)
    wanted = {"talks/a.mp4": "test", "talks/b.mp4": "val", "talks/c.mp4": "train", "talks/d.mp4": before["talks/d.mp4"]}
    assert dealt(talks) == wanted
    assert dealt(talks, "embeddings_some-00000000") == wanted
    assert told(talks) == {"a.mp4": "test", "b.mp4": "val", "c.mp4": "train", "d.mp4": None}
    changed = sum(before[name] != split for name, split in wanted.items())
    assert report.notes[0] == f"splits told for 3 videos (1 train, 1 val, 1 test): {changed} clips changed"


def test_the_same_list_again_changes_nothing(talks: Library) -> None:
    tell(talks, TEXT)
    before = talks.rows("clips"), talks.rows("videos")
    assert "0 clips changed" in tell(talks, TEXT).notes[0]
    assert (talks.rows("clips"), talks.rows("videos")) == before


def test_a_changed_and_a_returned_file_keep_the_split_that_they_were_told(talks: Library, tmp_path: Path) -> None:
    tell(talks, TEXT)
    talks.video("a.mp4", 70, seed=9)
    away = (talks.folder / "b.mp4").rename(tmp_path / "b.mp4")
    talks.scan()
    assert {row["split"] for row in talks.rows("clips", "clip_id", "split") if "/a.mp4" in row["clip_id"]} == {"test"}
    assert len([row for row in talks.rows("clips", "clip_id") if "/a.mp4" in row]) == 3
    away.rename(talks.folder / "b.mp4")
    talks.scan()
    assert dealt(talks)["talks/b.mp4"] == "val"
    assert told(talks)["a.mp4"] == "test"


def test_dealing_again_keeps_what_was_told_until_it_is_taken_back(talks: Library) -> None:
    tell(talks, TEXT)
    report = talks.scan(nothing=True, resplit=True)
    assert "3 videos keep the split that they were told" in report.notes
    assert (dealt(talks)["talks/a.mp4"], dealt(talks)["talks/b.mp4"]) == ("test", "val")
    fresh = dealt_without(talks)
    tell(talks, "path,split\na.mp4,auto\nb.mp4,AUTO\nc.mp4,auto\n", resplit=True)
    assert told(talks) == {"a.mp4": None, "b.mp4": None, "c.mp4": None, "d.mp4": None}
    assert dealt(talks) == fresh


def dealt_without(library: Library) -> dict[str, str]:
    """What a deal of the same videos gives where nothing was told."""
    other = Library(library.folder, library.archive.parent / "other")
    other.scan()
    return dealt(other)


def test_folders_and_splits_in_one_command(library: Library) -> None:
    library.video("a.mp4")
    file = library.archive.parent / "splits.jsonl"
    file.write_text('{"file": "talks/a.mp4", "set": "test"}\n')
    library.scan(splits=str(file))
    assert dealt(library) == {"talks/a.mp4": "test"}


@pytest.mark.parametrize("died_in", ["_copy_to_vectors", "_replace"])
def test_a_move_that_died_is_finished_by_the_next_scan(
    talks: Library, monkeypatch: pytest.MonkeyPatch, died_in: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(splits, died_in, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            splits.override(str(talks.archive), {"talks/a.mp4": "val", "talks/b.mp4": "test"})
    assert told(talks)["a.mp4"] == "val"
    talks.scan()
    for table in ("clips", "embeddings_some-00000000"):
        assert (dealt(talks, table)["talks/a.mp4"], dealt(talks, table)["talks/b.mp4"]) == ("val", "test")
    assert len(talks.rows("embeddings_some-00000000")) == 4
    talks.books()


def test_vectors_that_were_committed_with_the_old_split_follow_when_it_is_told_again(library: Library) -> None:
    library.video("a.mp4")
    library.scan()
    tell(library, "path,split\na.mp4,test\n")
    library.embed_all()
    resplit.deal_again(str(library.archive))
    other = {"test": "val", "val": "test", "train": "val"}[dealt(library)["talks/a.mp4"]]
    splits.override(str(library.archive), {"talks/a.mp4": other})
    assert dealt(library, "embeddings_some-00000000") == {"talks/a.mp4": other}


def test_names_that_match_nothing_are_said_and_the_rest_is_told(talks: Library) -> None:
    report = tell(talks, "path,split\na.mp4,test\nx.mp4,test\nb.mp4,\n")
    assert report.notes[1] == "splits: 1 lines name no video of the archive, such as 'x.mp4' (line 3)"
    assert told(talks)["a.mp4"] == "test"


def test_of_several_columns_the_one_that_names_videos_is_taken(talks: Library) -> None:
    tell(talks, "path;file;split\nassets/1.mp4;talks/a.mp4;test\nassets/2.mp4;b;val\n")
    assert (dealt(talks)["talks/a.mp4"], dealt(talks)["talks/b.mp4"]) == ("test", "val")


def test_parts_of_one_source_video_in_several_splits_are_said(library: Library) -> None:
    for index in range(2):
        library.video(f"film_{index}.mp4", 5, seed=index)
    library.scan(changes=("scan.naming={video}_{index}", "scan.clip_seconds=5"))
    report = tell(library, "path,split\nfilm_0.mp4,train\nfilm_1.mp4,test\n")
    assert any("1 source videos have clips in several splits, such as talks/film" in note for note in report.notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path\na.mp4\n", ["'split'", "train, val or test"]),
        ("path,split\na.mp4,holdout\n", ["line 2", "'holdout'", "expected train, val or test"]),
    ],
)
def test_a_list_that_says_no_split_is_refused_before_anything_is_scanned(
    library: Library, text: str, words: list[str]
) -> None:
    with fails_with(UsageError, *words):
        tell(library, text)
    assert not library.archive.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,split\na.mp4,test\ntalks/a.mp4,train\n", ["'talks/a.mp4' .line 3.", "told train, and test"]),
        ("path,split\nx.mp4,test\n", ["none of its 1 lines", "'x.mp4' .line 2.", "talks/a.mp4"]),
        ('path,split\n"a.mp4#t=0,3",test\n', ["is a clip", "expected videos"]),
    ],
)
def test_a_list_that_contradicts_itself_or_names_no_video_is_refused(
    talks: Library, text: str, words: list[str]
) -> None:
    with fails_with(UsageError, *words):
        tell(talks, text)
    assert set(told(talks).values()) == {None}


def test_only_splits_can_be_told(talks: Library) -> None:
    with pytest.raises(ValueError, match="'gap', expected one of train, val, test"):
        splits.override(str(talks.archive), {"talks/a.mp4": "gap"})
