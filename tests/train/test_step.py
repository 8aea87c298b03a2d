"""Workers and chunks: the gradient is that of one process on the whole batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_models import write_clip, write_viclip

SCRIPT = Path(__file__).with_name("ranks.py")
BATCH = 11
"""Shared unequally by two workers and by three; captions stand in it twice."""

Found = dict[str, NDArray[Any]]
"""Losses and first gradients of a case."""


def taken(folder: Path, workers: int, cases: dict[str, dict[str, Any]]) -> dict[str, Found]:
    """What a group of workers found, case by case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    usual = {"micro_batch": 0, "double": True, "steps": 1}
    asked = [{**usual, **case, "out": str(folder / f"{name}.npz")} for name, case in cases.items()]
    common = {"workers": workers, "port": port, "batch": BATCH, "cases": asked}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps({**common, "rank": rank})],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(workers)
    ]
    for process in running:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    found = {}
    for name in cases:
        with np.load(folder / f"{name}.npz") as arrays:
            found[name] = dict(arrays)
    return found


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Found]]:
    """What one, two and three workers find."""
    folder = tmp_path_factory.mktemp("ranks")
    viclip, clip = str(write_viclip(folder / "viclip")), str(write_clip(folder / "clip"))
    shared = {
        "float32": {"model": viclip, "double": False},
        "float64": {"model": viclip},
        "chunks of float32": {"model": viclip, "double": False, "micro_batch": 2, "checkpointing": True},
        "chunks of float64": {"model": viclip, "micro_batch": 2, "checkpointing": True},
        "pictures": {"model": clip},
        "chunks of pictures": {"model": clip, "micro_batch": 3, "checkpointing": True},
        "fifty steps": {"model": viclip, "double": False, "steps": 50},
        "fifty steps in chunks": {"model": viclip, "double": False, "steps": 50, "micro_batch": 2},
    }
    return {
        workers: taken(_made(folder / str(workers)), workers, shared if workers < 3 else _plain(shared))
        for workers in (1, 2, 3)
    }


def _plain(cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: case for name, case in cases.items() if "chunks" not in name and name != "pictures"}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def furthest(one: Found, other: Found) -> float:
    """The largest relative L2 distance of a tensor's gradients."""
    assert one.keys() == other.keys()
    names = sorted(one.keys() - {"losses"})
    assert all(np.linalg.norm(one[name]) > 0 for name in names), "a matrix without gradient would match any other"
    return max(float(np.linalg.norm(one[name] - other[name]) / np.linalg.norm(one[name])) for name in names)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize(("case", "bound"), [("float32", 5e-5), ("float64", 1e-10)])
def test_several_workers_have_the_gradients_of_one(
    groups: dict[int, dict[str, Found]], workers: int, case: str, bound: float
) -> None:
    assert furthest(groups[1][case], groups[workers][case]) <= bound
    assert groups[workers][case]["losses"] == pytest.approx(groups[1][case]["losses"], abs=bound)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("case", "bound"), [("float32", 5e-5), ("float64", 1e-10), ("pictures", 1e-10)])
def test_chunks_have_the_gradients_of_the_whole_batch(
    groups: dict[int, dict[str, Found]], workers: int, case: str, bound: float
) -> None:
    assert furthest(groups[1][case], groups[workers][f"chunks of {case}"]) <= bound


def test_losses_stay_together_over_fifty_steps(groups: dict[int, dict[str, Found]]) -> None:
    whole = groups[1]["fifty steps"]["losses"]
    for workers, case in (
        (1, "fifty steps in chunks"),
        (2, "fifty steps"),
        (2, "fifty steps in chunks"),
        (3, "fifty steps"),
    ):
        assert np.abs(groups[workers][case]["losses"] - whole).max() <= 1e-4
    assert abs(whole[-1] - whole[0]) > 1e-2
