"""What a scan considers: roots, links, sidecars, hidden files, odd names. No file of these is a video."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from raydist.errors import UsageError
from raydist.scan.select import Selection, check, select
from raydist.scan.walk import Candidate, Walked, walk


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(selections: list[Selection], walked: Walked | None = None, avoid: str = "") -> list[Candidate]:
    walked = walked or Walked()
    return [candidate for selection in selections for candidate in walk(selection, walked, avoid)]


def ids(*inputs: Path | str, **known: str) -> list[str]:
    return [candidate.video_id for candidate in found(select(map(str, inputs), known))]


def test_a_folder_names_its_root_and_gives_its_files_in_order(videos: Path) -> None:
    put(videos, "b.mp4", "a.mp4", "deep/er/c.mp4")
    assert ids(videos) == ["videos/a.mp4", "videos/b.mp4", "videos/deep/er/c.mp4"]


def test_a_folder_inside_a_known_root_extends_it(videos: Path) -> None:
    put(videos, "a.mp4", "deep/b.mp4")
    assert ids(videos / "deep", talks=str(videos)) == ["talks/deep/b.mp4"]
    assert ids(videos / "a.mp4", talks=str(videos)) == ["talks/a.mp4"]


def test_a_parent_of_a_known_root_is_refused_with_the_remedy(videos: Path) -> None:
    put(videos, "deep/b.mp4")
    with pytest.raises(UsageError, match=r"parent of the root 'deep'.*one by one, or start a new archive"):
        select([str(videos)], {"deep": str(videos / "deep")})


def test_another_folder_of_the_same_name_needs_a_name(tmp_path: Path, videos: Path) -> None:
    put(videos, "a.mp4")
    other = {"videos": str(tmp_path / "elsewhere")}
    with pytest.raises(UsageError, match="--as NAME"):
        select([str(videos)], other)
    assert [one.video_id for one in found(select([str(videos)], other, "mine"))] == ["mine/a.mp4"]


@pytest.mark.parametrize("name", ["a/b", "a#t=1,2"])
def test_a_name_that_would_break_ids_is_refused(videos: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--as NAME"):
        select([str(videos)], {}, name)


def test_several_folders_at_once_are_several_roots(tmp_path: Path) -> None:
    put(tmp_path, "one/a.mp4", "two/b.mp4")
    assert ids(tmp_path / "one", tmp_path / "two") == ["one/a.mp4", "two/b.mp4"]


def test_no_file_is_looked_at_twice_in_whatever_order_folders_come(videos: Path) -> None:
    put(videos, "a.mp4", "deep/b.mp4")
    expected = ["videos/a.mp4", "videos/deep/b.mp4"]
    assert ids(videos, videos / "deep", videos / "deep" / "b.mp4") == expected
    assert ids(videos / "deep" / "b.mp4", videos / "deep", videos) == expected


def test_a_glob_is_one_root_at_its_plain_part(videos: Path) -> None:
    put(videos, "x/cam/a.mp4", "y/cam/b.mp4", "y/cam/b.txt")
    assert ids(videos / "*" / "cam" / "*.mp4") == ["videos/x/cam/a.mp4", "videos/y/cam/b.mp4"]
    assert ids(videos / "**") == ["videos/x/cam/a.mp4", "videos/y/cam/b.mp4"]
    with pytest.raises(UsageError, match="no file matches"):
        select([str(videos / "*.mkv")], {})


def test_files_that_a_shell_lists_leave_sidecars_out(videos: Path) -> None:
    put(videos, "a.mp4", "a.txt", "b.srt")
    walked = Walked()
    selections = select([str(videos / name) for name in ("a.mp4", "a.txt", "b.srt")], {})
    assert [one.video_id for one in found(selections, walked)] == ["videos/a.mp4", "videos/b.srt"]
    assert walked.skipped == {"sidecar": 1}


def test_a_name_with_glob_letters_is_a_file_first(videos: Path) -> None:
    put(videos, "a[1].mp4", "a1.mp4")
    assert ids(videos / "a[1].mp4") == ["videos/a[1].mp4"]


def test_a_typing_error_names_what_is_there(videos: Path) -> None:
    put(videos, "holiday.mp4")
    with pytest.raises(UsageError, match=r"does not exist: did you mean .*holiday.mp4'"):
        check([str(videos / "holyday.mp4")])
    with pytest.raises(UsageError, match="does not exist: check the path; expected a folder"):
        check([str(videos / "zzz")])


def test_sidecars_are_skipped_only_beside_their_video(videos: Path) -> None:
    put(videos, "a.mp4", "a.txt", "a.en.srt", "a.mp4.json", "A.VTT", "lonely.txt", "a.pdf")
    walked = Walked()
    names = [one.path for one in found(select([str(videos)], {}), walked)]
    assert names == ["A.VTT", "a.mp4", "a.pdf", "lonely.txt"]
    assert walked.skipped == {"sidecar": 3}


def test_hidden_files_and_folders_are_skipped_and_counted_unless_named(videos: Path) -> None:
    put(videos, ".hidden.mp4", ".cache/a.mp4", "a.mp4")
    walked = Walked()
    assert [one.path for one in found(select([str(videos)], {}), walked)] == ["a.mp4"]
    assert walked.skipped == {"hidden": 2}
    assert ids(videos / ".hidden.mp4") == ["videos/.hidden.mp4"]


def test_linked_files_are_followed_and_linked_folders_are_not(videos: Path) -> None:
    put(videos, "deep/a.mp4")
    (videos / "b.mp4").symlink_to(videos / "deep" / "a.mp4")
    (videos / "deep" / "circle").symlink_to(videos)
    walked = Walked()
    files = found(select([str(videos)], {}), walked)
    assert [(one.path, one.bytes, one.reason) for one in files] == [("b.mp4", 1, ""), ("deep/a.mp4", 1, "")]
    assert walked.skipped == {"linked_folder": 1}


def test_what_is_no_regular_file_fails_without_being_opened(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(videos / "fifo.mp4")
    (videos / "broken.mp4").symlink_to("nowhere.mp4")
    (videos / "loop.mp4").symlink_to("loop.mp4")
    monkeypatch.chdir(videos)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.mp4")
        files = found(select([str(videos)], {}))
    assert [one.path for one in files] == ["broken.mp4", "fifo.mp4", "loop.mp4", "socket.mp4"]
    assert {one.reason for one in files} == {"not_a_file"}
    assert all(one.detail for one in files)


def test_the_archive_inside_the_folder_is_left_out(videos: Path) -> None:
    put(videos, "a.mp4", "archive/archive.json", "archive/clips.lance/data/x")
    selections = select([str(videos)], {})
    assert [one.path for one in found(selections, avoid=str(videos / "archive"))] == ["a.mp4"]


def test_another_archive_in_the_folder_is_skipped_and_counted(videos: Path) -> None:
    put(videos, "a.mp4", "old/archive.json", "old/clips.lance/data/x", "meta/archive.json", "meta/b.mp4")
    walked = Walked()
    files = found(select([str(videos)], {}), walked)
    assert [one.path for one in files] == ["a.mp4", "meta/archive.json", "meta/b.mp4"]
    assert walked.skipped == {"archive": 1}


def test_a_folder_that_cannot_be_listed_is_noted_and_the_rest_is_walked(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(videos, "closed/a.mp4", "open/b.mp4")
    scandir = os.scandir

    def refuse(path: bytes) -> object:  # tests may run as root, whom no permission stops
        if path.endswith(b"/closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    walked = Walked()
    assert [one.path for one in found(select([str(videos)], {}), walked)] == ["open/b.mp4"]
    assert walked.closed == [("videos", "closed")]


def test_names_of_any_bytes_have_an_id(videos: Path) -> None:
    names = [b"caf\xe9.mp4", b"line\nfeed.mp4", b"100%.mp4", b'"quotes", and commas.mp4']
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(videos), name))).write_bytes(b"x")
    files = {one.video_id: one.reason for one in found(select([str(videos)], {}))}
    assert files == {
        'videos/"quotes", and commas.mp4': "",
        "videos/100%25.mp4": "",
        "videos/caf%E9.mp4": "",
        "videos/line\nfeed.mp4": "",
    }


def test_names_that_would_share_an_id_fail_and_each_is_named(videos: Path) -> None:
    put(videos, "\u00e9.mp4", "e\u0301.mp4", "other\u0301.mp4")
    files = found(select([str(videos)], {}))
    if len(files) < 3:
        pytest.skip("this file system takes both spellings for one name")
    failed = [one for one in files if one.reason]
    assert [one.reason for one in failed] == ["id_collision"]
    assert r"e\u0301.mp4" in failed[0].detail
    assert r"'\xe9.mp4'" in failed[0].detail


def test_two_spellings_collide_where_neither_is_the_composed_one(videos: Path) -> None:
    put(videos, "\u1e63\u0307.mp4", "s\u0323\u0307.mp4")  # both compose to one letter, S with two dots
    files = found(select([str(videos)], {}))
    assert len({one.video_id for one in files}) == 1
    assert sorted(one.reason for one in files) == ["", "id_collision"]


def test_a_folder_of_numbered_parts_is_hinted_at(videos: Path) -> None:
    put(videos, *(f"talk_{index}.mp4" for index in range(6)))
    walked = Walked()
    found(select([str(videos)], {}), walked)
    assert walked.hints == {"videos": "{video}_{index}"}
