"""Captions in files beside clips and in shards: which clip each is about, and what is left aside."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from archives import configure, fails_with, rows
from libraries import A, B, Library, noted

from raydist import caption
from raydist.clips.matching import Videos
from raydist.clips.naming import clip_key
from raydist.errors import UsageError
from raydist.records import Report

LONG = "v/long.mp4"


def laid(top: Path, files: dict[str, Any]) -> Path:
    """A folder of files; what is neither text nor bytes is written as JSON."""
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (top / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return top


def packed(file: Path, files: dict[str, Any], how: str = "w") -> Path:
    """A tar of them, in this order."""
    with tarfile.open(file, how) as shard:
        for name, content in files.items():
            data = (
                content if isinstance(content, bytes) else content if isinstance(content, str) else json.dumps(content)
            )
            data = data if isinstance(data, bytes) else data.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return file


def beside(library: Library, once: Path, files: dict[str, Any]) -> Report:
    """Import the folder of videos itself, with these files in it."""
    (library.top / "v").mkdir(exist_ok=True)
    for video in (once / "v").rglob("*.mp4"):
        link = library.top / "v" / video.relative_to(once / "v")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(video)
    laid(library.top / "v", files)
    return library.take(library.top / "v", f"roots.v={library.top / 'v'}")


def test_files_beside_clips_are_their_captions(library: Library, once: Path) -> None:
    report = beside(
        library,
        once,
        {
            "a.txt": "\ufeffa dog jumps\r\n",
            "a.json": {"caption": "a dog jumps", "width": 640, "title": "Dog"},
            "deep/b.json": {"captions": ["a cat", "a tabby", ""], "key": "b"},
            "deep/same.txt": "a bird",
            "other/same.txt": "  \n",
            "long.srt": "1\n00:00:01,000 --> 00:00:02,000\na fish\n",
            "notes.md": "x",
        },
    )
    assert library.held() == [
        (A, 0, "a dog jumps"),
        (B, 0, "a cat"),
        (B, 1, "a tabby"),
        ("v/deep/same.mp4#t=0,1", 0, "a bird"),
        (f"{LONG}#t=1,2", 0, "a fish"),
    ]
    assert report.counts == {"lines": 5, "clips": 4, "added": 5, "without_caption": 1}
    assert noted(report, "captions from:", "2 .txt", "1 .json (`caption`)", "1 .json (`captions`)", "1 .srt")
    assert noted(report, "6 files of other kinds ignored: .mp4 5, .md 1")
    assert noted(report, "without a caption: 3 of 7 clips")


def test_the_suffix_of_the_video_may_be_part_of_the_name(library: Library) -> None:
    library.take(laid(library.top / "t", {"a.mp4.txt": "a dog", "deep/b.MP4.JSON": {"caption": "a cat"}}))
    assert library.held() == [(A, 0, "a dog"), (B, 0, "a cat")]


def test_the_same_folder_again_changes_nothing(library: Library) -> None:
    folder = laid(library.top / "texts", {"a.txt": "a dog", "deep/b.txt": "a cat"})
    library.take(folder)
    report = library.take(folder)
    assert report.counts == {"lines": 2, "clips": 2, "added": 0, "unchanged": 2}


def test_a_folder_elsewhere_is_matched_by_its_paths(library: Library) -> None:
    folder = laid(
        library.top / "texts",
        {"v/a.txt": "a dog", "b.txt": "a cat", "other/same.txt": "a bird", "same.txt": "no", "c.txt": "none"},
    )
    report = library.take(folder)
    assert library.held() == [(A, 0, "a dog"), (B, 0, "a cat"), ("v/other/same.mp4#t=0,1", 0, "a bird")]
    assert noted(report, "1 captions name several videos", "'same' (same.txt)")
    assert noted(report, "1 captions name no video", "'c' (c.txt)")


def test_a_file_in_the_folder_of_the_videos_is_about_its_neighbour_only(library: Library, once: Path) -> None:
    report = beside(library, once, {"a.txt": "a dog", "b.txt": "of a file that is gone", "other/long.txt": "too"})
    assert library.held() == [(A, 0, "a dog")]
    assert noted(report, "2 captions name no video", "'b' (b.txt)", "'other/long' (other/long.txt)")


def test_a_text_that_differs_from_its_json_is_one_more_caption(library: Library) -> None:
    library.take(laid(library.top / "t", {"a.json": {"text": "a dog"}, "a.txt": "a black dog"}))
    assert library.held() == [(A, 0, "a dog"), (A, 1, "a black dog")]


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"caption": "a dog", "start": 1, "end": 2}, [("1,2", "a dog")]),
        ({"caption": "a dog", "start_ms": 1000, "end_ms": 2000}, [("1,2", "a dog")]),
        ({"clips": [{"start": 0, "end": 1, "caption": "a"}, {"start": "0:02", "end": "0:03", "text": "b"}]},
         [("0,1", "a"), ("2,3", "b")]),
        ({"captions": ["a", "b"], "clips": [[0, 1], [1, 2]]}, [("0,1", "a"), ("1,2", "b")]),
        ({"clip_id": f"{LONG}#t=2,3", "caption": "c", "start_s": 0, "end_s": 1}, [("2,3", "c")]),
    ],
)  # fmt: skip
def test_a_json_says_which_stretch_it_is_about(library: Library, content: Any, held: list[tuple[str, str]]) -> None:
    library.take(laid(library.top / "t", {"long.json": content}))
    assert library.held() == [(f"{LONG}#t={span}", 0, text) for span, text in held]


def test_where_a_clip_was_cut_out_of_another_video_is_no_stretch_of_it(library: Library) -> None:
    """As video2dataset says it of a clip's own file."""
    library.take(laid(library.top / "t", {"a.json": {"caption": "a dog", "clips": [["00:01:30.000", "00:01:31.000"]]}}))
    assert library.held() == [(A, 0, "a dog")]


def test_the_clip_that_a_json_names_decides(library: Library) -> None:
    report = library.take(
        laid(
            library.top / "t",
            {
                "a.json": {"clip_id": B, "caption": "a cat"},
                "a.txt": "a cat",
                "x.json": {"clip_id": "v/no.mp4#t=0,1", "caption": "y"},
            },
        )
    )
    assert library.held() == [(B, 0, "a cat")]
    assert noted(report, "name a clip that the archive does not have", "'v/no.mp4#t=0,1' (x.json)")


def test_a_json_may_name_its_video_where_its_own_name_does_not(library: Library) -> None:
    library.take(laid(library.top / "t", {"00001.json": {"path": "deep/b.mp4", "caption": "a cat"}}))
    assert library.held() == [(B, 0, "a cat")]


def test_the_key_of_captions_can_be_named(library: Library) -> None:
    folder = laid(library.top / "t", {"a.json": {"caption": "a", "Long Text": "a long text"}})
    library.take(folder, "caption.text_column=long_text")
    assert library.held() == [(A, 0, "a long text")]


def test_files_that_are_no_text_or_no_json_are_left_out_and_said(library: Library) -> None:
    folder = laid(
        library.top / "t",
        {"a.txt": "caf\u00e9".encode("cp1252"), "deep/b.txt": "caf\u00e9".encode("utf-16"), "deep/same.txt": b"a\0b",
         "other/same.json": '{"caption": "a', "long.json": {"count": 3}, ".a.txt": "hidden", "a.caption": "x"},
    )  # fmt: skip
    report = library.take(folder)
    assert library.held() == [(A, 0, "caf\u00e9"), (B, 0, "caf\u00e9")]
    assert noted(report, "read as Windows-1252", "a.txt")
    assert noted(report, "left out: deep/same.txt is no text, it holds zero bytes, other/same.json (no JSON)")
    assert noted(report, "1 files of other kinds ignored: .caption 1")


def test_a_caption_that_is_no_text_is_said(library: Library) -> None:
    report = library.take(laid(library.top / "t", {"a.json": {"caption": 7}, "deep/b.json": ["a", "b"]}))
    assert library.held() == [(B, 0, "a"), (B, 1, "b")]
    assert noted(report, "have a caption that is no text", "a.json")


def test_a_text_counts_beside_a_json_that_holds_no_text(library: Library) -> None:
    files = {"a.json": {"label": 5}, "a.txt": "a dog", "deep/b.json": {"caption": {"en": 1}}, "deep/b.txt": "a cat"}
    report = library.take(laid(library.top / "t", files))
    assert library.held() == [(A, 0, "a dog"), (B, 0, "a cat")]
    assert "unmatched" not in report.counts


def test_a_file_that_cannot_be_read_is_left_out_and_said(library: Library) -> None:
    folder = laid(library.top / "t", {"a.txt": "a dog"})
    (folder / "b.txt").symlink_to("/proc/self/mem")
    assert noted(library.take(folder), "left out: b.txt (Input/output error)")
    assert library.held() == [(A, 0, "a dog")]


def test_a_name_that_files_of_several_roots_have_is_ambiguous() -> None:
    videos = Videos(["v/a.mp4", "w/a.mp4", "w/b.mp4"], {"v": "/films/v", "w": "/films/w"}, "/elsewhere", strict=True)
    assert videos.find_stem("a") == {"v/a.mp4", "w/a.mp4"}
    assert videos.find_stem("b") == {"w/b.mp4"}
    assert videos.find_stem("v/a") == {"v/a.mp4"}


def test_names_of_odd_letters_and_bytes_are_matched(tmp_path: Path, once: Path) -> None:
    from archives import encode, scanned

    folder = tmp_path / "films"
    names = ["100% a <b>", "cafe\u0301", os.fsdecode(b"od\xffd"), "two.dots.here"]
    for number, name in enumerate(names):
        folder.mkdir(exist_ok=True)
        encode(folder / "x.mp4", count=5, rate=10, seed=number)
        (folder / "x.mp4").rename(folder / f"{name}.mp4")
        (folder / f"{name}.txt").write_text(f"caption {number}")
    library = Library(tmp_path, tmp_path / "archive")
    scanned(library.archive, folder)
    report = library.take(folder)
    assert report.counts["added"] == 4, report.notes
    assert sorted(text for _, _, text in library.held()) == [f"caption {number}" for number in range(4)]


def test_a_shard_is_read_by_keys_without_its_media(library: Library) -> None:
    shard = packed(
        library.top / "00000.tar",
        {
            "a.mp4": os.urandom(3 << 20),
            "a.txt": "a dog",
            "a.json": {"caption": "a dog", "status": "success"},
            "./deep/b.0.jpg": b"\xff\xd8",
            "./deep/b.txt": "a cat",
            "0001.json": {
                "clip_id": f"{LONG}#t=1,2",
                "captions": [{"number": 1, "caption": "two"}, {"number": 0, "caption": "one"}],
            },
            "nowhere.txt": "x",
        },
    )
    report = library.take(shard)
    assert library.held() == [
        (A, 0, "a dog"),
        (B, 0, "a cat"),
        (f"{LONG}#t=1,2", 0, "one"),
        (f"{LONG}#t=1,2", 1, "two"),
    ]
    assert noted(report, "name no video", "'nowhere'")
    assert noted(report, "2 files of other kinds ignored: .mp4 1, .jpg 1")


def test_a_name_that_comes_twice_loses_no_caption(library: Library) -> None:
    library.take(laid(library.top / "t", {"a.TXT": "one", "a.txt": "two"}))
    assert library.held() == [(A, 0, "one"), (A, 1, "two")]
    shard = packed(library.top / "x.tar", {"a.txt": "three", "a.json": {"caption": "three"}, "deep/b.txt": "x"})
    with tarfile.open(shard, "a") as more:
        for name, data in (("a.txt", b"four"), ("a.json", b'{"caption": "four"}')):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            more.addfile(member, io.BytesIO(data))
    report = library.take(shard)
    assert library.held() == [(A, 0, "three"), (A, 1, "four"), (B, 0, "x")]
    assert "unmatched" not in report.counts


def test_captions_of_several_models_keep_their_order(library: Library) -> None:
    captions = [{"number": n, "caption": f"{model} {n}", "origin": model} for model in ("a", "b") for n in range(2)]
    library.take(packed(library.top / "x.tar", {"a.json": {"captions": captions}}))
    assert library.held() == [(A, 0, "a 0"), (A, 1, "a 1"), (A, 2, "b 0"), (A, 3, "b 1")]


@pytest.mark.parametrize("how", ["hex", "decimal", "unsigned"])
def test_a_key_of_a_clip_names_it(library: Library, how: str) -> None:
    clips = [row["clip_id"] for row in rows(library.archive, "clips") if row["clip_id"].startswith(LONG)]
    written = {
        "hex": lambda key: f"{key % (1 << 64):016x}",
        "decimal": str,
        "unsigned": lambda key: str(key % (1 << 64)),
    }[how]
    keys = {clip: written(clip_key(clip)) for clip in clips}
    if how == "hex":
        library.take(packed(library.top / "x.tar", {f"{key}.txt": clip for clip, key in keys.items()}))
    else:
        text = "".join(f"{key},long.mp4,{clip!r}\n".replace("'", '"') for clip, key in keys.items())
        report = library.bring(f"clip_key,path,caption\n{text}")
        assert noted(report, "columns: clip_key, caption")
    assert library.held() == [(clip, 0, clip) for clip in sorted(clips)]


def test_a_folder_of_shards_is_read_whole(library: Library) -> None:
    folder = library.top / "shards"
    folder.mkdir()
    packed(folder / "00000.tar", {"a.txt": "a dog"})
    packed(folder / "00001.tar", {"deep/b.txt": "a cat"}, "w:gz")
    laid(folder, {"00000_stats.json": {"count": 2}})
    report = library.take(folder)
    assert library.held() == [(A, 0, "a dog"), (B, 0, "a cat")]
    assert report.counts["without_caption"] == 1


def test_what_holds_no_captions_is_refused_with_the_reason(library: Library, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with fails_with(UsageError, "holds no captions", "expected .txt"):
        library.take(tmp_path / "none")
    with fails_with(UsageError, "holds no captions", r"\.csv 1"):
        library.take(laid(tmp_path / "lists", {"c.csv": "path,caption\na.mp4,x\n"}))
    with fails_with(UsageError, "nothing in it is named as a clip", "'x' \\(x.txt\\)"):
        library.take(laid(tmp_path / "other", {"x.txt": "x"}))
    with fails_with(UsageError, "none of its 1 files has a caption"):
        library.take(laid(tmp_path / "blank", {"a.txt": " "}))
    with fails_with(UsageError, "no whole tar file"):
        library.take(library.write(b"no tar at all", "x.tar"))
    whole = packed(tmp_path / "y.tar", {"a.txt": "a dog", "a.mp4": os.urandom(1 << 20)}).read_bytes()
    with fails_with(UsageError, "no whole tar file"):
        library.take(library.write(whole[: len(whole) // 2], "y.tar"))
    with fails_with(UsageError, "left out: z.tar:b.txt is no text, it holds zero bytes"):
        (tmp_path / "zeros").mkdir()
        packed(tmp_path / "zeros" / "z.tar", {"b.txt": b"a\0b"})
        library.take(tmp_path / "zeros")
    with fails_with(UsageError, "does not exist|cannot be read"):
        library.take(tmp_path / "nowhere.tar")
    assert rows(library.archive, "captions") == []


def header(kind: bytes, size: int, data: bytes = b"") -> bytes:
    """A member that says something of the next one."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        header(tarfile.XHDTYPE, 1 << 40) + bytes(1 << 20),
        header(tarfile.GNUTYPE_LONGNAME, 1 << 40) + bytes(1 << 20),
        header(tarfile.XHDTYPE, 11, b"11 path=ab\n") * 3_000,
        header(tarfile.REGTYPE, 1 << 66),
    ],
)
def test_a_shard_that_is_made_to_break_its_reader_is_refused(library: Library, data: bytes) -> None:
    member = packed(library.top / "a.tar", {"a.txt": "a dog"}).read_bytes()[:1024]
    with fails_with(UsageError, "no whole tar file"):
        library.take(library.write(member + data, "x.tar"))


def test_what_was_found_is_shown_before_it_is_written(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.take(laid(library.top / "t", {"a.txt": "a dog"}))
    library.bring("file,text\ndeep/b.mp4,a cat\n")
    shown = capsys.readouterr()
    assert "captions from: 1 .txt" in shown.err
    assert f"for example {A} gets 'a dog' (a.txt)" in shown.err
    assert "columns: file, text" in shown.err
    assert f"for example {B} gets 'a cat' (line 2)" in shown.err
    assert shown.out == ""


def test_a_name_is_matched_as_windows_and_urls_write_it(library: Library) -> None:
    text = "path,caption\nA.MP4,no\na.MP4,one\nC:\\Films\\V\\DEEP\\B.mp4,two\n"
    report = library.bring(text)
    assert [(clip, words) for clip, _, words in library.held()] == [(A, "one"), (B, "two")]
    assert report.counts["unmatched"] == 1
    library.bring(f'clip,caption\n"{B.replace("deep/", "deep%2F")}",three\n')
    assert (B, 0, "three") in library.held()


def test_an_import_of_a_folder_is_a_request_like_any_other(library: Library) -> None:
    with fails_with(UsageError, "does not exist"):
        caption.run(configure(library.archive), caption.Request(file=str(library.top / "nowhere")))
