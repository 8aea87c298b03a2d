"""The list of a run's work."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raydist.errors import AwayError
from raydist.store import objects, patience
from raydist.store.manifest import Manifest


def test_a_server_that_is_away_while_work_is_listed_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was listed until then took long where there is much."""
    away = [AwayError("no answer"), AwayError("no answer")]
    replace = objects.replace

    def replaced(location: str, name: str, data: bytes) -> None:
        if name == "part-000001.parquet" and away:
            raise away.pop()
        replace(location, name, data)

    monkeypatch.setattr(objects, "replace", replaced)
    waits: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", waits.append)
    manifest = Manifest(tmp_path, rows_per_file=4).write([pa.table({"a": list(range(10))})])
    assert [unit["a"][0].as_py() for unit in manifest.units()] == list(range(10))
    assert manifest.rows == 10
    assert len(waits) == 2
    away = [AwayError("no answer")]
    monkeypatch.setattr(patience, "_AWAY_FOR_S", -1.0)
    with pytest.raises(AwayError, match="no answer"):
        manifest.write([pa.table({"a": list(range(10))})])
