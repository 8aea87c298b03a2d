"""What a run says of itself while it works, and while it waits."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from raydist import gauges, meter, progress


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setattr(progress, "LINE_S", 0.05)
    yield
    progress.wait_for("")


def test_a_jobs_log_gets_lines_by_time_and_they_say_what_is_waited_for(
    in_a_job: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar("embedding", 40) as shown:
        shown.advance(10)
        time.sleep(0.3)
        first = capsys.readouterr().err.splitlines()
        progress.wait_for("waiting for a place for 1 embedder (1 GPU each)")
        time.sleep(0.3)
        then = capsys.readouterr().err.splitlines()
        doing = progress.current()
    assert len(first) == 1  # what has not changed is not said again at once
    assert first[0].startswith("embedding: 10 of 40 (25%), ")
    assert then[0] == "waiting for a place for 1 embedder (1 GPU each)"
    assert then[1].endswith("; waiting for a place for 1 embedder (1 GPU each)")
    assert doing is not None
    assert doing.waits == "waiting for a place for 1 embedder (1 GPU each)"
    progress.wait_for("")
    with progress.bar("embedding", 40):
        doing = progress.current()
    assert doing is not None
    assert doing.waits == ""


def test_a_rate_falls_where_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(gauges.time, "monotonic", lambda: clock[0])
    rate = gauges.Rate()
    for _ in range(60):
        clock[0] += 1
        rate.add(30)
    assert rate.now() == pytest.approx(30, rel=0.05)
    for _ in range(70):
        clock[0] += 1
        rate.show()
    assert rate.now() == 0


def test_an_actor_is_as_busy_as_it_works_also_amid_a_long_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(gauges.time, "monotonic", lambda: clock[0])
    busy = gauges.Busy("embedder")
    busy.begin()
    clock[0] += 5
    assert busy.share() == 1  # it is in the middle of it
    clock[0] += 2
    busy.end()
    clock[0] += 6
    assert busy.share() == pytest.approx(0.25)
    clock[0] += 5
    assert busy.share() == 0


def test_what_is_held_is_counted_by_time_and_given_back() -> None:
    start, before = meter.held(), meter.hold(8, 2)
    time.sleep(0.2)
    assert meter.hold(*before) == (8, 2)
    spent = meter.held() - start
    time.sleep(0.1)
    assert spent.core_s == pytest.approx(4 * spent.gpu_s)
    assert 1.6 <= spent.core_s < 160
    assert meter.held() - start == spent or before != (0, 0)
