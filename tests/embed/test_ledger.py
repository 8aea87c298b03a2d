"""The driver's book of a run: what it counts where commits are interrupted, and where a place goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray
import synthetic
from archives import rows

from raydist.embed.embedder import embedded_schema
from raydist.embed.ledger import Ledger
from raydist.errors import SourceError
from raydist.models.registry import describe
from raydist.runtime import PlacesLostError, bounds, held
from raydist.store import commit, outcomes

A_COMMIT = outcomes.LEAST * 6 // 10


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Of an archive of clips whose files are not there; its tasks run in this process."""
    monkeypatch.setattr(ray, "remote", lambda **_: lambda task: SimpleNamespace(remote=task))
    monkeypatch.setattr(ray, "get", lambda result: result)
    monkeypatch.setattr(ray, "wait", lambda tasks, timeout: (tasks, []))
    monkeypatch.setattr(held, "those_there", lambda blocks, within_s: [True] * len(blocks))
    archive = synthetic.write(tmp_path / "archive", 2 * A_COMMIT)
    return Ledger(str(archive), describe("tiny"), max_failed=0.1)


def blocks(ledger: Ledger) -> list[pa.Table]:
    """What comes back of all clips, a commit each."""
    clips = pa.concat_tables(ledger.pending())
    of = embedded_schema(ledger.info.dim)
    given: dict[str, Any] = {name: clips[name].to_pylist() for name in of.names if name in clips.column_names}
    for name, value in (("reason", "missing"), ("detail", ""), ("offsets_s", []), ("bytes_read", 0)):
        given[name] = [value] * len(clips)
    for name in ("began", "ended", "filled_frames"):
        given[name] = [0] * len(clips)
    table = synthetic._filled(given, of, len(clips))
    return [table.slice(start, A_COMMIT) for start in (0, A_COMMIT)]


def test_losses_count_once_however_often_a_commit_is_repeated_and_not_where_they_are_not_noted(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = blocks(ledger)
    to_commit = commit.Committer.commit

    def interrupted(self: commit.Committer, fragments: Sequence[str], delete_where: str | None = None) -> int:
        monkeypatch.setattr(commit.Committer, "commit", to_commit)
        raise KeyboardInterrupt

    monkeypatch.setattr(commit.Committer, "commit", interrupted)
    ledger.add(first, len(first))
    with pytest.raises(KeyboardInterrupt):
        ledger.commit()
    ledger.commit()
    assert ledger.counts() == {"clips": A_COMMIT, "rows": 0, "failed": A_COMMIT}
    ledger.add(second, len(second))
    with pytest.raises(SourceError, match="could not be read"):
        ledger.commit()
    ledger.commit()
    assert ledger.counts() == {"clips": A_COMMIT, "rows": 0, "failed": A_COMMIT}
    assert len(rows(tmp_path / "archive", "failures")) == A_COMMIT


@pytest.mark.parametrize("retry_failed", [False, True])
def test_blocks_that_went_with_a_node_are_pending_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, retry_failed: bool
) -> None:
    monkeypatch.setattr(ledger, "_retry_failed", retry_failed)
    first, second = blocks(ledger)
    ledger.add(first, len(first))
    ledger.commit()
    cancelled: list[object] = []
    monkeypatch.setattr(ray, "cancel", lambda task, force: cancelled.append(task))
    monkeypatch.setattr(ray, "wait", lambda tasks, timeout: ([], tasks))
    monkeypatch.setattr(bounds, "_lost", [PlacesLostError("a node went")])
    ledger.add(second, len(second))
    with pytest.raises(PlacesLostError, match="a node went"):
        ledger.commit()
    assert len(cancelled) == 1
    monkeypatch.setattr(held, "those_there", lambda blocks, within_s: [False] * len(blocks))
    ledger.commit(last=True)
    assert ledger.gone == A_COMMIT
    ledger.commit(last=True)  # there is nothing to commit any more
    monkeypatch.undo()
    ledger._retry_failed = retry_failed
    ledger.again()
    assert (ledger.expected, ledger.gone) == (2 * A_COMMIT, 0)
    assert sum(len(table) for table in ledger.pending()) == (2 * A_COMMIT if retry_failed else A_COMMIT)
    assert ledger.counts()["clips"] == (0 if retry_failed else A_COMMIT)


def test_the_last_commit_of_a_run_keeps_what_is_there(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a block that went with its node nobody is left who makes it again, and whoever asks for it waits."""
    first, second = blocks(ledger)
    ledger.add(first.slice(0, 100), 100)
    ledger.add(second, len(second))
    looks = iter([[], [], ["done"]])
    monkeypatch.setattr(ray, "wait", lambda tasks, timeout: (next(looks), []))
    monkeypatch.setattr(ray, "cancel", lambda task, force: None)
    answers = iter([[True, True], [True, False]])  # slow at first
    monkeypatch.setattr(held, "those_there", lambda blocks, within_s: next(answers))
    monkeypatch.setattr(bounds, "_lost", [PlacesLostError("a node went")])
    ledger.commit(last=True)
    assert (ledger.counts()["clips"], ledger.gone) == (100, A_COMMIT)
    assert (next(looks, None), next(answers, None)) == (None, None)
