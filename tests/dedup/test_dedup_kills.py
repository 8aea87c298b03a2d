"""Runs of dedup are killed and started again: the result is that of an unbroken run."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from archives import write_viclip
from dedup_kills import Runs
from films import deduped, filled, with_copies

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.ray]


def killed(folder: Path, moments: list[str], seed: int) -> None:
    archive = filled(folder / "archive", with_copies(folder / "in"), write_viclip(folder / "model"))
    unbroken = Path(shutil.copytree(archive, folder / "unbroken"))
    deduped(unbroken)
    # A folder of a short name: Ray's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="rk", ignore_cleanup_errors=True) as temporary:
        runs = Runs(archive, Path(temporary))
        chance = random.Random(seed)
        for moment in moments:
            runs.killed(moment, chance)
        assert runs.kills
        runs.finish()
        runs.check(unbroken)


@pytest.mark.timeout(600)
def test_a_kill_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    killed(tmp_path, ["pairs are stored"], seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_at_every_moment_change_nothing(tmp_path: Path) -> None:
    moments = ["joining", "reading", "pairs are stored", "clips are written down", "groups are stored"]
    killed(tmp_path, moments * 2, seed=2)
