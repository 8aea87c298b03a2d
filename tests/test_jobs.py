"""Jobs: the same stages as on the command line, and the recipe as a file."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import save_file
from small_models import recipe_of
from train.runs import captioned

from raydist.config import load
from raydist.submit.package import STOP_S
from raydist.train import journal

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "jobs" / "recipe.toml"
SMOKE_S = 120
"""On two cores with nothing else to do, as jobs/smoke.toml says."""


def test_the_recipe_states_the_defaults() -> None:
    stated = load(str(RECIPE), environment={})
    defaults = load(environment={}, options={"embed.model": "viclip-b16"})
    assert stated.config == defaults.config
    assert [origin for key, origin in stated.origins.items() if key == "train.rank"] == [f"file {RECIPE}"]


STAGES = ("scan", "caption", "train", "eval", "embed", "dedup", "pipeline")


@pytest.mark.parametrize("verb", STAGES)
def test_a_job_takes_the_arguments_of_its_verb(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "jobs" / f"{verb}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--config", "no.toml", "--archive", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 2
    assert "--config 'no.toml' cannot be read" in capsys.readouterr().err
    assert f"jobs/{verb}.py" in script.read_text(encoding="utf-8").partition("from __future__")[0]


def test_what_ray_is_told_of_a_job_holds_no_key() -> None:
    told = yaml.safe_load((ROOT / "jobs" / "runtime-env.yaml").read_text(encoding="utf-8"))
    assert told["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_pipeline_runs_by_path_on_drawn_clips(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    def done(script: str, *words: str) -> str:
        command = [sys.executable, str(ROOT / "jobs" / script), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=800).stdout

    done("draw.py", str(tmp_path))
    usual = ("--config", str(ROOT / "jobs" / "smoke.toml"), "--archive", str(tmp_path / "archive"), "--json")
    asked = (str(tmp_path / "videos"), "--from", str(tmp_path / "captions.csv"))
    began = time.monotonic()
    reports = [json.loads(line) for line in done("pipeline.py", *asked, *usual).splitlines()]
    took_s = time.monotonic() - began
    record_property("smoke_s", round(took_s))
    assert [report["stage"] for report in reports] == [*STAGES[:-1], "pipeline"]
    (again,) = [json.loads(line) for line in done("embed.py", *usual, "--adapter", "lora").splitlines()]
    assert again["clips"] == 0
    assert took_s < 4 * SMOKE_S, [
        (report["stage"], report["seconds"]) for report in reports
    ]  # other work is no failure


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
