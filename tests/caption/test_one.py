"""One clip on its way: tries, pauses, the shorter second request, and what is counted of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from asked import KEY
from llm_server import LLMServer, caption_of
from PIL import Image

from raydist.caption.asking import Access, AskError, Media
from raydist.caption.limits import Allowance, Gate, Stop
from raydist.caption.one import Captioner
from raydist.caption.patience import Patience
from raydist.caption.prices import price_of
from raydist.caption.prompt import Prompt
from raydist.caption.providers import load
from raydist.clips.jpeg import jpeg
from raydist.models.lengths import TextLimit


@dataclass
class Here:
    """The gate in this process, on a clock that stands still while nobody waits."""

    gate: Gate = field(default_factory=lambda: Gate(Allowance()))
    now: float = 0.0
    pauses: list[float] = field(default_factory=list)
    naps: list[float] = field(default_factory=list)

    def enter(self, tokens: int, cost: float) -> int | None:
        while isinstance(verdict := self.gate.enter(self.now, tokens, cost), float):
            self.now += verdict
        return verdict

    def leave(self, number: int, tokens_in: int, tokens_out: int, cost: float) -> None:
        self.gate.leave(self.now, number, tokens_in, tokens_out, cost)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.gate.pause(self.now, seconds)

    def begin(self) -> None:
        self.gate.begin()

    def end(self) -> None:
        self.gate.end()

    def count(self, answered: bool, why: str = "") -> None:
        self.gate.count(answered=answered, why=why)

    def stop(self, stop: Stop, why: str) -> None:
        self.gate.stop(stop, why)

    def stopped(self) -> bool:
        return bool(self.gate.spent.stop)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LLMServer]:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with LLMServer(retry_after_s=7) as running:
        yield running


PICTURE = jpeg(np.asarray(Image.linear_gradient("L").convert("RGB")))
MEDIA = Media(frames=(PICTURE,), width_px=256, height_px=256, duration_s=1.0)


def captioner(server: LLMServer, door: Here, tries: int = 6, model: str = "gemini-2.5-flash") -> Captioner:
    """One that asks the server, through a gate in this process."""
    return Captioner(
        provider=load(Access(provider="gemini", model=model, base_url=server.url, timeout_s=5)),
        prompt=Prompt(hints="", details=("plain",), room=30, send="frames", frames=1),
        limit=TextLimit(32),
        door=door,
        price=price_of(model),
        patience=Patience(tries=tries, longest_s=60),
        sleep=door.sleep,
    )


def test_tries_end_with_an_answer_and_only_answers_are_paid(server: LLMServer) -> None:
    server.plan.extend(["server", "reset", "unavailable"])
    door = Here()
    found = captioner(server, door).caption("a", MEDIA)
    assert found.captions == (caption_of([PICTURE]),)
    assert found.requests == 4 == len(server.received)
    assert (found.tokens_in, found.tokens_out) == server.billed
    assert door.gate.spent.cost == pytest.approx(found.cost)
    assert len(door.naps) >= 3
    assert door.pauses == []


def test_retry_after_holds_all_up_and_no_longer_than_the_cap(server: LLMServer) -> None:
    server.plan.extend(["rate"])
    door = Here()
    captioner(server, door).caption("a", MEDIA)
    assert door.pauses == [7.0]
    assert door.now >= 7.0
    server.retry_after_s = 3_600
    server.plan.extend(["rate"])
    captioner(server, door).caption("b", MEDIA)
    assert door.pauses == [7.0, 60.0]


def test_a_clip_that_all_tries_fail_for_has_the_servers_reason(server: LLMServer) -> None:
    server.plan.extend(["unavailable"] * 3)
    door = Here()
    found = captioner(server, door, tries=3).caption("a", MEDIA)
    assert (found.reason, found.requests, found.left) == ("provider", 3, False)
    assert "503" in found.detail


def test_an_answer_that_cannot_be_read_is_asked_for_three_times_at_most_and_paid_each_time(server: LLMServer) -> None:
    server.plan.extend(["broken"] * 9)
    found = captioner(server, Here()).caption("a", MEDIA)
    assert (found.reason, found.requests) == ("bad_answer", 3)
    assert found.tokens_in == server.billed[0] > 0


def test_the_shorter_second_answer_is_taken_and_the_first_one_cut_where_there_is_none(server: LLMServer) -> None:
    server.plan.extend(["long"])
    found = captioner(server, Here()).caption("a", MEDIA)
    assert (found.captions, found.cut, found.requests) == ((caption_of([PICTURE]),), (False,), 2)
    assert server.received[0].words != server.received[1].words
    server.plan.extend(["long", "refusal"])
    found = captioner(server, Here()).caption("a", MEDIA)
    assert (found.cut, found.reason, found.requests) == ((True,), "", 2)
    assert TextLimit(32).count(found.captions[0]) <= 30


def test_what_is_fatal_stops_all_and_leaves_the_clip_for_another_run(server: LLMServer) -> None:
    server.keys = {"another"}
    door = Here()
    found = captioner(server, door).caption("a", MEDIA)
    assert (found.left, found.captions, found.reason) == (True, (), "")
    assert door.gate.spent.stop == "fatal"
    assert captioner(server, door).caption("b", MEDIA).left
    assert len(server.received) + len(server.calls) == 1


def test_a_run_that_is_stopped_in_a_pause_leaves_the_clip(server: LLMServer) -> None:
    server.plan.extend(["server"])
    door = Here()
    door.sleep = lambda seconds: door.stop("interrupted", "Ctrl-C")  # type: ignore[method-assign]
    found = captioner(server, door).caption("a", MEDIA)
    assert (found.left, found.requests) == (True, 1)


def test_a_budget_counts_thoughts_that_an_answer_may_have(server: LLMServer) -> None:
    server.thoughts = 3_000
    door = Here(Gate(Allowance(max_cost=0.1)))
    asking = captioner(server, door, model="gemini-2.5-pro")
    while not asking.caption("a", MEDIA).left:
        pass
    assert (len(server.received), door.gate.spent.stop) == (2, "budget")
    assert 0.06 < door.gate.spent.cost <= 0.1


def test_a_budget_learns_that_a_server_counts_more_tokens_than_the_table_says(server: LLMServer) -> None:
    door = Here()
    asking = captioner(server, door)
    assert asking.price is not None
    asking.price = replace(asking.price, image_tokens=1, input=100.0)
    one = asking.caption("a", MEDIA).cost
    door.gate.allowance = Allowance(max_cost=5.9 * one)
    while not asking.caption("a", MEDIA).left:
        pass
    assert 4 * one < door.gate.spent.cost <= 5.9 * one


def test_pauses_grow_up_to_the_longest() -> None:
    patience = Patience(tries=6, longest_s=10)
    error = AskError("server", "500")
    assert [patience.pause_s(error, tried, draw=1.0) for tried in (1, 2, 3, 4, 5, 40)] == [1, 2, 4, 8, 10, 10]
    assert patience.pause_s(error, 3, draw=0.0) == 2
    assert patience.pause_s(AskError("rate", "", retry_after_s=3), 9) == 3
    assert [patience.again(error, tried) for tried in (5, 6)] == [True, False]
    assert not patience.again(AskError("refused", ""), 1)
