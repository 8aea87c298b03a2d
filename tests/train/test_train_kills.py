"""A run whose worker and driver are killed, and that is interrupted, has the losses of one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from runs import captioned, losses, trained_here
from small_models import write_viclip

from raydist.train import journal
from raydist.train.state import State

ROOT = Path(__file__).resolve().parents[2]
RUN = "struck"
# An evaluation after each step makes steps slow enough to be hit between two of them.
CHANGES = ("train.eval_steps=1", "train.checkpoint_steps=4", "train.epochs=6", "train.batch=4")
MARK = "TRAIN_KILLS_RUN"

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder of a short name: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="rt", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def start(archive: Path, model: Path, temporary: Path) -> subprocess.Popen[bytes]:
    """The command, with Ray of its own."""
    usual = ("train.rank=4", "train.alpha=8", "train.learning_rate=1e-3", "scan.clip_seconds=1")
    changes = [*usual, "scan.min_clip_seconds=0.2", f"ray.temp_dir={temporary}", "ray.cpus=1", *CHANGES]
    words = ["train", "--archive", str(archive), "--model", str(model), "--run", RUN]
    words += [word for change in changes for word in ("--set", change)]
    log = open(temporary / "driver.log", "ab")  # noqa: SIM115  # the process keeps it
    return subprocess.Popen(
        [sys.executable, "-c", "from raydist.cli import main; main()", *words],
        env={**os.environ, MARK: str(temporary), "PYTHONPATH": str(ROOT)},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def wait_for(archive: Path, step: int, driver: subprocess.Popen[bytes], temporary: Path) -> None:
    """Until the run has done a step."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = journal.last(archive / "runs" / RUN)
        if found is not None and found["step"] >= step:
            return
        assert driver.poll() is None, (temporary / "driver.log").read_text()[-3000:]
        time.sleep(0.02)
    raise AssertionError(f"step {step} did not come: {(temporary / 'driver.log').read_text()[-3000:]}")


def worker_of(temporary: Path) -> psutil.Process:
    """The training process of the run."""
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "RayTrainWorker" in words and process.environ().get(MARK) == str(temporary):
            return process
    raise AssertionError("no training process")


@pytest.mark.timeout(900)
def test_losses_go_on_after_kills_of_worker_and_driver_and_after_ctrl_c(temporary: Path) -> None:
    model = write_viclip(temporary / "model")
    archive = captioned(temporary / "archive", temporary / "videos")
    trained_here(archive, model, "alone", *CHANGES)
    expected = losses(archive, "alone")
    epoch = len(expected) // 6
    assert epoch >= 5

    driver = start(archive, model, temporary)
    wait_for(archive, 3, driver, temporary)
    worker_of(temporary).kill()
    wait_for(archive, epoch + 1, driver, temporary)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    driver = start(archive, model, temporary)
    wait_for(archive, 2 * epoch + 2, driver, temporary)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver and to all that it started
    assert driver.wait(timeout=120) == 130
    said = (temporary / "driver.log").read_text()
    assert "stopped and saved" in said
    assert "Traceback" not in said
    saved = [State.load(file.parent).step for file in (archive / "runs" / RUN).glob("checkpoints/*/state.pt")]
    last = journal.last(archive / "runs" / RUN)
    assert last is not None
    assert max(saved) == last["step"], "Ctrl-C did not save"
    assert start(archive, model, temporary).wait(timeout=400) == 0
    assert losses(archive, RUN) == pytest.approx(expected, abs=1e-6)
    assert (archive / "runs" / RUN / "adapter").is_dir()
