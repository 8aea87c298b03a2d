"""Training on several nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import captioned, losses, trained_here
from small_models import write_viclip

SCRIPT = Path(__file__).with_name("nodes.py")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_two_nodes_have_the_losses_of_one_and_each_keeps_what_it_reads(cluster: None, tmp_path: Path) -> None:
    model = write_viclip(tmp_path / "model")
    archive = captioned(tmp_path / "archive", tmp_path / "videos")
    trained_here(archive, model, "one")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(archive), str(model), "two"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "2"
    assert losses(archive, "two") == pytest.approx(losses(archive, "one"), abs=1e-4)
    assert [file for file in (tmp_path / "cache" / "raydist" / "frames").rglob("*") if file.is_file()]
