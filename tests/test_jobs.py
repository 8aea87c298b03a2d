"""Jobs: the same stages as on the command line, and the recipe as a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from safetensors.numpy import save_file
from small_models import recipe_of
from train.runs import captioned

from raydist.config import load
from raydist.train import journal

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "jobs" / "recipe.toml"


def test_the_recipe_states_the_defaults() -> None:
    stated = load(str(RECIPE), environment={})
    defaults = load(environment={}, options={"embed.model": "viclip-b16"})
    assert stated.config == defaults.config
    assert [origin for key, origin in stated.origins.items() if key == "train.rank"] == [f"file {RECIPE}"]


def test_a_job_takes_the_arguments_of_its_verb() -> None:
    said = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "train.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert "--run NAME" in said.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_recipe_takes_two_steps_with_full_size_weights(shared: Path, tmp_path: Path) -> None:
    """ViCLIP-B/16 with drawn weights: 149,603,841 parameters, batches of 4, on any machine with 16 GB."""
    keys = json.loads((shared / "parity" / "keys_b16.json").read_text())
    model = tmp_path / "viclip-b16"
    model.mkdir()
    weights = recipe_of(shared / "parity").weights(keys["shapes"], keys["recipe_seed"])
    save_file(dict(weights), model / "model.safetensors")
    archive = captioned(tmp_path / "archive", tmp_path / "videos", count=1, seconds=14)
    with tempfile.TemporaryDirectory(prefix="rj") as temporary:
        command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", str(RECIPE), "--archive", str(archive)]
        command += ["--model", str(model)]
        changes = ["train.batch=4", "train.epochs=1", "scan.clip_seconds=1", "scan.min_clip_seconds=0.2"]
        for change in (*changes, f"ray.temp_dir={temporary}"):
            command += ["--set", change]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=1400, check=False)
    assert done.returncode == 0, done.stderr
    assert "3,932,160 parameters trained" in done.stdout
    lines = [line for line in journal.entries(archive / "runs" / "lora") if "loss" in line]
    assert len(lines) >= 2
    assert (archive / "runs" / "lora" / "adapter" / "adapter_model.safetensors").exists()
