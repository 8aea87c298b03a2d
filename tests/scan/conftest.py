"""A library of small videos for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from library import Library


@pytest.fixture
def library(tmp_path: Path) -> Library:
    folder = tmp_path / "talks"
    folder.mkdir()
    return Library(folder, tmp_path / "archive")
