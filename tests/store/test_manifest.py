"""The list of a run's work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from raydist.errors import AwayError
from raydist.store import objects, patience
from raydist.store.manifest import Manifest


def test_units_of_before_that_could_not_be_deleted_are_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest(tmp_path, rows_per_file=2).write([pa.table({"a": list(range(10))})])

    def away(location: str, names: Sequence[str]) -> None:
        raise AwayError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(objects, "delete_all", away)
        manifest.remove()
    assert manifest.rows == 0
    manifest.write([pa.table({"a": [7, 8, 9]})])
    assert [unit["a"][0].as_py() for unit in manifest.units()] == [7, 8, 9]
    assert manifest.rows == 3
    manifest.remove()
    assert not tmp_path.exists()


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
        Manifest(tmp_path / "other", rows_per_file=4).write([pa.table({"a": list(range(10))})])
