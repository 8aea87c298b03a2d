"""What tests of captions share: an archive that is scanned once, and a copy of it for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archives import encode, scanned
from libraries import Library


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("captions")
    names = ("a.mp4", "deep/b.mp4", "deep/same.mp4", "other/same.mp4", "long.mp4")
    for number, name in enumerate(names):
        (top / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        encode(top / "v" / name, count=30 if name == "long.mp4" else 10, rate=10, seed=number)
    scanned(top / "archive", top / "v")
    return top


@pytest.fixture
def library(once: Path, tmp_path: Path) -> Library:
    shutil.copytree(once / "archive", tmp_path / "archive")
    return Library(tmp_path, tmp_path / "archive")
