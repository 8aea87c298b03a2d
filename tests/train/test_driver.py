"""What the driver makes of how training ended, without Ray."""

from __future__ import annotations

import _thread
import json
import os
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from archives import fails_with

from raydist.errors import ResourceError, TrainError, UsageError
from raydist.store import lease
from raydist.train import driver
from raydist.train.fit import watched
from raydist.train.task import OUTCOME, STOP


def fitted(folder: Path, stopped: str, problem: str = "") -> dict[str, Any]:
    """Training with Ctrl-C in the middle; it ends as `stopped` says, or with a problem."""

    def train() -> None:
        time.sleep(1)  # until the driver waits
        _thread.interrupt_main()
        deadline = time.monotonic() + 30
        while not (folder / STOP).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if problem:
            raise RuntimeError(problem)
        (folder / OUTCOME).write_text(json.dumps({"stopped": stopped, "error": "CUDA out of memory"}))

    task: Any = SimpleNamespace(location=str(folder), folder=str(folder))
    return watched(task, 10, train)


def test_ctrl_c_ends_a_run_that_was_saved_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, "interrupted")
    assert "stopped and saved" in capsys.readouterr().err


def test_a_run_that_was_at_its_end_when_ctrl_c_came_is_done(tmp_path: Path) -> None:
    assert fitted(tmp_path, "done")["stopped"] == "done"


def test_nothing_is_called_saved_where_the_workers_failed_after_ctrl_c(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fails_with(TrainError, "no space left"):
        fitted(tmp_path, "", problem="no space left")
    assert "saved" not in capsys.readouterr().err.replace("to save it", "")


def test_memory_that_ran_out_is_said_with_what_helps(tmp_path: Path) -> None:
    with fails_with(ResourceError, "train.micro_batch=8", "train.checkpointing=true"):
        fitted(tmp_path, "failed")


def test_a_runs_name_is_refused_before_anything_else_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "runs" / "done" / "adapter").mkdir(parents=True)
    (tmp_path / "runs" / "done" / "adapter" / "adapter_config.json").write_text("{}")
    for name, why in (("../x", "letter"), ("done", "finished")):
        with fails_with(UsageError, why):
            driver._folder(str(tmp_path), name)


def elsewhere(archive: Path, age_s: float) -> Path:
    """The place of a driver of the run `mine` on another machine, whose heart beat last some seconds ago."""
    own = lease.Lease(str(archive), "train mine").holder
    twin = replace(own, id="0" * 32, host="another", machine="another", state="held")
    file = archive / "writers" / f"{twin.id}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(twin)))
    os.utime(file, (time.time() - age_s, time.time() - age_s))
    return file


def test_a_driver_that_died_on_another_machine_is_waited_for_and_not_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_LOOK_S", 0.1)
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.2)
    elsewhere(tmp_path, lease.EXPIRES_S - 2)
    with lease.Lease(str(tmp_path), "train mine") as held:
        driver._refuse_twin(held, "mine")
    assert "whether it still is" in capsys.readouterr().err


def test_a_driver_that_is_alive_on_another_machine_is_refused_at_its_next_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_LOOK_S", 0.1)
    twin = elsewhere(tmp_path, 5)
    beat = threading.Timer(0.5, lambda: os.utime(twin))
    beat.start()
    with lease.Lease(str(tmp_path), "train mine") as held, fails_with(UsageError, "on another", "another name"):
        driver._refuse_twin(held, "mine")
    beat.join()
