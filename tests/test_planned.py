"""Where a plan's processes end up in a cluster of several nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("planned.py")


def found(which: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), which, str(folder)], capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**told, "said_on_stderr": done.stderr}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_decoders_leave_a_gpus_node_alone_while_others_suffice(tmp_path: Path) -> None:
    told = found("mixed", tmp_path)
    assert told["plan"][0].startswith("plan: 7 decoders x ")
    assert "1 encoder x 1 GPU" in told["plan"][0]
    assert (told["few_beside_gpu"], told["encoded_beside_gpu"], told["rows"]) == (0, 120, 120)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_comes_in_the_middle_is_used(tmp_path: Path) -> None:
    told = found("grows", tmp_path)
    assert told["workers"] == [3, 7]
    assert (told["nodes"], told["rows"]) == (2, 240)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_whose_encoder_has_no_place_any_more_says_so_until_it_has_one(tmp_path: Path) -> None:
    told = found("loses", tmp_path)
    assert "1 here (1 GPU each)" in told["said"][0]
    assert told["said"][0].startswith("waiting for a place for ")
    assert (told["after"], told["rows"]) == ("", 240)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_whose_node_went_for_good_goes_on_with_those_that_are_left(tmp_path: Path) -> None:
    told = found("shrinks", tmp_path)
    assert (told["counts"], told["every_clip_once"]) == ({"clips": 240, "rows": 240, "failed": 0}, True)
    assert "found no place again; going on with the nodes that are left" in " ".join(told["said_on_stderr"].split())


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_of_blocks_that_went_with_a_node_those_that_are_there_are_told(tmp_path: Path) -> None:
    told = found("keeps", tmp_path)
    assert told["waits"] == told["gone"] == [True, True, False, False]
