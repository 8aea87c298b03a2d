"""Truncated, damaged, mislabelled and hostile files: each ends with a definite status, in a process that survives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run(shared: Path, *options: str) -> dict[str, Any]:
    script = Path(__file__).with_name("corpus.py")
    out = subprocess.run(
        [sys.executable, script, shared / "badvideo", *options], stdout=subprocess.PIPE, check=True, timeout=1800
    )
    figures: dict[str, Any] = json.loads(out.stdout)
    return figures


@pytest.mark.parametrize(
    "options",
    [
        ["--light"],
        ["--light", "--cut"],
        pytest.param([], marks=pytest.mark.slow),
        pytest.param(["--cut"], marks=pytest.mark.slow),
    ],
)
def test_bad_files_end_as_their_manifest_says_in_less_than_a_gigabyte(shared: Path, options: list[str]) -> None:
    figures = run(shared, *options)
    assert figures["wrong"] == []
    assert figures["left"] == []
    assert figures["peak_mb"] < 1024
    assert figures["cases"] > 200
