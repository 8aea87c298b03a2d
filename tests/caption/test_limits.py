"""The gate that all requests of a run pass: no window of a minute holds more than allowed, and no more is spent."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.caption.limits import ARRIVES_S, GIVEN_UP, NEVER_ANSWERED, Allowance, Gate


@dataclass
class Sent:
    """One request on its way: when it was let through, when the server sees it, when its answer is known."""

    number: int
    arrives: float
    ends: float
    tokens: int
    cost: float


def run(gate: Gate, seconds: float, seed: int, slow_s: float, tokens: int = 10, cost: float = 0.01) -> list[Sent]:
    """Ask as often as the gate allows, over a network that takes its time; all that was sent."""
    draw = random.Random(seed)
    now, flying, sent = 0.0, [], []
    while now < seconds and not gate.spent.stop:
        for one in [one for one in flying if one.ends <= now]:
            gate.leave(one.ends, one.number, one.tokens, 0, one.cost)
            flying.remove(one)
        verdict = gate.enter(now, tokens, cost)
        if isinstance(verdict, int):
            up = draw.uniform(0, min(slow_s, ARRIVES_S))
            one = Sent(verdict, now + up, now + up + draw.uniform(0, slow_s), tokens, cost * draw.random())
            flying.append(one)
            sent.append(one)
        elif verdict is not None:
            now += max(0.001, min(verdict, *(max(0.001, one.ends - now) for one in flying), 5.0))
    return sent


def most(arrivals: list[float], window_s: float) -> int:
    """Most arrivals in any half-open window."""
    times = sorted(arrivals)
    return max((sum(start <= time < start + window_s for time in times) for start in times), default=0)


@given(
    allowed=st.integers(1, 40),
    in_flight=st.integers(1, 30),
    slow_s=st.sampled_from([0.01, 0.5, 3.0, 20.0]),
    seed=st.integers(0, 10_000),
)
def test_no_minute_has_more_requests_than_allowed_whatever_the_network_does(
    allowed: int, in_flight: int, slow_s: float, seed: int
) -> None:
    gate = Gate(Allowance(requests_per_minute=allowed, in_flight=in_flight), window_s=60)
    sent = run(gate, 200, seed, slow_s)
    assert sent
    assert most([one.arrives for one in sent], 60) <= allowed


@given(allowed=st.integers(10, 400), tokens=st.integers(1, 60), seed=st.integers(0, 10_000))
def test_no_minute_has_more_tokens_than_allowed(allowed: int, tokens: int, seed: int) -> None:
    gate = Gate(Allowance(tokens_per_minute=allowed, in_flight=8))
    sent = run(gate, 200, seed, 2.0, tokens=tokens)
    assert sent
    assert most([one.arrives for one in sent], 60) * tokens <= max(allowed, tokens)


@given(budget=st.floats(0.02, 0.5), in_flight=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_the_budget_is_never_exceeded_and_used_up_to_the_dearest_request(
    budget: float, in_flight: int, seed: int
) -> None:
    gate = Gate(Allowance(max_cost=budget, in_flight=in_flight))
    run(gate, 10_000, seed, 1.0, cost=0.01)
    assert gate.spent.stop == "budget"
    assert budget - 0.01 < gate.spent.cost <= budget


def test_a_limit_is_nearly_used() -> None:
    gate = Gate(Allowance(requests_per_minute=60, in_flight=16))
    sent = run(gate, 600, 1, 1.0)
    assert len(sent) >= 0.95 * 600


def test_a_request_larger_than_the_limit_of_tokens_goes_alone() -> None:
    gate = Gate(Allowance(tokens_per_minute=100, in_flight=8))
    first = gate.enter(0.0, 500, 0.0)
    assert isinstance(first, int)
    assert isinstance(gate.enter(0.1, 500, 0.0), float)
    gate.leave(1.0, first, 500, 0, 0.0)
    assert isinstance(gate.enter(30.0, 500, 0.0), float)
    assert isinstance(gate.enter(61.2, 500, 0.0), int)


def test_a_pause_holds_everybody_up() -> None:
    gate = Gate(Allowance())
    gate.pause(10.0, 5.0)
    gate.pause(10.0, 2.0)
    assert gate.enter(11.0, 1, 0.0) == pytest.approx(4.0)
    assert isinstance(gate.enter(15.0, 1, 0.0), int)
    assert gate.spent.paused_s == pytest.approx(5.0)


def test_a_request_whose_worker_died_frees_its_place_and_counts_as_paid() -> None:
    gate = Gate(Allowance(in_flight=1, max_cost=1.0, lost_s=100.0))
    assert isinstance(gate.enter(0.0, 1, 0.4), int)
    assert isinstance(gate.enter(50.0, 1, 0.4), float)
    assert isinstance(gate.enter(101.0, 1, 0.4), int)
    assert gate.spent.cost == pytest.approx(0.4)


def test_a_provider_that_fails_again_and_again_ends_the_run_and_an_answer_in_between_does_not() -> None:
    gate = Gate(Allowance())
    gate.count(answered=True)
    for _ in range(GIVEN_UP - 1):
        gate.count(answered=False, why="503")
    gate.count(answered=True)
    for _ in range(GIVEN_UP - 1):
        gate.count(answered=False, why="503")
    assert gate.spent.stop == ""
    gate.count(answered=False, why="503 again")
    assert (gate.spent.stop, gate.spent.why) == ("down", "503 again")
    assert gate.enter(0.0, 1, 0.0) is None


def test_a_provider_that_never_answers_ends_the_run_sooner() -> None:
    gate = Gate(Allowance())
    for _ in range(NEVER_ANSWERED):
        assert gate.spent.stop == ""
        gate.count(answered=False, why="connection refused")
    assert gate.spent.stop == "down"


def test_nothing_is_let_through_after_a_stop_and_the_first_reason_counts() -> None:
    gate = Gate(Allowance())
    gate.stop("fatal", "no key")
    gate.stop("interrupted", "Ctrl-C")
    assert gate.enter(0.0, 1, 0.0) is None
    assert gate.spent.why == "no key"


def test_places_of_a_worker_that_died_are_free_when_it_starts_again_and_count_as_paid() -> None:
    gate = Gate(Allowance(in_flight=2))
    for who in ("a", "b"):
        gate.start(0.0, who)
        gate.begin(who)
        assert isinstance(gate.enter(0.0, 10, 0.5, who), int)
    assert isinstance(gate.enter(1.0, 10, 0.5, "b"), float)
    gate.start(2.0, "a")
    assert (gate.spent.at_work, gate.spent.in_flight, gate.spent.lost, gate.spent.cost) == (1, 1, 1, 0.5)
    assert isinstance(gate.enter(2.0, 10, 0.5, "a"), int)
    gate.end("b")
    assert gate.spent.at_work == 0
