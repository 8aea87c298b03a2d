"""Leases: one exclusive holder, and none that is dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from raydist.errors import StoreError
from raydist.store import lease
from raydist.store.lease import Lease, holders

HOLD = """
import sys, time
from raydist.store.lease import Lease
with Lease(sys.argv[1], "scan", exclusive=True):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_process(location: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, location], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def age(location: str, seconds: float) -> None:
    for path in (Path(location) / lease.FOLDER).iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_second_scan_is_told_who_holds_the_archive(location: str, other_process: subprocess.Popen[str]) -> None:
    with pytest.raises(StoreError, match=rf"`raydist scan` on .*process {other_process.pid}.*wait for it"):
        Lease(location, "scan", exclusive=True).__enter__()
    with Lease(location, "embed") as shared:
        assert [other.pid for other in shared.others()] == [other_process.pid]


def test_the_lease_of_a_killed_process_holds_nobody_up(location: str, other_process: subprocess.Popen[str]) -> None:
    other_process.kill()
    other_process.wait()
    with Lease(location, "scan", exclusive=True) as own:
        assert own.others() == []


def test_a_lease_ends_with_its_block_also_after_an_error(location: str) -> None:
    with pytest.raises(RuntimeError), Lease(location, "scan", exclusive=True):
        raise RuntimeError
    assert holders(location) == []
    with Lease(location, "scan", exclusive=True):
        assert len(holders(location)) == 1


def test_a_holder_on_another_host_is_void_when_its_heartbeat_stops(location: str) -> None:
    with Lease(location, "scan", exclusive=True) as own:
        document = json.loads((Path(location) / lease.FOLDER / f"{own.holder.id}.json").read_text())
    (Path(location) / lease.FOLDER / "far.json").write_text(json.dumps({**document, "id": "far", "machine": "far"}))
    age(location, lease.EXPIRES_S - 1)
    began = time.monotonic()
    with Lease(location, "scan", exclusive=True) as own:  # a job that is submitted again waits for it
        assert own.others() == []
    assert 0.5 < time.monotonic() - began < 30


def test_a_holder_on_another_host_whose_heart_beats_is_told_of(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_LOOK_S", 0.2)
    with Lease(location, "scan", exclusive=True) as own:
        document = json.loads((Path(location) / lease.FOLDER / f"{own.holder.id}.json").read_text())
    far = Path(location) / lease.FOLDER / "far.json"
    far.write_text(json.dumps({**document, "id": "far", "machine": "far"}))
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.5):
            os.utime(far)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StoreError, match="is at work"):
            Lease(location, "scan", exclusive=True).__enter__()
        with Lease(location, "dedup") as own:
            assert [other.id for other in own.living(lambda other: other.verb == "scan")] == ["far"]
            assert own.living(lambda other: other.verb == "dedup") == []
    finally:
        over.set()
        thread.join()


def test_a_pid_that_another_process_got_is_not_the_holder(location: str) -> None:
    with Lease(location, "scan", exclusive=True) as own:
        path = Path(location) / lease.FOLDER / f"{own.holder.id}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "pid_started": "1"}))
        assert holders(location) == []


def test_a_heartbeat_keeps_a_lease_alive(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with Lease(location, "embed"):
        age(location, lease.EXPIRES_S * 2)
        time.sleep(0.5)
        assert len(holders(location)) == 1


def test_a_lease_that_was_lost_says_so(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with Lease(location, "scan", exclusive=True) as own:
        own.check()
        age(location, lease.EXPIRES_S * 2)
        holders(location)  # another looks, and removes it
        (Path(location) / lease.FOLDER / f"{own.holder.id}.json").unlink(missing_ok=True)
        time.sleep(0.5)
        with pytest.raises(StoreError, match="run it again"):
            own.check()


def test_of_two_who_hold_a_lease_the_one_that_was_taken_for_dead_gives_way(location: str) -> None:
    """A heartbeat that was late wrote its lease anew, after another had seen it expire."""
    with Lease(location, "scan", exclusive=True) as first:
        first.holder = replace(first.holder, since="2000-01-01T00:00:00+00:00")
        age(location, 2 * lease.EXPIRES_S)
        with Lease(location, "scan", exclusive=True) as second:
            first._write("held")
            assert [other.id for other in second.others()] == [first.holder.id]
            second.check()
            with pytest.raises(StoreError, match="stood still for more than 60 s and lost its place"):
                first.check()


def test_a_scan_whose_heartbeat_is_late_keeps_a_lease_that_nobody_took(location: str) -> None:
    with Lease(location, "scan", exclusive=True) as own:
        age(location, 2 * lease.EXPIRES_S)
        with Lease(location, "embed"):  # its heartbeat is of now, by which ages are told
            own._write("held")
            path = Path(location) / lease.FOLDER / f"{own.holder.id}.json"
            os.utime(path, (time.time() - 2 * lease.EXPIRES_S,) * 2)
            own.check()
            assert path.exists()


def test_who_takes_a_lease_is_later_than_whom_it_saw_whatever_their_clocks_say(location: str) -> None:
    with Lease(location, "scan", exclusive=True) as first:
        document = {**asdict(first.holder), "id": "far", "machine": "far", "since": "2999-01-01T00:00:00+00:00"}
    far = Path(location) / lease.FOLDER / "far.json"
    far.write_text(json.dumps({**document, "state": "asking"}))
    gone = threading.Timer(1.0, far.unlink)
    gone.start()
    with Lease(location, "scan", exclusive=True) as second:
        assert second.holder.since == "2999-01-01T00:00:01+00:00"
    gone.join()


def test_of_many_who_ask_at_once_one_holds_at_a_time(location: str) -> None:
    inside = 0
    most = 0
    held = 0
    lock = threading.Lock()
    start = threading.Barrier(6)

    def ask(_: int) -> None:
        nonlocal inside, most, held
        start.wait()
        for _ in range(8):
            try:
                with Lease(location, "scan", exclusive=True):
                    with lock:
                        inside += 1
                        held += 1
                        most = max(most, inside)
                    time.sleep(0.01)
                    with lock:
                        inside -= 1
            except StoreError:
                continue

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))
    assert most == 1
    assert held >= 8  # nobody held anybody up for good


def test_a_file_that_is_no_lease_is_cleared_away(location: str) -> None:
    folder = Path(location) / lease.FOLDER
    folder.mkdir(parents=True)
    (folder / "odd.json").write_text("[]")
    assert holders(location) == []
    assert list(folder.iterdir()) == []


class WorkerError(StoreError):
    """As Ray raises what a task raised."""

    cause = StoreError("the disk is full")


def test_a_note_says_what_a_worker_raised_without_its_traceback(location: str) -> None:
    with pytest.raises(StoreError, match="Traceback"), Lease(location, "embed", run="embed-1"):
        raise WorkerError("Traceback (most recent call last): ...")
    note = json.loads(Path(location, "runs", "embed-1", lease.NOTE).read_text())
    assert (note["ended"], note["error"]) == ("failed", "the disk is full")
