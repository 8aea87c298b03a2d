"""dedup as a person runs it: from an archive to groups, keepers, decisions and files."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import fails_with, made, rows, write_viclip
from click.testing import CliRunner
from films import CHANGES, CLIP_S, LATE_S, RATE, deduped, filled, film, kept, settings_for, shoot, table, with_copies

import raydist
from raydist import dedup, scan
from raydist.cli import cli
from raydist.dedup import files
from raydist.errors import ArchiveError, StoreError, UsageError
from raydist.records import Report
from raydist.store import lease, read

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_viclip(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_copies(tmp_path_factory.mktemp("films") / "in")


@pytest.fixture(scope="module")
def first(cluster: None, tmp_path_factory: pytest.TempPathFactory, films: Path, model: Path) -> tuple[Path, Report]:
    """An archive after its first run; tests that write work on a copy."""
    archive = filled(tmp_path_factory.mktemp("first") / "archive", films, model)
    return archive, deduped(archive)


@pytest.fixture
def archive(first: tuple[Path, Report], tmp_path: Path) -> Path:
    return Path(shutil.copytree(first[0], tmp_path / "archive"))


def test_copies_go_and_the_best_file_stays(first: tuple[Path, Report], films: Path) -> None:
    archive, report = first
    stays = kept(archive)
    assert {name for name, keep in stays.items() if not keep} == {
        *(f"in/poor.mp4#t={start},{start + CLIP_S}" for start in range(0, 40, CLIP_S)),
        *(row["clip_id"] for row in rows(archive, "clips") if row["video_id"] == "in/late.mp4"),
    }
    assert all(stays[f"in/film.mp4#t={start},{start + CLIP_S}"] for start in range(0, 40, CLIP_S))
    files = {file["video_id"]: file for file in report.details["files"]}
    assert {name for name, file in files.items() if file["may_go"]} == {"in/poor.mp4", "in/late.mp4"}
    assert files["in/poor.mp4"]["shown_by"] == ["in/film.mp4"]
    listed = Path(report.details["keep"]).read_text().splitlines()
    assert listed == [str(films / name) for name in ("film.mp4", "other.mp4", "third.mp4")]
    assert sorted(path.name for path in films.iterdir()) == [
        "film.mp4", "late.mp4", "other.mp4", "poor.mp4", "third.mp4",
    ]  # fmt: skip


def test_every_dropped_clip_has_a_kept_one_and_the_figures_add_up(first: tuple[Path, Report]) -> None:
    archive, report = first
    groups = table(archive, "groups_")
    stays = {row["clip_key"]: row["keep"] for row in groups}
    assert all(stays[row["kept_by"]] for row in groups if not row["keep"])
    assert report.counts["redundant"] == sum(not row["keep"] for row in groups)
    assert report.counts["clips"] == len(rows(archive, "clips"))
    pairs = table(archive, "duplicates_")
    assert report.counts["copies"] == sum(row["kind"] == "copy" for row in pairs)
    assert report.counts["pairs"] == sum(row["similarity"] >= 0.9 for row in pairs)


def test_videos_are_said_to_overlap_with_the_offset(first: tuple[Path, Report]) -> None:
    archive, report = first
    (late,) = [
        row for row in table(archive, "overlaps_") if {row["a_video"], row["b_video"]} == {"in/film.mp4", "in/late.mp4"}
    ]
    assert late["offset_s"] == pytest.approx(-LATE_S, abs=0.5)
    assert late["a_from_s"] == pytest.approx(LATE_S, abs=1)
    assert late["a_to_s"] == pytest.approx(40, abs=1)
    assert "in/late.mp4 0:00" in dedup.render(report)


def test_a_second_run_joins_and_reads_nothing_and_finds_the_same(archive: Path) -> None:
    before = {prefix: table(archive, prefix) for prefix in ("duplicates_", "groups_", "overlaps_", "joined_")}
    report = deduped(archive)
    assert report.details["new_clips"] == report.details["products"] == 0
    assert {prefix: table(archive, prefix) for prefix in before} == before


def test_a_run_with_a_new_file_joins_only_that_and_ends_as_one_run_over_all(
    archive: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(films, tmp_path / "in"))
    scan.run(settings_for(archive), scan.Request(moved=(str(films), str(folder))))
    shoot(folder, "again.mp4", film(6)[55:], options={"crf": "33", "preset": "veryfast"})
    filled(archive, folder, model)
    report = deduped(archive)
    new = sum(row["video_id"] == "in/again.mp4" for row in rows(archive, "clips"))
    assert report.details["new_clips"] == new
    fresh = filled(tmp_path / "fresh", folder, model)
    deduped(fresh)
    for prefix in ("duplicates_", "groups_", "overlaps_"):
        # Who was found by whom depends on what was known already.
        some = [[{**row, "found_by": ""} for row in table(place, prefix)] for place in (archive, fresh)]
        assert some[0] == some[1]


def test_what_a_person_said_outlives_runs_and_models(archive: Path, tmp_path: Path) -> None:
    deduped(archive, different=[("in/film.mp4", "in/poor.mp4")], by="ann")
    assert all(kept(archive)[f"in/poor.mp4#t={start},{start + CLIP_S}"] for start in (0, 10, 20, 30))
    before = set(read.model_keys(str(archive)))
    other = write_viclip(tmp_path / "other", seed=3)
    made(archive, other, *CHANGES)
    deduped(archive, model=other)
    (key,) = set(read.model_keys(str(archive))) - before
    assert all(kept(archive, key).get(f"in/poor.mp4#t={start},{start + CLIP_S}", True) for start in (0, 10, 20, 30))
    (said,) = rows(archive, "decisions")
    assert (said["a"], said["b"], said["verdict"], said["by"]) == ("in/film.mp4", "in/poor.mp4", "different", "ann")


def test_a_clip_that_a_person_keeps_stands_for_the_others(archive: Path) -> None:
    report = deduped(archive, keep=["in/poor.mp4"])
    stays = kept(archive)
    assert all(stays[f"in/poor.mp4#t={start},{start + CLIP_S}"] for start in (0, 10, 20, 30))
    assert not any(stays[f"in/film.mp4#t={start},{start + CLIP_S}"] for start in (0, 10, 20, 30))
    assert "in/film.mp4" in {file["video_id"] for file in report.details["files"] if file["may_go"]}


def test_a_file_of_which_a_part_is_shown_stays_and_its_spans_are_listed(archive: Path) -> None:
    report = deduped(archive, keep=["in/poor.mp4#t=10,20"])
    files = {file["video_id"]: file for file in report.details["files"]}
    assert not files["in/poor.mp4"]["may_go"]
    assert [10.0, 20.0] not in files["in/poor.mp4"]["spans_s"]
    assert sum(end - start for start, end in files["in/poor.mp4"]["spans_s"]) == 30


def test_a_list_of_decisions_counts_like_options(archive: Path, tmp_path: Path) -> None:
    file = tmp_path / "decisions.csv"
    with open(file, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["a", "b", "archive_b", "verdict", "clip", "keep"])
        writer.writerow(["in/third.mp4#t=0,10", "in/other.mp4#t=0,10", "", "duplicate", "", ""])
        writer.writerow(["", "", "", "", "in/third.mp4", "true"])
    # A person can only judge pairs that were found: of these two the vectors are alike.
    assert any(
        {row["a_id"], row["b_id"]} == {"in/third.mp4#t=0,10", "in/other.mp4#t=0,10"}
        for row in table(archive, "duplicates_")
    )
    deduped(archive, decisions=str(file))
    assert kept(archive)["in/other.mp4#t=0,10"] is False


def test_a_pair_that_only_a_person_knows_counts(archive: Path) -> None:
    changes = "dedup.threshold=0.999"  # at which no pair of the two films is found
    assert "in/other.mp4#t=0,10" not in kept_after(archive, changes)
    stays = kept_after(archive, changes, same=[("in/other.mp4#t=0,10", "in/third.mp4#t=0,10")])
    assert (stays["in/other.mp4#t=0,10"], stays["in/third.mp4#t=0,10"]) == (True, False)


def kept_after(archive: Path, change: str, **request: Any) -> dict[str, bool]:
    for name in read.table_names(str(archive)):
        if name.startswith("duplicates_"):
            shutil.rmtree(archive / f"{name}.lance")
    deduped(archive, change, **request)
    return kept(archive)


def test_the_reference_always_stays(archive: Path, films: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    shoot(folder, "better.mp4", film(5), options={"crf": "18", "preset": "veryfast"})
    shoot(folder, "unknown.mp4", film(9, 20))
    new = filled(tmp_path / "incoming", folder, model)
    report = deduped(new, against=str(archive))
    assert [file["video_id"] for file in report.details["files"] if file["may_go"]] == ["new/better.mp4"]
    assert {row["keep"] for row in table(new, "groups_")} == {False}
    names = {row["archive_b"] for row in table(new, "duplicates_")}
    assert len(names) == 1
    assert names.pop().startswith("archive-")
    again = deduped(new, against=str(archive))
    assert again.counts == report.counts
    assert {file["shown_by"][0].split(": ")[1] for file in again.details["files"]} <= {
        "in/film.mp4",
        "in/poor.mp4",
        "in/late.mp4",
    }


def test_a_file_never_goes_because_it_is_itself_elsewhere(archive: Path, films: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(archive, tmp_path / "twin"))
    report = deduped(archive, against=str(twin))
    assert report.counts["redundant"] > 0
    assert not any(file["may_go"] for file in report.details["files"])
    assert len(Path(report.details["keep"]).read_text().splitlines()) == len(list(films.iterdir()))


def test_what_a_kept_link_leads_to_stays(cluster: None, tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "in"
    target = shoot(folder, "line\nbreak.mp4", film(5, 10))
    (folder / "a.mp4").symlink_to(target)
    report = deduped(filled(tmp_path / "archive", folder, model))
    assert report.counts["redundant"] == 1
    assert not any(file["may_go"] for file in report.details["files"])
    listed = Path(report.details["keep"]).with_name("keep0.txt").read_bytes()
    assert listed == b"".join(bytes(path) + b"\0" for path in (folder / "a.mp4", target))


def test_a_file_whose_pictures_are_in_a_lost_one_stays(tmp_path: Path) -> None:
    known: dict[str, Any] = {"path": "p", "bytes": 1, "may_go": True, "spans_s": ()}
    found = [files.Redundant(video_id=name, shown_by=(f"of {name}",), **known) for name in ("a", "b")]
    (tmp_path / "there").touch()
    checked = files.without_lost(found, {"of a": str(tmp_path / "gone"), "of b": str(tmp_path / "there")})
    assert [(file.video_id, file.may_go) for file in checked] == [("b", True), ("a", False)]


def test_pairs_of_a_file_that_changed_are_found_anew(archive: Path, films: Path, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(films, tmp_path / "in"))
    scan.run(settings_for(archive), scan.Request(moved=(str(films), str(folder))))
    shoot(folder, "poor.mp4", film(11))
    filled(archive, folder, model)
    deduped(archive)
    assert all(keep for name, keep in kept(archive).items() if name.startswith("in/poor.mp4"))
    fingerprints = {row["clip_key"]: row["fingerprint"] for row in rows(archive, "clips")}
    for row in table(archive, "duplicates_"):
        assert (fingerprints[row["a"]], fingerprints[row["b"]]) == (row["a_fingerprint"], row["b_fingerprint"])


def test_vectors_alone_may_decide(archive: Path) -> None:
    report = deduped(archive, "dedup.drop=similar")
    pairs = [row for row in table(archive, "duplicates_") if row["similarity"] >= 0.9 and row["kind"] != "copy"]
    stays = kept(archive)
    assert report.counts["redundant"] == sum(not keep for keep in stays.values())
    assert pairs
    assert not any(stays[row["a_id"]] and stays[row["b_id"]] for row in pairs)


def test_another_threshold_joins_all_again_and_reads_nothing_twice(archive: Path) -> None:
    before = {(row["a_id"], row["b_id"]): row for row in table(archive, "duplicates_")}
    report = deduped(archive, "dedup.threshold=0.8")
    after = {(row["a_id"], row["b_id"]): row for row in table(archive, "duplicates_")}
    assert report.details["new_clips"] == report.counts["clips"]
    assert before.items() <= after.items()
    assert report.counts["redundant"] == 8


def test_the_sweep_counts_by_threshold_and_writes_no_table(archive: Path) -> None:
    tables = read.table_names(str(archive))
    report = dedup.sweep(settings_for(archive))
    found = report.details["sweep"]
    assert [row["threshold"] for row in found] == sorted(row["threshold"] for row in found)
    assert all(low["pairs"] >= high["pairs"] for low, high in pairwise(found))
    pairs = [row["similarity"] for row in table(archive, "duplicates_") if row["found_by"] == "vectors"]
    at = next(row for row in found if row["threshold"] >= 0.9)
    assert at["pairs"] == sum(similarity >= at["threshold"] for similarity in pairs)
    for row in found:
        over = [example["similarity"] >= row["threshold"] for example in row["examples"]]
        assert over == sorted(over)
        assert 1 <= sum(over) <= 2
        assert len(over) - sum(over) <= 2
    assert read.table_names(str(archive)) == tables


def test_the_sheet_shows_names_and_does_not_run_them(tmp_path: Path, cluster: None, model: Path) -> None:
    folder = tmp_path / "in"
    shoot(folder, "<script>x.mp4", film(5, 10))
    shoot(folder, "plain.mp4", film(5, 10), options={"crf": "36", "preset": "veryfast"})
    archive = filled(tmp_path / "archive", folder, model)
    report = deduped(archive, sheet=str(tmp_path / "sheet.html"))
    page = (tmp_path / "sheet.html").read_text()
    assert report.details["sheet"] == str(tmp_path / "sheet.html")
    assert "&lt;script&gt;x.mp4" in page
    assert "<script>x" not in page
    assert page.count("data:image/jpeg;base64,") == 2


def test_the_command_line_prints_what_tools_rely_on(archive: Path) -> None:
    arguments = ["dedup", "--archive", str(archive), "--pairs", *(f"--set={change}" for change in CHANGES)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    *pairs, summary = map(json.loads, result.stdout.splitlines())
    assert {"clips", "pairs", "groups", "redundant", "threshold"} <= summary.keys()
    assert len(pairs) == summary["copies"]
    assert {"a", "b", "similarity", "kind", "offset_s"} <= pairs[0].keys()


def test_an_archive_of_python_does_the_same(archive: Path) -> None:
    report = raydist.open(str(archive), CHANGES).dedup()
    assert report.counts["redundant"] == 8


def test_wrong_requests_are_refused_with_what_would_help(
    archive: Path, films: Path, tmp_path: Path, model: Path
) -> None:
    with fails_with(ArchiveError, "is the archive itself", "leave it out"):
        deduped(archive, against=str(archive))
    empty = tmp_path / "unembedded"
    scan.run(settings_for(empty), scan.Request(inputs=(str(films),)))
    with fails_with(StoreError, "has no vectors of", "raydist embed"):
        deduped(archive, against=str(empty))
    with fails_with(UsageError, "in/nothing.mp4", "clip id or a video id"):
        deduped(archive, keep=["in/nothing.mp4"])
    with fails_with(UsageError, "duplicate of itself"):
        deduped(archive, different=[("in/film.mp4", "in/film.mp4")])
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b,verdict\nin/film.mp4,in/poor.mp4,maybe\n")
    with fails_with(UsageError, "line 2", "maybe", "duplicate, different"):
        deduped(archive, decisions=str(bad))
    with lease.Lease(str(archive), "dedup"), fails_with(StoreError, "raydist dedup", "already"):
        deduped(archive)


def test_a_crowd_is_stored_as_a_star_and_one_of_it_stays(
    cluster: None, tmp_path: Path, films: Path, model: Path
) -> None:
    folder = Path(shutil.copytree(films, tmp_path / "in"))
    count = 70  # more than the smallest crowd
    shoot(folder, "black.mp4", [np.zeros((64, 96, 3), np.uint8)] * (count * CLIP_S * RATE))
    archive = filled(tmp_path / "archive", folder, model)
    report = deduped(archive, "dedup.drop=similar", "dedup.read=false", "dedup.threshold=0.999")
    black = [row for row in table(archive, "duplicates_") if row["a_video"] == row["b_video"] == "in/black.mp4"]
    assert len(black) == count - 1
    assert len({row["a"] for row in black} & {row["b"] for row in black}) <= 1
    assert report.counts["pairs"] >= count * (count - 1) // 2
    assert sum(keep for name, keep in kept(archive).items() if name.startswith("in/black.mp4")) == 1
    again = deduped(archive, "dedup.drop=similar", "dedup.read=false", "dedup.threshold=0.999")
    assert again.counts == report.counts


def test_a_clip_that_could_not_be_read_is_read_when_asked_again(tmp_path: Path, cluster: None, model: Path) -> None:
    folder = tmp_path / "in"
    shoot(folder, "a.mp4", film(5, 10))
    shoot(folder, "b.mp4", film(5, 10), options={"crf": "36", "preset": "veryfast"})
    archive = filled(tmp_path / "archive", folder, model)
    (folder / "b.mp4").rename(tmp_path / "away.mp4")
    assert deduped(archive).failures == {"missing": 1}
    (tmp_path / "away.mp4").rename(folder / "b.mp4")
    deduped(archive)
    assert [row["kind"] for row in table(archive, "duplicates_")] == ["unread"]
    deduped(archive, retry_failed=True)
    assert [row["kind"] for row in table(archive, "duplicates_")] == ["copy"]
    assert kept(archive) == {"in/a.mp4#t=0,10": True, "in/b.mp4#t=0,10": False}
