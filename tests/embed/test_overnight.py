"""Many clips, none of which exists: what a night with a million of them does to memory, and what dashboards show."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import curves
import psutil
import pytest
import synthetic

from raydist import gauges, status
from raydist.store import read

pytestmark = pytest.mark.timeout(600)

CLIPS = 20_000
MOST_PROCESSES = 25
"""Of Ray, of the plan of two decoders and an encoder, and few that read units."""
DASHBOARD = Path(__file__).resolve().parents[2] / "cluster" / "grafana-dashboard.json"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, curves.Curves]:
    """Some thousand clips, with all the parts of a million but decoding and the model."""
    folder = tmp_path_factory.mktemp("n")
    archive = synthetic.write(folder / "archive", CLIPS)
    return archive, curves.watched(
        archive, "embed.commit_rows=2000", every_s=0.5, scraped=True, kills=("decoder", "embedder")
    )


def test_every_clip_of_a_long_run_is_a_row_or_a_failure_once(night: tuple[Path, curves.Curves]) -> None:
    archive, run = night
    (books,) = status.run(synthetic.configure(archive))["embeddings"].values()
    assert books["pending"] == 0
    assert books["rows"] + books["failed"] == CLIPS
    assert books["failed"] == run.report["failures"]["no_frames"] > 0
    (key,) = read.model_keys(str(archive))
    keys = [
        row
        for batch in read.scan_batches(str(archive), f"embeddings_{key}", ["clip_key"])
        for row in batch["clip_key"].to_pylist()
    ]
    assert len(set(keys)) == len(keys) == books["rows"]


def test_no_process_of_a_long_run_grows_with_the_clips_that_are_done(night: tuple[Path, curves.Curves]) -> None:
    """Bounds are wide for so few clips; `tests/benchmarks/scale.py` has the curves of a million."""
    _, run = night
    for role, most_mib in (("driver", 60), ("gcs", 30), ("raylet", 30)):
        assert run.growth_mib(role) < most_mib, f"{role}: {run.own_mib[role]}"
    assert max(run.processes) < MOST_PROCESSES, run.processes


def test_the_endpoint_of_ray_has_all_figures(night: tuple[Path, curves.Curves]) -> None:
    _, run = night
    assert set(run.figures) == exported()
    outcomes = {series["outcome"]: float(series["value"]) for series in run.figures["ray_raydist_clips_total"]}
    assert 0 < sum(outcomes.values()) <= CLIPS
    (failures,) = run.figures["ray_raydist_failures_total"]
    assert failures["reason"] == "no_frames"
    assert {series["stage"] for series in run.figures["ray_raydist_queue_blocks"]} >= {"commit"}
    busy = run.figures["ray_raydist_busy_share"]
    assert {(series["stage"], series["device"]) for series in busy} == {("decoder", "cpu"), ("embedder", "cpu")}
    assert all(0 <= float(series["value"]) <= 1 for series in busy)


def test_the_dashboard_asks_for_figures_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    asked = set(re.findall(r"ray_raydist_\w+", queries))
    assert asked == exported()
    tags = {tag for metric in gauges.METRICS.values() for tag in metric.tags}
    assert {name for group in re.findall(r"by \(([^)]*)\)", queries) for name in group.split(", ")} <= tags


def exported() -> set[str]:
    """Names as Prometheus sees them."""
    ends = {"counter": "_total", "gauge": ""}
    return {f"ray_{name}{ends[metric.kind]}" for name, metric in gauges.METRICS.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_workers_cost_no_clip_and_double_none(tmp_path: Path) -> None:
    archive = synthetic.write(tmp_path / "archive", CLIPS)
    curves.watched(archive, "embed.commit_rows=2000", every_s=0.5, kills=("decoder", "embedder"))
    (key,) = read.model_keys(str(archive))
    batches = read.scan_batches(str(archive), f"embeddings_{key}", ["clip_key"])
    keys = [row for batch in batches for row in batch["clip_key"].to_pylist()]
    (books,) = status.run(synthetic.configure(archive))["embeddings"].values()
    assert books["pending"] == 0
    assert len(set(keys)) == len(keys) == books["rows"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_memory_of_a_million_clips_is_flat(tmp_path: Path) -> None:
    archive = synthetic.write(tmp_path / "archive", 1_000_000)
    run = curves.watched(archive, every_s=5)
    for role, most_mib in (("driver", 80), ("gcs", 80), ("raylet", 40), ("decoder", 60), ("embedder", 60)):
        assert run.growth_mib(role) < most_mib, f"{role}: {run.own_mib[role]}"
    (books,) = status.run(synthetic.configure(archive))["embeddings"].values()
    assert books["pending"] == 0
    assert books["rows"] + books["failed"] == 1_000_000


def test_a_process_that_ended_while_it_was_sampled_has_no_role() -> None:
    ended = subprocess.Popen(["true"])
    process = psutil.Process(ended.pid)
    while process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert curves._role(process) == "other"
    ended.wait()
    assert curves._role(process) == "other"
