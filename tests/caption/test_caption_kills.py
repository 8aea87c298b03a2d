"""Captioning drivers are killed amid their requests: each clip has its caption once, and little is paid for twice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caption_kills import IN_FLIGHT, storm


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


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("api", ["gemini", "openai"])
def test_five_kills_lose_no_answer_and_pay_little_again(temporary: Path, api: str) -> None:
    assert_each_clip_once(storm(temporary, api, clips=300, kills=5, seed=5), kills=5)
