"""Objects that Ray writes to disk because its store is full are counted, told and reported."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from archives import scanned, videos

from raydist.embed.ledger import Ledger
from raydist.embed.summary import summary
from raydist.models.registry import describe
from raydist.runtime import start

FILLED = """
import json, sys, time
from pathlib import Path
import numpy as np
from raydist import runtime
from raydist.runtime.cluster import spilled_bytes
from raydist.sections import Ray

spills, temporary = sys.argv[1:]
with runtime.session(Ray(cpus=1, object_store_gb=0.08, spill_dir=spills, temp_dir=temporary)):
    import ray

    before = spilled_bytes()
    held = [ray.put(np.zeros(20_000_000, np.uint8)) for _ in range(10)]
    deadline = time.monotonic() + 60
    while spilled_bytes() < 50_000_000 and time.monotonic() < deadline:
        time.sleep(0.2)
    there = sum(path.stat().st_size for path in Path(spills).rglob("*") if path.is_file())
    sys.__stdout__.write(json.dumps([before, spilled_bytes(), there]))
"""


def test_a_report_tells_what_went_to_disk(tmp_path: Path) -> None:
    scanned(tmp_path / "archive", videos(tmp_path / "videos", 1))
    ledger = Ledger(str(tmp_path / "archive"), describe("tiny"), retry_failed=False, max_failed=0.5)
    assert summary("embed-1", 1.0, ledger, None).details["spilled_bytes"] == 0
    ledger.spilled_bytes = 5_300_000
    report = summary("embed-1", 1.0, ledger, None)
    assert report.details["spilled_bytes"] == 5_300_000
    assert "5.3 MB of frames and vectors went to disk: the object store was full" in report.notes


def test_what_any_stage_spilled_is_said_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    start._say_spilled(1_000, 1_000)
    assert capsys.readouterr().err == ""
    start._say_spilled(1_000, 2_500_001_000)
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("Ray wrote 2.5 GB of objects to disk because its object store was full")


@pytest.mark.ray
@pytest.mark.slow
def test_a_store_that_is_full_spills_to_the_folder_that_was_named(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="rs") as temporary:  # of sockets, so a short one
        words = [sys.executable, "-c", FILLED, str(tmp_path / "spills"), temporary]
        shown = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert shown.returncode == 0, shown.stderr
    before, after, there = json.loads(shown.stdout)
    assert before == 0
    assert after >= 50_000_000
    assert there >= 50_000_000
    assert "of objects to disk because its object store was full" in " ".join(shown.stderr.split())
