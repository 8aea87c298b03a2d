"""Captions from lists that people write: what is read, what it is matched with, what the archive then holds."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import configure, encode, fails_with, rows, scanned
from libraries import A, B, Library, noted

from raydist import caption, scan
from raydist.demo.films import choose, write_captions
from raydist.errors import ArchiveError, StoreError, UsageError
from raydist.store import commit, schema
from raydist.store.lease import Lease


def test_a_list_of_paths_gives_their_clips_captions(library: Library) -> None:
    report = library.bring("path,caption\na.mp4,a dog jumps\ndeep/b.mp4,a cat sleeps\n")
    assert report.counts == {"lines": 2, "clips": 2, "added": 2}
    assert library.held() == [(A, 0, "a dog jumps"), (B, 0, "a cat sleeps")]
    assert noted(report, "columns: path, caption")
    assert noted(report, "without a caption: 5 of 7 clips", "v/long.mp4#t=0,1")
    (row,) = [row for row in rows(library.archive, "captions") if row["clip_id"] == A]
    assert (row["origin"], row["prompt_hash"], row["at"].tzinfo is not None) == ("sidecar", "", True)
    kept = json.loads((library.archive / "runs" / report.run / "report.json").read_text())
    assert kept["added"] == 2


def test_the_same_list_again_adds_nothing_and_says_so(library: Library) -> None:
    text = "path,caption\na.mp4,a dog jumps\na.mp4,a black dog\n"
    library.bring(text)
    before = rows(library.archive, "captions")
    report = library.bring(text)
    assert report.counts == {"lines": 2, "clips": 1, "added": 0, "unchanged": 2}
    assert noted(report, "nothing new")
    assert rows(library.archive, "captions") == before


def test_a_changed_text_replaces_the_sidecar_captions_of_its_clip_only(library: Library) -> None:
    library.bring("path,caption\na.mp4,a dog jumps\na.mp4,a black dog\ndeep/b.mp4,a cat\n")
    (clip,) = [row for row in rows(library.archive, "clips") if row["clip_id"] == A]
    other = {name: clip.get(name) for name in schema.CAPTIONS.names}
    other |= {"number": 0, "caption": "what a model said", "origin": "some-model", "prompt_hash": "x"}
    commit.append(
        str(library.archive), "captions", pa.Table.from_pylist([other], schema=schema.CAPTIONS), schema.CAPTIONS
    )
    report = library.bring("path,caption\na.mp4,a dog runs\n")
    assert report.counts == {"lines": 1, "clips": 1, "added": 0, "replaced": 1}
    assert noted(report, "2 sidecar captions", "replaced")
    assert library.held() == [(A, 0, "a dog runs"), (B, 0, "a cat")]
    assert library.held("some-model") == [(A, 0, "what a model said")]


def test_columns_that_might_hold_captions_and_were_not_taken_are_said(library: Library) -> None:
    report = library.bring("path,title,caption_1,caption_2\na.mp4,a dog,one,two\n")
    assert library.held() == [(A, 0, "a dog")]
    assert noted(report, "(not caption_1, caption_2;")


def test_several_texts_of_a_clip_are_numbered_and_the_same_text_counts_once(library: Library) -> None:
    report = library.bring(
        "file;description\na.mp4;a dog\na.mp4;  a dog \na.mp4;a hound\nv/a.mp4;a dog\nv/deep/b.mp4;a dog\n"
    )
    assert library.held() == [(A, 0, "a dog"), (A, 1, "a hound"), (B, 0, "a dog")]
    assert noted(report, "2 lines say what another line says")
    assert noted(report, "1 clips have several captions")
    assert noted(report, "2 distinct captions")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\ufeffFile Name;Caption\r\na.mp4;a caf\u00e9, \u201cquoted\u201d\r\n", "excel.csv"),
        ("sep=;\r\nfile;caption\r\na.mp4;a caf\u00e9, \u201cquoted\u201d\r\n", "excel.csv"),
        ("file\tcaption\na.mp4\ta caf\u00e9, \u201cquoted\u201d\n", "a.tsv"),
        ('"caption","note, long","path"\n"a caf\u00e9, \u201cquoted\u201d","x","a.mp4"\n', "a.csv"),
        ("file;caption\na.mp4;a caf\u00e9, \u201cquoted\u201d\n".encode("cp1252"), "west.csv"),
        ("file\tcaption\r\na.mp4\ta caf\u00e9, \u201cquoted\u201d\r\n".encode("utf-16"), "unicode.txt"),
        ('{"clip": "a.mp4", "text": "a caf\\u00e9, \u201cquoted\u201d"}\n', "a.jsonl"),
        ('[{"file": "a.mp4", "captions": ["a caf\u00e9, \u201cquoted\u201d", ""]}]', "a.json"),
        ('{"a.mp4": "a caf\u00e9, \u201cquoted\u201d"}', "a.json"),
        ("\n\nfile;caption_1;caption_2\n;;\na.mp4;;a caf\u00e9, \u201cquoted\u201d\n", "two.csv"),
    ],
)
def test_lists_are_read_however_they_were_exported(library: Library, text: str | bytes, name: str) -> None:
    report = library.bring(text, name=name)
    assert library.held() == [(A, 0, "a caf\u00e9, \u201cquoted\u201d")]
    assert noted(report, "Latin-1") == (name == "west.csv")


def test_quoted_line_ends_belong_to_the_caption_and_line_numbers_are_those_of_the_file(library: Library) -> None:
    report = library.bring('path,caption\r\na.mp4,"a dog\r\njumps, ""high"""\r\nnowhere.mp4,x\r\n')
    assert library.held() == [(A, 0, 'a dog\r\njumps, "high"')]
    assert noted(report, "1 captions name no video", "'nowhere.mp4' (line 4)")


@pytest.mark.parametrize(
    "written",
    [
        A,
        "v/a.mp4",
        "a.mp4",
        "a",
        "./a.mp4",
        "v/a.mp4#t=0,1.000",
        "{top}/v/a.mp4",
        "C:\\films\\v\\a.mp4",
        "/elsewhere/v/a.mp4",
    ],
)
def test_a_video_is_found_by_whatever_names_it(once: Path, library: Library, written: str) -> None:
    library.bring(f'path,caption\n"{written.format(top=once)}",a dog\n')
    assert library.held() == [(A, 0, "a dog")]


@pytest.mark.parametrize("written", ["elsewhere/a.mp4", "a.avi", "x/deep/b.mp4", "a.mp4#t=0,2", "deep", "..", "/"])
def test_a_name_that_is_another_files_matches_nothing(library: Library, written: str) -> None:
    report = library.bring(f'path,caption\ndeep/b.mp4,a cat\n"{written}",a dog\n')
    assert report.counts["unmatched"] == 1
    assert library.held() == [(B, 0, "a cat")]


def test_a_path_may_begin_where_its_list_lies(once: Path, library: Library) -> None:
    file = once / "captions.csv"
    file.write_text("path,caption\nv/deep/b.mp4,a cat\n./v/a.mp4,a dog\n")
    caption.run(configure(library.archive), caption.Request(file=str(file)))
    assert library.held() == [(A, 0, "a dog"), (B, 0, "a cat")]


def test_a_name_of_several_videos_matches_none_of_them(library: Library) -> None:
    report = library.bring("file,caption\nsame.mp4,a dog\nsame,a bird\nother/same.mp4,a cat\n")
    assert library.held() == [("v/other/same.mp4#t=0,1", 0, "a cat")]
    assert noted(report, "2 captions name several videos", "'same.mp4' (line 2), 'same' (line 3)")


def test_a_whole_video_of_several_clips_needs_times(library: Library) -> None:
    report = library.bring("path,caption\nlong.mp4,a film\na.mp4,a dog\n")
    assert library.held() == [(A, 0, "a dog")]
    assert noted(
        report, "1 captions name a whole video that has several clips", "`start` and `end`", "'long.mp4' (line 2)"
    )


@pytest.mark.parametrize(
    ("columns", "fields", "clip"),
    [
        ("start,end", "1,2", "1,2"),
        ("start_s,end_s", "1.2,1.9", "1,2"),
        ("start,end", "0:00:00.1,0:00:01", "0,1"),
        ("start,end", '"00:00:02,000","00:00:03,000"', "2,3"),
        ("start_ms,end_ms", "2000,3000", "2,3"),
        ("start,end", "0.8,1.9", "1,2"),
        ("start,end", "2.5,", "2,3"),
        ("time,x", "1.5,", "1,2"),
    ],
)
def test_times_choose_the_clip(library: Library, columns: str, fields: str, clip: str) -> None:
    library.bring(f"path,{columns},caption\nlong.mp4,{fields},a dog\n")
    assert library.held() == [(f"v/long.mp4#t={clip}", 0, "a dog")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("0.5,1.5", "reach across clips"),
        ("0,3", "reach across clips"),
        ("7,8", "where the archive has no clip"),
        ("two,3", "a time that is none"),
        ("2,1", "a time that is none"),
        (",1", "a time that is none"),
        ("-1,1", "a time that is none"),
        (",", "several clips"),
    ],
)
def test_times_that_choose_no_clip_are_said(library: Library, fields: str, reason: str) -> None:
    report = library.bring(f"path,start,end,caption\nlong.mp4,{fields},a dog\na.mp4,,,a cat\n")
    assert noted(report, reason, "'long.mp4' (line 2)")
    assert library.held() == [(A, 0, "a cat")]


def test_captions_of_parts_of_a_clip_are_several_captions_of_it(library: Library) -> None:
    report = library.bring("path,start,end,caption\nlong.mp4,0,0.3,a dog\nlong.mp4,0.6,0.9,it barks\n")
    assert [(number, text) for _, number, text in library.held()] == [(0, "a dog"), (1, "it barks")]
    assert noted(report, "2 captions are of another stretch than their clip")


@pytest.mark.parametrize("time", ["1e300", "NaN", "-1", "9" * 400, '"99999999999999999999:00:00"', "true", "[1]"])
def test_times_beyond_all_measure_are_none(library: Library, time: str) -> None:
    text = f'[{{"path": "long.mp4", "start": {time}, "caption": "a dog"}}, {{"path": "a.mp4", "caption": "a cat"}}]'
    report = library.bring(text)
    assert library.held() == [(A, 0, "a cat")]
    assert noted(report, "a time that is none", "'long.mp4' (line 1)")


def test_halves_of_characters_are_replaced_in_captions_and_name_nothing(library: Library) -> None:
    odd = "\\ud800"
    report = library.bring(
        f'{{"path": "a.mp4", "caption": "a dog {odd}"}}\n{{"path": "{odd}.mp4", "caption": "x"}}\n'
        f'{{"path": "v/{odd}.mp4#t=0,1", "caption": "y"}}\n'
    )
    assert library.held() == [(A, 0, "a dog ?")]
    assert report.counts["unmatched"] == 2


def test_a_parquet_file_is_a_list_like_any_other(library: Library) -> None:
    table = pa.table(
        {
            "file": pa.array(["long.mp4", "long.mp4", "a.mp4", "deep/b.mp4"]),
            "start_s": pa.array([1.0, 2.0, None, float("nan")]),
            "end_s": pa.array([2.0, 3.0, None, None]),
            "captions": pa.array([["a dog", "a hound"], ["a cat"], ["a bird"], None], pa.list_(pa.string())),
            "vector": pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float32(), 2)),
        }
    )
    pq.write_table(table, library.top / "captions.parquet")
    report = library.take(library.top / "captions.parquet")
    held = [("v/long.mp4#t=1,2", 0, "a dog"), ("v/long.mp4#t=1,2", 1, "a hound"), ("v/long.mp4#t=2,3", 0, "a cat")]
    assert library.held() == [(A, 0, "a bird"), *held]
    assert report.counts["without_caption"] == 1
    assert noted(report, "columns not read", "vector")
    assert noted(report, "columns: file, captions, start_s, end_s")


def test_a_column_of_bytes_that_are_no_text_is_told(library: Library) -> None:
    table = pa.table({"path": ["a.mp4"], "caption": pa.array([bytes(100_000)])})
    pq.write_table(table, library.top / "x.parquet", use_dictionary=False, compression="none")
    with fails_with(UsageError, "none is known to hold the captions", "Not read: caption", "binary"):
        library.take(library.top / "x.parquet")


def test_columns_are_named_where_they_cannot_be_guessed(library: Library) -> None:
    text = "Datei,Beschreibung,ab\nlong.mp4,ein Hund,1\n"
    with fails_with(UsageError, "Datei", "caption.text_column=NAME"):
        library.bring(text)
    library.bring(text, "caption.path_column=datei", "caption.text_column=Beschreibung", "caption.start_column=ab")
    assert library.held() == [("v/long.mp4#t=1,2", 0, "ein Hund")]
    with fails_with(UsageError, "no column 'Beschreibun'", "did you mean 'Beschreibung'"):
        library.bring(text, "caption.text_column=Beschreibun")


def test_of_several_columns_that_may_name_files_the_one_that_does_is_taken(library: Library) -> None:
    report = library.bring("path,file,title,text\nassets/1.mp4,a.mp4,Dog,a dog jumps\n")
    assert library.held() == [(A, 0, "a dog jumps")]
    assert noted(report, "columns: file, text (not path, title")


def test_long_captions_are_kept_whole_and_counted(library: Library) -> None:
    long, longer = "dog " * 40, "dog " * 80
    report = library.bring(f"path,caption\na.mp4,{long}\ndeep/b.mp4,{longer}\nlong.mp4,x\n")
    assert [text for _, _, text in library.held()] == [long.strip(), longer.strip()]
    assert noted(report, "2 are longer than the 32 tokens that ViCLIP reads", "1 are longer than the 77")


def test_lines_without_caption_are_counted_and_no_failure(library: Library) -> None:
    report = library.bring("path,caption\na.mp4,\ndeep/b.mp4,  \nlong.mp4,x\na.mp4,y\n")
    assert (report.counts["without_caption"], report.counts["added"], report.failures) == (2, 1, {})


def test_one_caption_for_all_is_said(library: Library) -> None:
    assert noted(library.bring("path,caption\na.mp4,video\ndeep/b.mp4,video\n"), "the same caption")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("path,caption\n", ["none of its 0 lines"]),
        ("path,caption\nx.mp4,a dog\n", ["no line names a clip", r"'x.mp4' \(line 2\)", "v/a.mp4"]),
        ("path,caption\na.mp4,\n", ["none of its 1 lines has a caption"]),
        ("path,caption\nv/a.mp4#t=0,1,a dog\n", ["none of its 0 lines has a caption", "line 2", "more fields"]),
        ("a.mp4,a dog\n", ["first line of names", "a dog"]),
        ('path,caption\na.mp4,"a dog\n', ["line 2", "doubled"]),
        ('path,caption\na.mp4,"a "big" dog"\n', ["line 2", "doubled"]),
        ("path,caption,caption\na.mp4,a,b\n", ["two columns named 'caption'"]),
        ('{"path": "a.mp4", "caption": "a dog"}\n{"path"\n', ["line 2 is no JSON"]),
        ('["a dog"]', ["record 1", "is no object"]),
        ('{"path": "a.mp4", "caption": "a dog"}\n' + "[" * 100_000, ["line 2 is no JSON", "recursion"]),
        (f'{{"path": "a.mp4", "caption": "a dog", "size": {"9" * 5_000}}}', ["line 1 is no JSON", "digits"]),
        (b"PK\x03\x04 and so on", ["Excel", "save it as CSV"]),
        (b"path,caption\na.mp4,a\0dog\n", ["zero bytes"]),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_the_reason(
    library: Library, text: str | bytes, words: list[str]
) -> None:
    with fails_with(UsageError, *words):
        library.bring(text)
    assert rows(library.archive, "captions") == []


def test_lines_of_too_many_fields_are_left_out_and_said(library: Library) -> None:
    report = library.bring("path,caption\na.mp4,a dog, jumping\ndeep/b.mp4,a cat,\n")
    assert library.held() == [(B, 0, "a cat")]
    assert noted(report, "1 lines left out, such as line 2", "must stand in quotes")


def test_captions_of_a_changed_file_wait_until_they_are_kept_or_replaced(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "v").mkdir(exist_ok=True)
        encode(tmp_path / "v" / name, count=10, rate=10, seed=1)
    library = Library(tmp_path, tmp_path / "archive")
    scanned(library.archive, tmp_path / "v")
    text = "path,caption\na.mp4,a dog\na.mp4,a hound\nb.mp4,a cat\n"
    library.bring(text)
    for name in ("a.mp4", "b.mp4"):
        encode(tmp_path / "v" / name, count=10, rate=10, seed=2)
    scanned(library.archive, tmp_path / "v")
    assert library.held() == []
    report = library.bring("path,caption\nb.mp4,a lion\n")
    assert noted(report, "1 clips have captions of an earlier content", "--keep")
    confirmed = caption.run(configure(library.archive), caption.Request(keep=True))
    assert confirmed.counts == {"confirmed": 2}
    kept = [("v/a.mp4#t=0,1", 0, "a dog"), ("v/a.mp4#t=0,1", 1, "a hound"), ("v/b.mp4#t=0,1", 0, "a lion")]
    assert library.held() == kept
    assert len(rows(library.archive, "captions")) == 3
    assert caption.run(configure(library.archive), caption.Request(keep=True)).counts == {"confirmed": 0}


def test_without_an_archive_clips_or_a_wish_it_says_what_to_do(tmp_path: Path) -> None:
    with fails_with(UsageError, "--from FILE"):
        caption.run(configure(tmp_path / "none"), caption.Request())
    file = tmp_path / "c.csv"
    with fails_with(UsageError, "does not exist"):
        caption.run(configure(tmp_path / "none"), caption.Request(file=str(file)))
    file.write_text("path,caption\na.mp4,b\n")
    with fails_with(ArchiveError, "raydist scan FOLDER"):
        caption.run(configure(tmp_path / "none"), caption.Request(file=str(file)))


def test_an_import_beside_a_scan_is_refused(library: Library) -> None:
    with Lease(str(library.archive), "scan", exclusive=True), pytest.raises(StoreError, match=r"scan.*wait for it"):
        library.bring("path,caption\na.mp4,a dog\n")


def test_a_copy_of_a_clip_lends_its_caption_to_the_clip(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    encode(folder / "film.mp4", count=20, rate=10, seed=1)
    encode(folder / "film_0.mp4", count=10, rate=10, seed=1)
    library = Library(tmp_path, tmp_path / "archive")
    config = configure(library.archive, "", "scan.naming={video}_{index}")
    scan.run(config, scan.Request(inputs=(str(folder),)))
    library.bring("path,caption\nfilm_0.mp4,a dog\n")
    (shown,) = library.held()
    assert shown[2] == "a dog"


def test_the_demos_captions_import_as_they_are(tmp_path: Path) -> None:
    films = choose(tmp_path / "demo", 2)
    for number, film in enumerate(films):
        film.file.parent.mkdir(exist_ok=True)
        encode(film.file, count=10, rate=10, seed=number)
    write_captions(films, tmp_path / "captions.csv")
    archive = tmp_path / "archive"
    scanned(archive, tmp_path / "demo")
    report = caption.run(configure(archive), caption.Request(file=str(tmp_path / "captions.csv")))
    assert report.counts == {"lines": 2, "clips": 2, "added": 2}


@pytest.mark.ray
def test_the_manifest_of_real_videos_imports_as_it_is(shared: Path, tmp_path: Path, cluster: None) -> None:
    archive = tmp_path / "archive"
    config = configure(archive, "", "scan.clip_seconds=30")
    scan.run(config, scan.Request(inputs=[str(file) for file in sorted((shared / "realvideo/files").glob("s0[0-6]*"))]))
    report = caption.run(config, caption.Request(file=str(shared / "realvideo" / "manifest.csv")))
    assert report.counts == {"lines": 157, "clips": 60, "added": 60, "without_caption": 97}
    assert noted(report, "columns: file, caption")
