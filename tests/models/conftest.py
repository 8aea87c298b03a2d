"""No test of models asks the network, and none sees the user's own models and caches."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def models_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $RAYDIST_MODELS."""
    home = tmp_path / "models"
    home.mkdir()
    monkeypatch.setenv("RAYDIST_MODELS", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return home


@pytest.fixture
def data() -> Path:
    """The small files that the tests bring along."""
    return Path(__file__).parent.parent / "data"
