"""Captioning drivers are killed amid their requests: each clip has its caption once, and little is paid for twice."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asked import Asked, archive_of
from caption_kills import IN_FLIGHT, Drivers, storm
from llm_server import LLMServer


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder of a short name: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="rk", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def assert_each_clip_once(found: dict[str, Any], kills: int) -> None:
    clips = found["clips"]
    assert found["kills"] == kills, found
    assert (found["captioned"], found["rows"], found["of_another_clip"]) == (clips, clips, 0), found
    assert found["failed"] == {}, found
    assert found["answered_twice"] <= kills * IN_FLIGHT, found
    assert found["requests"] <= clips + kills * IN_FLIGHT, found


@pytest.mark.timeout(600)
def test_a_kill_loses_no_answer_and_pays_no_more_than_what_was_in_flight_again(temporary: Path) -> None:
    assert_each_clip_once(storm(temporary, "openai", clips=60, kills=1, seed=1), kills=1)


@pytest.mark.timeout(600)
def test_ctrl_c_waits_for_what_is_under_way_and_nothing_is_paid_twice(temporary: Path) -> None:
    archive = archive_of(temporary, 60, a_file=20)
    with LLMServer(latency_s=0.5) as server:
        drivers = Drivers(Asked(archive, server, "gemini"), temporary)
        driver = drivers.start()
        deadline = time.monotonic() + 200
        while len(server.received) < 20 and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver and to all that it started
        assert driver.wait(timeout=100) == 130
        text = (temporary / "driver.log").read_text()
        assert "clips are captioned, the same command goes on from there" in text
        assert "Traceback" not in text
        first = len(server.received)
        assert 20 <= len(drivers.asked.captions()) == first < 60
        drivers.run(kills=0, seed=0)
        assert len(server.received) == 60
        assert len(drivers.asked.captions()) == 60


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("api", ["gemini", "openai"])
def test_five_kills_lose_no_answer_and_pay_little_again(temporary: Path, api: str) -> None:
    assert_each_clip_once(storm(temporary, api, clips=300, kills=5, seed=5), kills=5)
