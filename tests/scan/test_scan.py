"""Scans of real files: what a first, a second and a later scan leave in the archive."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from library import Library
from PIL import Image
from videos import encode

from raydist.errors import ArchiveError, StoreError, UsageError
from raydist.store import schema
from raydist.store.lease import Lease


def test_the_books_balance_whatever_a_folder_holds(library: Library) -> None:
    library.video("a.mp4", 65)
    library.video("deep/b.mkv", 2)
    (library.folder / "empty.mp4").touch()
    (library.folder / "text.mp4").write_text("no video")
    (library.folder / "b.txt").write_text("a caption")
    (library.folder / "a.txt").write_text("a caption")
    os.mkfifo(library.folder / "fifo.mp4")
    report = library.scan()
    assert report.counts == {"files": 6, "ok": 2, "failed": 4, "clips": 4, "skipped": 1}
    assert report.failures == {"empty": 1, "not_a_video": 2, "not_a_file": 1}
    books = library.books()
    assert (books["files"], books["ok"], books["failed_files"], books["clips"]) == (6, 2, 4, 4)
    assert library.rows("clips", "clip_id") == [
        "talks/a.mp4#t=0,30",
        "talks/a.mp4#t=30,60",
        "talks/a.mp4#t=60,65",
        "talks/deep/b.mkv#t=0,2",
    ]
    kept = json.loads((library.archive / "runs" / report.run / "report.json").read_text())
    assert kept["files"] == 6
    assert not (library.archive / "runs" / report.run / "manifest").exists()


def test_a_second_scan_opens_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.video("a.mp4")
    os.mkfifo(library.folder / "fifo.mp4")
    (library.folder / "text.mp4").write_text("no video")
    library.scan()
    monkeypatch.setattr("raydist.runtime.session", None)  # whoever asks for Ray now fails
    report = library.scan()
    assert report.counts == {"files": 3, "unchanged": 3, "clips": 0}
    assert not report.failures
    assert len(library.rows("failures", "reason")) == 2
    assert any("--retry-failed" in note for note in report.notes)


def test_retry_failed_looks_at_failed_files_only(library: Library) -> None:
    library.video("a.mp4")
    (library.folder / "text.mp4").write_text("no video")
    library.scan()
    report = library.scan(retry_failed=True)
    assert report.counts == {"files": 2, "failed": 1, "unchanged": 1, "clips": 0}
    assert library.books()["files"] == 2


def test_a_touched_file_keeps_what_was_derived_and_a_changed_one_loses_it(library: Library) -> None:
    touched, changed = library.video("touched.mp4"), library.video("changed.mp4", 40)
    library.video("left.mp4")
    library.scan()
    library.embed_all()
    before = {row["clip_id"]: row["fingerprint"] for row in library.rows("clips", "clip_id", "fingerprint")}
    os.utime(touched, ns=(1, 1))
    library.video("changed.mp4", 70, seed=1)
    assert library.scan().counts == {"files": 3, "ok": 2, "unchanged": 1, "clips": 4}
    after = {row["clip_id"]: row["fingerprint"] for row in library.rows("clips", "clip_id", "fingerprint")}
    assert set(after) - set(before) == {"talks/changed.mp4#t=60,70", "talks/changed.mp4#t=30,60"}
    assert set(before) - set(after) == {"talks/changed.mp4#t=30,40"}
    assert after["talks/changed.mp4#t=0,30"] != before["talks/changed.mp4#t=0,30"]
    kept = ["talks/left.mp4#t=0,3", "talks/touched.mp4#t=0,3"]
    assert library.rows("embeddings_some-00000000", "clip_id") == kept
    assert changed.exists()


def test_a_file_of_a_far_future_is_scanned_and_settles(library: Library) -> None:
    video = library.video("a.mp4")
    os.utime(video, (10**10, 10**10))
    if video.stat().st_mtime < 10**10:
        pytest.skip("this file system knows no such time")
    assert library.scan().counts == {"files": 1, "ok": 1, "clips": 1}
    assert library.rows("videos", "modified_at")[0].year == 2262
    assert library.scan().counts == {"files": 1, "unchanged": 1, "clips": 0}


def test_a_vanished_file_is_reported_and_comes_back_as_it_was(library: Library, tmp_path: Path) -> None:
    video = library.video("a.mp4")
    library.video("b.mp4")
    table = tmp_path / "names.csv"
    table.write_text("path,speaker\na.mp4,Ada\n")
    library.scan(metadata=str(table))
    library.embed_all()
    away = video.rename(tmp_path / "a.mp4")
    report = library.scan()
    assert report.counts == {"files": 1, "unchanged": 1, "clips": 0, "vanished": 1}
    assert any(note.startswith("vanished: talks/a.mp4") for note in report.notes)
    assert library.states() == {"a.mp4": "vanished", "b.mp4": "ok"}
    assert library.rows("clips", "video_id") == ["talks/b.mp4"]
    assert library.rows("embeddings_some-00000000", "video_id") == ["talks/b.mp4"]
    assert library.scan().counts == {"files": 1, "unchanged": 1, "clips": 0}
    away.rename(video)
    assert library.scan().counts == {"files": 2, "ok": 1, "unchanged": 1, "clips": 1}
    assert library.states() == {"a.mp4": "ok", "b.mp4": "ok"}
    assert {"path": "a.mp4", "speaker": "Ada"} in library.rows("videos", "path", "speaker")
    library.books()


def test_a_scan_of_one_file_or_folder_lets_nothing_else_vanish(library: Library) -> None:
    gone, one = library.video("gone.mp4"), library.video("one.mp4")
    library.video("deep/b.mp4")
    library.scan()
    gone.unlink()
    library.scan(one)
    library.scan(library.folder / "deep")
    assert library.states() == {"gone.mp4": "ok", "one.mp4": "ok", "deep/b.mp4": "ok"}


def test_an_emptied_folder_is_refused_and_nothing_changes(library: Library, tmp_path: Path) -> None:
    library.video("a.mp4")
    library.scan()
    library.folder.rename(tmp_path / "elsewhere")
    library.folder.mkdir()
    with pytest.raises(UsageError, match="is its disk mounted"):
        library.scan()
    assert library.books()["clips"] == 1
    report = library.scan(nothing=True, moved=(str(library.folder), str(tmp_path / "elsewhere")))
    assert "root 'talks' is now at" in report.notes[0]
    assert library.scan(tmp_path / "elsewhere").counts == {"files": 1, "unchanged": 1, "clips": 0}


def test_a_second_folder_joins_the_archive(library: Library, tmp_path: Path) -> None:
    library.video("a.mp4")
    library.scan()
    other = tmp_path / "films"
    other.mkdir()
    shutil.copy(library.folder / "a.mp4", other / "a.mp4")
    assert library.scan(other).counts == {"files": 1, "ok": 1, "clips": 1}
    assert library.rows("clips", "video_id") == ["films/a.mp4", "talks/a.mp4"]
    assert library.rows("roots", "name") == ["films", "talks"]


def test_moving_to_a_folder_that_is_not_there_or_from_no_root_is_refused(library: Library, tmp_path: Path) -> None:
    library.video("a.mp4")
    library.scan()
    with pytest.raises(UsageError, match="the new folder does not exist"):
        library.scan(nothing=True, moved=("talks", str(tmp_path / "nowhere")))
    with pytest.raises(UsageError, match="no root of the archive lies there; its roots: talks"):
        library.scan(nothing=True, moved=("tlaks", str(tmp_path)))


@pytest.mark.parametrize("new", ["films", "films/deep", "."])
def test_moving_onto_into_or_around_another_root_is_refused(library: Library, tmp_path: Path, new: str) -> None:
    library.video("a.mp4")
    (tmp_path / "films" / "deep").mkdir(parents=True)
    shutil.copy(library.folder / "a.mp4", tmp_path / "films" / "a.mp4")
    library.scan(library.folder, tmp_path / "films")
    places = library.rows("roots", "name", "location")
    with pytest.raises(UsageError, match=r"the root 'films'.*--moved.*another archive"):
        library.scan(nothing=True, moved=("talks", str(tmp_path / new)))
    assert library.rows("roots", "name", "location") == places


def test_two_roots_move_at_once_with_the_folder_that_holds_them(library: Library, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name in ("one", "two"):
        shutil.copytree(library.video("a.mp4").parent, tmp_path / "disk" / name)
    library.scan(tmp_path / "disk" / "one", tmp_path / "disk" / "two")
    (tmp_path / "disk").rename(tmp_path / "moved")
    library.scan(nothing=True, moved=(str(tmp_path / "disk"), str(tmp_path / "moved")))
    assert library.rows("roots", "location") == [str(tmp_path / "moved" / name) for name in ("one", "two")]


def test_the_archive_may_lie_in_the_folder_but_not_be_it(library: Library) -> None:
    library.video("a.mp4")
    inside = library.folder / "archive"
    assert library.scan(archive=inside).counts["files"] == 1
    assert library.scan(archive=inside).counts == {"files": 1, "unchanged": 1, "clips": 0}
    with pytest.raises(UsageError, match="the archive itself"):
        library.scan(archive=library.folder)


def test_an_empty_folder_says_so(library: Library) -> None:
    report = library.scan()
    assert report.counts == {"files": 0, "clips": 0}
    assert "no file was found" in report.notes[0]


def test_a_typing_error_makes_no_archive(library: Library) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        library.scan(library.folder / "tlaks")
    with pytest.raises(ArchiveError, match="no archive at"):
        library.scan(nothing=True, resplit=True)
    assert not library.archive.exists()


def test_nothing_to_scan_says_what_is_expected(library: Library) -> None:
    with pytest.raises(UsageError, match="expected folders, files or globs"):
        library.scan(nothing=True)


def test_what_an_archive_was_made_with_holds_until_it_is_contradicted(library: Library) -> None:
    library.video("a.mp4", 20)
    library.scan(changes=("scan.clip_seconds=5",))
    library.video("b.mp4", 10)
    assert library.scan().counts["clips"] == 2
    with pytest.raises(ArchiveError, match=r"clip_seconds is 5\.0 there and 10\.0 here.*another archive"):
        library.scan(changes=("scan.clip_seconds=10",))
    assert library.books()["clips"] == 6


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_metadata_becomes_columns_that_outlive_a_change_of_the_file(
    library: Library, tmp_path: Path, suffix: str
) -> None:
    library.video("007.mp4")
    library.video("b.mp4")
    library.video("c.mp4")
    rows = [
        {"path": "007.mp4", "speaker": "Ada", "year": 1843},
        {"path": str(library.folder / "b.mp4"), "speaker": "Grace", "year": 1952},
        {"path": "nowhere.mp4", "speaker": "Nobody", "year": 0},
    ]
    file = tmp_path / f"names.{suffix}"
    if suffix == "csv":
        file.write_text("path,speaker,year\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows))
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    report = library.scan(metadata=str(file))
    assert "metadata: speaker, year for 2 videos" in report.notes
    assert any("1 lines match no video, such as 'nowhere.mp4'" in note for note in report.notes)
    library.video("b.mp4", 5, seed=3)
    library.scan()
    assert library.rows("videos", "path", "speaker", "year") == [
        {"path": "007.mp4", "speaker": "Ada", "year": 1843},
        {"path": "b.mp4", "speaker": "Grace", "year": 1952},
        {"path": "c.mp4", "speaker": None, "year": None},
    ]


def test_metadata_names_files_as_the_file_system_does_however_letters_are_composed(
    library: Library, tmp_path: Path
) -> None:
    for name in ("50% off.mp4", "cafe\u0301.mp4", "deep/100%.mp4", "a%20b.mp4", "both.mp4"):
        library.video(name)
    other = tmp_path / "films"
    other.mkdir()
    shutil.copy(library.folder / "both.mp4", other / "both.mp4")
    names = ["50% off.mp4", "caf\u00e9.mp4", str(library.folder / "deep/100%.mp4"), "a%2520b.mp4", "both.mp4"]
    file = tmp_path / "names.csv"
    file.write_text("path,mark\n" + "".join(f"{name},{number}\n" for number, name in enumerate(names)))
    report = library.scan(library.folder, other, metadata=str(file))
    assert any("1 lines match no video, such as 'both.mp4'" in note for note in report.notes)
    marks = {row["video_id"]: row["mark"] for row in library.rows("videos", "video_id", "mark")}
    assert marks == {
        "films/both.mp4": None,
        "talks/50%25 off.mp4": 0,
        "talks/a%2520b.mp4": 3,
        "talks/both.mp4": None,
        "talks/caf\u00e9.mp4": 1,
        "talks/deep/100%25.mp4": 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,speaker\na.mp4,Ada\n", "expected one named 'path'"),
        ("path\na.mp4\n", "others of your own"),
        ("path,duration_s\na.mp4,3\n", "a column 'duration_s' of its own"),
        ('path,speaker\n"a.mp4\n', "cannot be read"),
    ],
)
def test_metadata_that_cannot_be_used_is_refused_before_anything_is_scanned(
    library: Library, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "names.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        library.scan(metadata=str(file))
    assert not library.archive.exists()


def test_two_scans_at_once_are_refused_and_the_first_is_named(library: Library) -> None:
    library.video("a.mp4")
    library.scan()
    with (
        Lease(str(library.archive), "scan", exclusive=True),
        pytest.raises(StoreError, match=rf"`raydist scan` on .*process {os.getpid()}.*wait for it"),
    ):
        library.scan()


def test_pictures_are_skipped_and_counted_and_a_gif_of_one_frame_is_a_video(library: Library) -> None:
    picture = Image.new("RGB", (32, 24), (200, 30, 90))
    for name, kind in (("a.png", "PNG"), ("b.jpg", "JPEG"), ("renamed.mp4", "PNG"), ("one.gif", "GIF")):
        picture.save(library.folder / name, format=kind)
    report = library.scan()
    assert report.counts == {"files": 1, "ok": 1, "clips": 1, "skipped": 3}
    assert "skipped: 3 pictures" in report.notes
    assert library.books()["skipped"] == 3
    assert not library.rows("failures")
    assert library.scan().counts == {"files": 1, "unchanged": 1, "clips": 0, "skipped": 3}


def test_stretches_without_frames_are_no_clips(library: Library) -> None:
    second = 12_800
    ticks = [number * second for number in range(3)] + [(1000 + number) * second for number in range(3)]
    encode(library.folder / "a.mp4", count=6, size=(32, 32), times=ticks)
    assert library.scan().counts == {"files": 1, "ok": 1, "clips": 2}
    assert library.rows("clips", "start_s") == [0.0, 990.0]
    assert library.rows("clips", "clip_index") == [0, 33]
    assert library.scan().counts == {"files": 1, "unchanged": 1, "clips": 0}


def test_names_that_share_an_id_cost_these_files_only_until_one_is_renamed(library: Library) -> None:
    library.video("other.mp4")
    composed, decomposed = library.video("\u00e9.mp4"), library.video("e\u0301.mp4", 4)
    if len(list(library.folder.iterdir())) < 3:
        pytest.skip("this file system takes both spellings for one name")
    report = library.scan()
    assert report.counts == {"files": 2, "ok": 1, "failed": 1, "clips": 1}
    assert report.failures == {"id_collision": 1}
    library.books()
    composed.rename(library.folder / "renamed.mp4")
    assert library.scan().counts == {"files": 3, "ok": 2, "unchanged": 1, "clips": 2}
    assert library.rows("clips", "video_id") == ["talks/other.mp4", "talks/renamed.mp4", "talks/\u00e9.mp4"]
    assert decomposed.exists()


def test_a_name_of_any_bytes_is_scanned(library: Library) -> None:
    video = library.video("a.mp4")
    os.rename(os.fsencode(video), os.path.join(os.fsencode(library.folder), b"caf\xe9\n.mp4"))
    assert library.scan().counts == {"files": 1, "ok": 1, "clips": 1}
    assert library.rows("clips", "clip_id") == ["talks/caf%E9\n.mp4#t=0,3"]


def test_cuts_of_a_video_that_is_there_are_aliases_and_step_in_when_it_leaves(library: Library) -> None:
    naming = ("scan.naming={video}_{index}", "scan.clip_seconds=5")
    video = library.video("monday.mp4", 12)
    assert library.scan(changes=naming).counts["clips"] == 3
    for index, seconds in enumerate((5, 5, 2)):
        library.video(f"monday_{index}.mp4", seconds)
    assert library.scan().counts == {"files": 4, "alias": 3, "unchanged": 1, "clips": 0}
    assert library.books()["alias"] == 3
    video.unlink()
    report = library.scan()
    assert report.counts == {"files": 3, "unchanged": 3, "clips": 0, "vanished": 1}
    assert any("scan once more" in note for note in report.notes)
    assert library.scan().counts == {"files": 3, "ok": 3, "clips": 3}
    assert library.rows("clips", "source_id", "source_start_s") == [
        {"source_id": "talks/monday", "source_start_s": start_s} for start_s in (0.0, 10.0, 5.0)
    ]
    library.books()


def test_a_video_takes_back_the_stretches_of_cuts_that_leave(library: Library) -> None:
    naming = ("scan.naming={video}_{index}", "scan.clip_seconds=3")
    cuts = [library.video("talk_0.mp4", 3), library.video("talk_1.mp4", 3)]
    library.scan(changes=naming)
    library.video("talk.mp4", 9)
    assert library.scan().counts == {"files": 3, "ok": 1, "unchanged": 2, "clips": 1}
    assert library.scan().counts == {"files": 3, "unchanged": 3, "clips": 0}
    cuts[0].unlink()
    report = library.scan()
    assert report.counts == {"files": 2, "unchanged": 2, "clips": 0, "vanished": 1}
    assert any("scan once more" in note for note in report.notes)
    assert library.scan().counts == {"files": 2, "ok": 1, "unchanged": 1, "clips": 2}
    expected = ["talks/talk.mp4#t=0,3", "talks/talk.mp4#t=6,9", "talks/talk_1.mp4#t=0,3"]
    assert library.rows("clips", "clip_id") == expected
    library.video("talk_1.mp4", 1)
    library.scan()
    assert library.scan().counts == {"files": 2, "ok": 1, "unchanged": 1, "clips": 3}
    report = library.scan()
    assert report.counts == {"files": 2, "unchanged": 2, "clips": 0}
    assert not any("scan once more" in note for note in report.notes)


def test_a_stretch_without_frames_is_not_looked_for_in_every_scan(library: Library) -> None:
    naming = ("scan.naming={video}_{index}", "scan.clip_seconds=3")
    cut = library.video("talk_0.mp4", 3)
    times = [second * 12_800 for second in (0, 1, 2, 9, 10, 11)]
    encode(library.folder / "talk.mp4", times=times, count=6, size=(32, 32), options={"preset": "ultrafast"})
    library.scan(changes=naming)
    assert library.rows("clips", "clip_id") == ["talks/talk.mp4#t=0,3", "talks/talk.mp4#t=9,12"]
    assert library.scan().counts == {"files": 2, "unchanged": 2, "clips": 0}
    cut.unlink()
    library.scan()
    assert library.scan().counts == {"files": 1, "unchanged": 1, "clips": 0}


def test_an_archive_without_the_column_of_gaps_is_scanned_on(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    older = pa.schema([field for field in schema.VIDEOS if field.name != "gaps_ms"])
    naming = ("scan.naming={video}_{index}", "scan.clip_seconds=3")
    library.video("talk.mp4", 6)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "VIDEOS", older)
        library.scan(changes=naming)
    library.video("talk_1.mp4", 3)
    assert library.scan().counts == {"files": 2, "alias": 1, "unchanged": 1, "clips": 0}
    assert "gaps_ms" not in library.rows("videos")[0]


def test_a_video_that_was_a_copy_as_a_whole_takes_back_any_stretch(library: Library) -> None:
    naming = ("scan.naming={video}_{index}", "scan.clip_seconds=3")
    cuts = [library.video("talk_0.mp4", 3), library.video("talk_1.mp4", 3)]
    library.scan(changes=naming)
    library.video("talk.mp4", 6)
    library.scan()
    assert library.states()["talk.mp4"] == "alias"
    cuts[1].unlink()
    library.scan()
    library.scan()
    assert library.rows("clips", "clip_id") == ["talks/talk.mp4#t=3,6", "talks/talk_0.mp4#t=0,3"]
    library.books()


def test_few_videos_are_split_in_parts_and_it_is_said(library: Library) -> None:
    library.video("a.mp4", 50)
    (library.folder / "notes.pdf").write_text("no video")
    report = library.scan(changes=("scan.clip_seconds=5",))
    assert any("fewer than 20 source videos" in note for note in report.notes)
    splits = {row["clip_id"]: row["split"] for row in library.rows("clips", "clip_id", "split")}
    assert sorted(splits.values()) == ["gap"] * 2 + ["test"] + ["train"] * 6 + ["val"]


def test_a_split_is_never_dealt_again_unless_asked_for(library: Library) -> None:
    library.video("a.mp4", 50)
    library.scan(changes=("scan.clip_seconds=5",))
    before = library.rows("clips", "clip_id", "split")
    for number in range(20):
        library.video(f"b{number}.mp4", 2)
    os.utime(library.folder / "a.mp4", ns=(1, 1))
    library.scan()
    assert [row for row in library.rows("clips", "clip_id", "split") if "/a.mp4" in row["clip_id"]] == before
    report = library.scan(nothing=True, resplit=True)
    assert report.notes[0].startswith("splits dealt again by source video: ")
    splits = [row["split"] for row in library.rows("clips", "clip_id", "split") if "/a.mp4" in row["clip_id"]]
    assert len(splits) == 10
    assert len(set(splits)) == 1


def test_the_copies_of_a_split_beside_the_vectors_follow_when_it_is_dealt_again(library: Library) -> None:
    library.video("a.mp4", 50)
    library.scan(changes=("scan.clip_seconds=5",))
    library.embed_all()
    for number in range(20):
        library.video(f"b{number}.mp4", 2)
    library.scan()
    library.scan(nothing=True, resplit=True)
    dealt = {row["clip_id"]: row["split"] for row in library.rows("clips", "clip_id", "split")}
    copies = library.rows("embeddings_some-00000000", "clip_id", "split")
    assert len(copies) == 10
    assert {row["clip_id"]: row["split"] for row in copies}.items() <= dealt.items()


def test_what_a_killed_run_left_behind_is_removed_by_the_next(library: Library) -> None:
    left = library.archive / "runs" / "scan-killed" / "manifest"
    library.video("a.mp4")
    library.scan()
    left.mkdir(parents=True)
    (left / "part-000000.parquet").write_bytes(b"left")
    library.scan()
    assert not left.exists()


def test_dealing_few_videos_again_deals_them_in_parts(library: Library) -> None:
    library.video("a.mp4", 50)
    library.scan(changes=("scan.clip_seconds=5",))
    before = library.rows("clips", "clip_id", "split")
    report = library.scan(nothing=True, resplit=True)
    assert "in parts" in report.notes[0]
    assert library.rows("clips", "clip_id", "split") == before


@pytest.mark.ray
def test_many_files_are_probed_on_ray(library: Library, cluster: None) -> None:
    video = library.video("v000.mp4")
    for number in range(1, 60):
        shutil.copy(video, library.folder / f"v{number:03}.mp4")
    for number in range(5):
        (library.folder / f"text{number}.mp4").write_text("no video")
    report = library.scan()
    assert report.counts == {"files": 65, "ok": 60, "failed": 5, "clips": 60}
    assert report.failures == {"not_a_video": 5}
    assert library.books()["clips"] == 60
    assert {row["split"] for row in library.rows("clips", "clip_id", "split")} == {"train", "val", "test"}
    assert library.scan().counts == {"files": 65, "unchanged": 65, "clips": 0}
