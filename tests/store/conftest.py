"""An archive's location for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback import Loopback
from stores import fill


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


@pytest.fixture
def bucket(s3: Loopback, moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An archive's location in a bucket behind `s3`."""
    fill(moto, "archive", {"other/file": b"not ours"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ALLOW_HTTP", "AWS_PROFILE"):
        monkeypatch.setenv(name, "")  # so that what raydist sets is taken back
        monkeypatch.delenv(name)
    return f"s3://archive/{tmp_path.name}"
