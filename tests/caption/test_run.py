"""Captions by a hosted model: real archives, real client libraries, and a server on loopback that has its moods."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from archives import configure, rows, scanned, videos
from asked import FAULTS, KEY, KEYS, MODELS, Asked, archive_of, asked_price, outcome
from llm_server import LLMServer

import raydist
from raydist import caption
from raydist.caption import answers, limits
from raydist.errors import ProviderError, StoreError, UsageError
from raydist.store.lease import Lease

pytestmark = pytest.mark.usefixtures("cluster")

CLIPS = 40
Start = Callable[..., Asked]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive_of(tmp_path_factory.mktemp("asked"), CLIPS, a_file=8)


@pytest.fixture
def start(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A copy of the archive and a server with the faults that are asked for."""
    servers: list[LLMServer] = []

    def begin(api: str = "gemini", **given: object) -> Asked:
        monkeypatch.setenv(KEYS[api], KEY)
        server = LLMServer(**given).__enter__()  # type: ignore[arg-type]
        servers.append(server)
        shutil.copytree(once, tmp_path / "archive", dirs_exist_ok=True)
        return Asked(tmp_path / "archive", server, api)

    yield begin
    for server in servers:
        server.__exit__()


def said(report: object, *words: str) -> bool:
    return any(all(word in note for word in words) for note in report.notes)  # type: ignore[attr-defined]


@pytest.mark.parametrize("api", ["gemini", "openai"])
def test_every_clip_gets_the_caption_of_its_own_pictures(start: Start, api: str) -> None:
    asked = start(api)
    report = asked.run()
    assert report.counts["clips"] == CLIPS
    assert asked.captions() == {name: [text] for name, text in asked.expected().items()}
    assert {row["prompt_hash"] for row in rows(asked.archive, "captions")} == {report.details["prompt_hash"]}
    assert len(asked.server.received) == CLIPS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("api", ["gemini", "openai"])
def test_with_faults_of_every_kind_each_clip_ends_once_within_the_limit(
    start: Start, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WINDOW_S", 3.0)
    faults = {name: 2 * share for name, share in FAULTS.items()}
    asked = start(api, faults=faults, retry_after_s=0.3, seed=3)
    report = asked.run("caption.requests_per_minute=30", "caption.timeout_s=3")
    found = outcome(asked, asked.expected())
    assert found["captioned"] + sum(found["failed"].values()) == CLIPS, found
    assert (found["rows"], found["both"], found["of_another_clip"]) == (found["captioned"], 0, 0), found
    assert found["answered_twice"] == 0, found
    assert asked.server.most_in(3.0) <= 30
    assert len(asked.server.received) == report.details["requests"] > 33
    assert set(found["failed"]) <= {"refused", "no_caption", "provider", "bad_answer"}, found
    # Of a request that timed out nobody knows whether it was paid: it counts as paid.
    assert asked_price(asked) <= report.details["cost"] <= 1.1 * asked_price(asked)


def test_a_second_run_asks_nothing_and_a_changed_prompt_asks_again(start: Start) -> None:
    asked = start()
    asked.run()
    again = asked.run()
    assert again.counts["clips"] == 0
    assert said(again, "nothing to do", f"{CLIPS} clips have a caption")
    assert len(asked.server.received) == CLIPS
    changed = asked.run("caption.hints=Films of a harbour; call cranes gantries.")
    assert (changed.counts["clips"], changed.counts["replaced"]) == (CLIPS, CLIPS)
    assert len(asked.server.received) == 2 * CLIPS
    assert "gantries" in asked.server.received[-1].words
    assert len(rows(asked.archive, "captions")) == CLIPS


def test_a_dry_run_sends_nothing_and_tells_the_cost_to_within_five_per_cent(start: Start) -> None:
    asked = start()
    told = asked.run(dry_run=True)
    assert asked.server.received == []
    assert told.counts["clips"] == CLIPS
    assert said(told, "cost:", "USD")
    assert said(told, "CPU s a clip")
    report = asked.run()
    assert told.details["cost"] == pytest.approx(report.details["cost"], rel=0.05)
    assert report.details["cost"] == pytest.approx(asked_price(asked), abs=2e-6)
    assert not said(told, "may think")
    thinking = asked.run("caption.captioned=add", "caption.model=gemini-2.5-pro", dry_run=True)
    assert said(thinking, "may think before it answers")
    measured = asked.run("caption.captioned=add", "caption.model=gemini-2.5-flash-lite", dry_run=True)
    assert measured.counts["clips"] == CLIPS
    assert (asked.archive / "runs").exists()


def test_a_limit_is_spread_over_the_videos(start: Start) -> None:
    asked = start()
    report = asked.run(limit=10)
    assert report.counts["clips"] == 10
    assert said(report, "30 clips still have no caption")
    assert len({name.partition("#")[0] for name in asked.captions()}) == 5


def test_a_run_stops_before_its_budget_is_exceeded(start: Start) -> None:
    asked = start(latency_s=0.1)
    one = asked.run(limit=1).details["cost"]
    asked.server.received.clear()
    report = asked.run(f"caption.max_cost={10 * one}", "caption.in_flight=4")
    assert report.details["stopped"] == "budget"
    assert 5 <= report.counts["clips"] <= 10
    assert asked_price(asked) <= 10 * one
    assert report.details["cost"] == pytest.approx(asked_price(asked), abs=2e-6)
    assert said(report, "caption.max_cost", "left for another run")
    assert len(asked.captions()) == report.counts["clips"] + 1
    rest = asked.run()
    assert rest.counts["clips"] == CLIPS - 1 - report.counts["clips"]


def test_answers_of_no_use_count_although_their_clips_are_left(start: Start) -> None:
    asked = start(faults={"broken": 1.0})
    report = asked.run("caption.max_cost=0.012", "caption.in_flight=4")
    assert report.details["stopped"] == "budget"
    assert report.details["cost"] == pytest.approx(asked_price(asked), abs=2e-6)
    assert report.details["requests"] == len(asked.server.received)


def test_a_failed_clip_has_its_reason_and_is_asked_again_only_when_that_is_wanted(start: Start) -> None:
    asked = start()
    asked.server.plan.extend(["refusal", "empty", "invalid"])
    report = asked.run("caption.in_flight=1")
    assert report.failures == {"refused": 2, "no_caption": 1}
    assert len(asked.failed()) == 3
    books = raydist.open(str(asked.archive)).status()
    assert books["captioned"] == {MODELS["gemini"]: {"clips": CLIPS - 3, "failed": 3, "without": 0}}
    assert said(report, "refused, such as videos/")
    assert asked.run().counts["clips"] == 0
    assert len(asked.server.received) == CLIPS
    assert asked.run(retry_failed=True).counts["clips"] == 3
    assert asked.captions() == {name: [text] for name, text in asked.expected().items()}


def test_captions_that_are_too_long_are_asked_for_once_more_then_cut(start: Start) -> None:
    asked = start(faults={"long": 1.0})
    report = asked.run(limit=5)
    assert len(asked.server.received) == 10
    assert report.counts == {"clips": 5, "captions": 5, "failed": 0}
    stubborn = "a man in a red coat, " * 12 + "and a dog"
    asked.server._speak = lambda received: [stubborn] * received.expected
    asked.server.faults = {}
    report = asked.run(limit=5)
    assert (report.counts["clips"], report.counts["cut"]) == (5, 5)
    marked = [row for row in rows(asked.archive, "captions") if row["cut"]]
    assert len(marked) == 5
    assert {row["caption"] for row in marked} == {marked[0]["caption"]}
    assert marked[0]["caption"].endswith("coat")


def test_captions_of_a_file_that_changed_are_replaced(start: Start, tmp_path: Path) -> None:
    asked = start()
    folder = tmp_path / "changing"
    videos(folder, 1, 2)
    scanned(asked.archive, folder)
    asked.run()
    videos(folder / "other", 1, 2, first=90)
    (folder / "other" / "v090.mp4").replace(folder / "v000.mp4")
    (folder / "other").rmdir()
    scanned(asked.archive, folder)
    report = asked.run()
    assert (report.counts["clips"], report.counts["replaced"]) == (2, 2)
    assert len(rows(asked.archive, "captions")) == CLIPS + 2
    assert asked.captions() == {name: [text] for name, text in asked.expected().items()}


def test_several_captions_of_a_clip_are_numbered_by_detail(start: Start) -> None:
    asked = start()
    asked.run("caption.details=plain, brief,full", limit=3)
    found = asked.captions()
    assert len(found) == 3
    for number in range(3):
        expected = asked.expected(number)
        assert all(texts[number] == expected[name] for name, texts in found.items())


def test_clips_with_captions_of_people_are_left_alone_unless_told_otherwise(start: Start, tmp_path: Path) -> None:
    asked = start()
    (tmp_path / "own.csv").write_text('clip_id,caption\n"videos/v000.mp4#t=0,1",a dog\n')
    assert caption.run(configure(asked.archive), caption.Request(file=str(tmp_path / "own.csv"))).counts["added"] == 1
    assert asked.run().counts["clips"] == CLIPS - 1
    assert asked.run("caption.captioned=add").counts["clips"] == 1


def test_answers_that_a_killed_run_left_are_taken_in_and_not_asked_again(start: Start) -> None:
    asked = start()
    asked.run(limit=1)
    clip = next(row for row in rows(asked.archive, "clips") if row["clip_id"] not in asked.captions())
    row = {
        **{name: clip[name] for name in ("clip_key", "clip_id", "video_id", "fingerprint")},
        "captions": ["a paid answer"], "cut": [False], "reason": "", "detail": "", "origin": MODELS["gemini"],
        "prompt_hash": rows(asked.archive, "captions")[0]["prompt_hash"], "left": False, "requests": 1,
        "tokens_in": 10, "tokens_out": 5, "cost": 0.1, "ask_s": 0.1, "prepare_s": 0.0, "prepare_cpu_s": 0.0,
    }  # fmt: skip
    answers.keep(str(asked.archive), row)
    captioned = next(row for row in rows(asked.archive, "clips") if row["clip_id"] in asked.captions())
    of_clip = {name: captioned[name] for name in ("clip_key", "clip_id", "video_id", "fingerprint")}
    answers.keep(str(asked.archive), {**row, **of_clip, "origin": "another-model", "cost": 99.0})
    report = asked.run()
    assert report.details["recovered"] == 1
    assert (report.counts["clips"], report.details["requests"]) == (CLIPS - 1, CLIPS - 1)
    assert report.details["cost"] < 1.0
    assert said(report, "1 answers of another model")
    assert [row["origin"] for row in rows(asked.archive, "captions")].count("another-model") == 1
    assert asked.captions()[clip["clip_id"]] == ["a paid answer"]
    assert len(asked.server.received) == CLIPS - 1
    assert list(answers.all_kept(str(asked.archive))) == []


def test_a_wrong_key_ends_the_run_at_once_and_is_in_no_file_or_message(start: Start) -> None:
    asked = start(keys={"another"}, echo=True)
    with pytest.raises(ProviderError, match="refuses all requests") as caught:
        asked.run()
    assert KEY not in str(caught.value)
    assert len(asked.server.received) + len(asked.server.calls) <= 16
    assert asked.failed() == {}
    for file in asked.archive.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_a_server_that_is_down_ends_the_run_and_what_was_answered_is_kept(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GIVEN_UP", 5)
    asked = start()
    asked.server.plan.extend(["ok"] * 4 + ["unavailable"] * 1000)
    with pytest.raises(ProviderError, match=r"failed \d+ clips in a row"):
        asked.run("caption.tries=1", "caption.in_flight=1")
    assert len(asked.captions()) == 4
    asked.server.plan.clear()
    asked.run(retry_failed=True)
    assert len(asked.captions()) == CLIPS


def test_an_address_where_nobody_answers_ends_the_run_and_says_after_how_many_clips(start: Start) -> None:
    asked = start()
    with pytest.raises(ProviderError, match=rf"failed {limits.NEVER_ANSWERED} clips in a row.*--retry-failed"):
        asked.run("caption.tries=1", "caption.in_flight=1", "caption.base_url=http://127.0.0.1:9")
    assert len(asked.failed()) == limits.NEVER_ANSWERED


def test_a_worker_that_is_killed_holds_nothing_up(start: Start) -> None:
    asked = start(latency_s=0.5)
    killed: list[int] = []

    def kill() -> None:
        while len(asked.server.received) < 12:
            time.sleep(0.02)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "(Asker)" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    report = asked.run("caption.in_flight=8")
    killer.join()
    assert killed
    assert asked.captions() == {name: [text] for name, text in asked.expected().items()}
    assert asked.answered_twice() <= 8
    assert report.details["stopped"] == ""
    assert said(report, "lost with a worker that died")


def test_two_runs_at_once_are_refused(start: Start) -> None:
    asked = start()
    with Lease(str(asked.archive), "caption --provider"), pytest.raises(StoreError, match="pay for the same clips"):
        asked.run()


def test_settings_that_do_not_go_together_are_refused(start: Start, tmp_path: Path) -> None:
    asked = start("openai")
    with pytest.raises(UsageError, match="takes pictures"):
        asked.run("caption.send=clip")
    with pytest.raises(UsageError, match="no price"):
        asked.run("caption.model=my-own", "caption.max_cost=1")
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\n[models."my-own"]\ninput = 1\noutput = "2"\n')
    with pytest.raises(UsageError, match="output = '2'"):
        asked.run("caption.model=my-own", f"caption.prices={prices}")
    prices.write_text(
        'currency = "EUR"\nas_of = "2026-01"\n[models."my-own"]\ninput = 1\noutput = 2\nimage_tokens = 85\n'
    )
    report = asked.run("caption.model=my-own", f"caption.prices={prices}", limit=2)
    assert report.details["currency"] == "EUR"
    assert said(report, "EUR by the prices of 2026-01")
    with pytest.raises(UsageError, match="--dry-run is for captions by a provider"):
        asked.run(dry_run=True, keep=True)
    with pytest.raises(UsageError, match="--sheet page is the page that --review writes"):
        asked.run(sheet="page")
    assert json.dumps(report.details)
