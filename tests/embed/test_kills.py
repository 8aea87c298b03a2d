"""Embed drivers are killed at random moments and started again: each clip has one row, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import Drivers, build, outcome

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder of a short name: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="rk", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def assert_each_clip_once(drivers: Drivers) -> None:
    found = outcome(drivers)
    clips = found["clips"]
    assert (found["rows"], found["of_clips"], found["failed"]) == (clips, clips, 0), found
    assert (found["signatures"], found["unique_signatures"]) == (clips, clips), found
    assert found["left_over"] == [], found


@pytest.mark.timeout(600)
def test_ctrl_c_and_a_kill_lose_and_double_nothing(temporary: Path) -> None:
    drivers = Drivers(*build(temporary, files=24, seconds=5), str(temporary))
    driver = drivers.start(own_group=True)
    deadline = time.monotonic() + 200
    while drivers.waiting() == 120 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver and to all that it started
    assert driver.wait(timeout=100) == 130
    text = (temporary / "driver.log").read_text()
    assert "vectors of this run are kept" in text
    assert "goes on from there" in text
    assert "Traceback" not in text
    assert drivers.left_over() == []
    assert 0 < drivers.waiting() < 120
    drivers.run(kills=1, at_once=1, seed=1)
    assert drivers.kills == 1
    assert_each_clip_once(drivers)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_ten_kills_of_drivers_side_by_side(temporary: Path, at_once: int) -> None:
    drivers = Drivers(*build(temporary, files=60, seconds=8), str(temporary))
    drivers.run(kills=10, at_once=at_once, seed=at_once)
    assert drivers.kills == 10
    assert_each_clip_once(drivers)
