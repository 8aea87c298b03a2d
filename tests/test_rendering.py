"""Reports: the same facts for a person, as JSON, and on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist import rendering as reports
from raydist.records import Report
from raydist.store import runs

SCAN = Report(
    stage="scan",
    run="scan-20260131T120000.000001",
    seconds=12.25,
    counts={"files": 1200, "ok": 1190, "failed": 10, "clips": 5000},
    failures={"empty": 3, "not_a_video": 7},
    notes=("next: `raydist embed`",),
    details={"attempted": 1200},
)


def test_a_person_reads_counts_time_reasons_and_what_to_do_next() -> None:
    lines = reports.render(SCAN).splitlines()
    assert lines[0] == "scan: 1,200 files, 1,190 ok, 10 failed, 5,000 clips in 12.2 s"
    assert lines[1] == "  failed: 7 not_a_video (no known container)"
    assert lines[2].startswith("  failed: 3 empty")
    assert lines[-1] == "  next: `raydist embed`"


def test_the_step_that_bounds_the_run_is_said() -> None:
    report = Report(
        stage="embed",
        run="embed-1",
        seconds=10,
        counts={"clips": 80},
        clips_per_s=8.0,
        shares={"decode": 0.25, "encode": 0.99},
        bound_by="encode",
    )
    assert "busy: decode 25%, encode 99%; encode bounds the run" in reports.render(report)
    assert "8.0 clips/s" in reports.render(report)


def test_json_holds_counts_on_the_top_level_and_no_empty_parts() -> None:
    found = json.loads(json.dumps(reports.as_json(SCAN)))
    assert (found["files"], found["failed"], found["stage"]) == (1200, 10, "scan")
    assert "shares" not in found


def test_a_report_is_kept_in_the_archive(tmp_path: Path) -> None:
    runs.save(SCAN, str(tmp_path))
    path = tmp_path / "runs" / SCAN.run / "report.json"
    assert json.loads(path.read_text(encoding="utf-8"))["failures"] == {"empty": 3, "not_a_video": 7}


def test_runs_sort_by_time() -> None:
    names = [runs.new_run("scan") for _ in range(3)]
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    ("failed", "attempted", "too_many"), [(0, 0, False), (1, 10, False), (2, 10, True), (1, 1, True)]
)
def test_too_many_failures_are_more_than_the_share_that_is_allowed(failed: int, attempted: int, too_many: bool) -> None:
    failures = {"empty": failed} if failed else {}
    report = Report(stage="scan", run="r", seconds=1, counts={}, failures=failures, details={"attempted": attempted})
    assert reports.too_many_failed(report, 0.10) is too_many


def test_a_length_of_time_is_in_the_unit_that_suits_it() -> None:
    lengths = [reports.length(seconds) for seconds in (-1, 45.4, 89, 90, 5399, 5400, 36_000_000)]
    assert lengths == ["0 s", "45 s", "89 s", "2 min", "90 min", "1.5 h", "10,000.0 h"]
