"""Builds of the frame cache are killed and started again: each clip has its frames once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from frame_kills import Drivers

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.ray]


def killed(kills: int, files: int, seed: int) -> None:
    # A folder of a short name: Ray's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="rf", ignore_cleanup_errors=True) as folder:
        drivers = Drivers(Path(folder), files, seconds=5)
        drivers.run(kills, seed)
        assert drivers.kills == kills
        drivers.check()


@pytest.mark.timeout(600)
def test_a_kill_in_the_middle_loses_and_doubles_nothing() -> None:
    killed(1, files=20, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ten_kills_lose_and_double_nothing() -> None:
    killed(10, files=60, seed=2)
