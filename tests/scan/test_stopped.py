"""Scans that are stopped, and scans that stood still for so long that others took them for dead."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from library import Library

from raydist import scan
from raydist.config import Config
from raydist.errors import StoreError
from raydist.scan import probe
from raydist.store import commit, lease, stale
from raydist.store.manifest import Manifest


@pytest.mark.parametrize("table", ["clips", "videos"])
def test_a_scan_that_was_taken_for_dead_amid_a_commit_loses_no_clip(
    library: Library, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    library.video("a.mp4", 6)
    to_commit = commit.Committer.commit
    stood_still = False

    def stands_still(self: commit.Committer, fragments: Sequence[str], delete_where: str | None = None) -> int:
        nonlocal stood_still
        if self.table == table and not stood_still:
            stood_still = True
            for file in (library.archive / lease.FOLDER).iterdir():
                os.utime(file, (time.time() - 2 * lease.EXPIRES_S,) * 2)
            stale.repair_unless_scanning(str(library.archive))  # as every stage does at its start
        return to_commit(self, fragments, delete_where)

    monkeypatch.setattr(commit.Committer, "commit", stands_still)
    with pytest.raises(StoreError, match=r"stood still .* run it again"):
        library.scan(changes=("scan.clip_seconds=3",))
    library.scan()
    assert library.rows("clips", "clip_id") == ["talks/a.mp4#t=0,3", "talks/a.mp4#t=3,6"]
    assert library.books()["ok"] == 1
    assert not (library.archive / stale.MARK).exists()


def stopped_after(files: int) -> Callable[..., Iterator[pa.Table]]:
    """Probes in this process, and Ctrl-C behind so many files."""

    def probed(config: Config, manifest: Manifest, places: Mapping[str, str]) -> Iterator[pa.Table]:
        for number, table in enumerate(scan._probed_here(config, manifest, places)):
            if number == files:
                raise KeyboardInterrupt
            yield table

    return probed


@pytest.mark.parametrize(("known", "kept"), [(1, 3), (0, 0)])
def test_a_scan_that_is_stopped_keeps_what_it_may_commit(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: Any, known: int, kept: int
) -> None:
    """Of a first scan it may not before it knows whether videos are few: that is how splits are dealt."""
    for number in range(known):
        library.video(f"known{number}.mp4")
        library.scan()
    for number in range(5):
        library.video(f"v{number}.mp4", seed=number)
    monkeypatch.setattr(probe, "FILES_A_UNIT", 1)
    monkeypatch.setattr(scan, "_probed_on_ray", stopped_after(3))
    with pytest.raises(KeyboardInterrupt):
        library.scan()
    assert f"stopped; {kept} files of this scan are kept" in capsys.readouterr().err
    assert library.books()["clips"] == known + kept
    monkeypatch.setattr(scan, "_probed_on_ray", scan._probed_here)
    assert library.scan().counts["ok"] == 5 - kept
    assert library.books()["clips"] == known + 5
