"""One gate for all workers of a run: requests and tokens a minute, requests in flight, money.

Promises  in no window of a minute more requests than allowed reach the server, whatever the network does: a request
          counts from the moment its answer is known (`ARRIVES_S` after it was sent at the latest), so whenever it
          arrived in between, it is counted in every window that holds that moment. Money: what is spent, and the most
          that requests in flight may cost, never exceed the budget together
Costs     under a limit a request holds its place for a minute and its own time: a little less than the limit is used
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

WINDOW_S = 60.0
_SLACK_S = 0.05
"""A server's clock and ours do not tick together."""
ARRIVES_S = 10.0
"""A request that is still without an answer has reached the server after so long."""
GIVEN_UP = 20
"""Requests in a row that all their tries did not bring an answer to: the provider is down, and a run that goes on would
only fill the table of failures."""
NEVER_ANSWERED = 5
"""The same where it has not answered once: its address may be wrong."""

Stop = Literal["", "budget", "fatal", "down", "disk", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a run may do; 0 is no limit."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    in_flight: int = 16
    max_cost: float = 0.0
    lost_s: float = 3600.0
    """A request that has not ended after so long never will: its worker died. It counts as paid."""


@dataclass(slots=True)
class _Request:
    sent_at: float
    tokens: int
    cost: float
    who: str


@dataclass(slots=True, kw_only=True)
class Spent:
    """What a run did so far."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    in_flight: int = 0
    at_work: int = 0
    """Clips that were begun and whose answers are not on the disk yet."""
    in_a_row: int = 0
    """Clips that the server gave no answer to, since it answered one."""
    lost: int = 0
    """Requests whose worker died: nobody knows whether they were answered, and they count as paid."""
    paused_s: float = 0.0
    """That servers asked for, all workers together."""
    stop: Stop = ""
    why: str = ""


@dataclass(slots=True)
class Gate:
    """The rule, for one clock: every `now` is a number of its seconds, none smaller than the one before."""

    allowance: Allowance
    window_s: float = WINDOW_S
    spent: Spent = field(default_factory=Spent)
    _open: dict[int, _Request] = field(default_factory=dict)
    _counted: deque[tuple[float, int]] = field(default_factory=deque)
    """When requests were answered, or had surely arrived, and their tokens; the oldest first."""
    _arrived: set[int] = field(default_factory=set)
    """Those in flight that were counted for having been sent long ago."""
    _window_tokens: int = 0
    _until: float = 0.0
    _answered: bool = False
    _numbers: int = 0
    _at_work: Counter[str] = field(default_factory=Counter)

    def enter(self, now: float, tokens: int, cost: float, who: str = "") -> int | float | None:
        """Ask for one request of so many tokens, in and out, that costs so much at most.

        Args:
            who: the worker that asks.

        Returns:
            Its number (an int), which `leave` takes; seconds (a float) after which to ask again; None: the run is over.
        """
        if self.spent.stop:
            return None
        self._forget(now)
        allowance = self.allowance
        if allowance.max_cost and self.spent.cost + self._held() + cost > allowance.max_cost:
            if self._open:
                return 0.1
            self.stop("budget", f"the next request may cost {cost:.6f}, {self.spent.cost:.6f} are spent")
            return None
        if now < self._until:
            return self._until - now
        if len(self._open) >= allowance.in_flight:
            return 0.05
        if self._full(tokens):
            return max(0.01, self._counted[0][0] + self.window_s + _SLACK_S - now) if self._counted else 0.05
        self._numbers += 1
        self._open[self._numbers] = _Request(now, tokens, cost, who)
        self.spent.requests += 1
        self.spent.in_flight = len(self._open)
        return self._numbers

    def leave(self, now: float, number: int, tokens_in: int, tokens_out: int, cost: float) -> None:
        """The request has ended, and used that much."""
        request = self._open.pop(number, None)
        if request is None:
            return
        if number in self._arrived:
            self._arrived.discard(number)
        else:
            # What was reserved counts, not what was used: servers reckon with a request's limits.
            self._counted.append((now, request.tokens))
            self._window_tokens += request.tokens
        self.spent.tokens_in += tokens_in
        self.spent.tokens_out += tokens_out
        self.spent.cost += cost
        self.spent.in_flight = len(self._open)

    def pause(self, now: float, seconds: float) -> None:
        """A server asks all for so much patience."""
        self.spent.paused_s += max(0.0, now + seconds - max(now, self._until))
        self._until = max(self._until, now + seconds)

    def count(self, *, answered: bool, why: str = "") -> None:
        """A clip got its answer, or all its tries failed for a reason that is the server's."""
        self.spent.in_a_row = 0 if answered else self.spent.in_a_row + 1
        self._answered = self._answered or answered
        if self.spent.in_a_row >= (GIVEN_UP if self._answered else min(GIVEN_UP, NEVER_ANSWERED)):
            self.stop("down", why)

    def begin(self, who: str = "") -> None:
        """A worker takes up a clip."""
        self._at_work[who] += 1
        self.spent.at_work = self._at_work.total()

    def end(self, who: str = "") -> None:
        """What there is of a clip's answer is on the disk."""
        self._at_work[who] -= 1
        self.spent.at_work = self._at_work.total()

    def start(self, now: float, who: str) -> None:
        """A worker starts. Where it died before, its requests never end: their places are free from now on."""
        for number in [number for number, request in self._open.items() if request.who == who]:
            self._lose(now, number)
        self._at_work.pop(who, None)
        self.spent.at_work = self._at_work.total()

    def stop(self, stop: Stop, why: str) -> None:
        """Let no more requests through; the first reason counts."""
        if not self.spent.stop:
            self.spent.stop, self.spent.why = stop, why

    def _lose(self, now: float, number: int) -> None:
        self.spent.lost += 1
        self.leave(now, number, 0, 0, self._open[number].cost)

    def _held(self) -> float:
        return sum(request.cost for request in self._open.values())

    def _full(self, tokens: int) -> bool:
        allowance = self.allowance
        waiting = [request for number, request in self._open.items() if number not in self._arrived]
        if allowance.requests_per_minute and len(self._counted) + len(waiting) >= allowance.requests_per_minute:
            return True
        if not allowance.tokens_per_minute:
            return False
        held = self._window_tokens + sum(request.tokens for request in waiting)
        # One that alone is over the limit goes when nothing else is counted: it would wait for ever.
        return held > 0 and held + tokens > allowance.tokens_per_minute

    def _forget(self, now: float) -> None:
        for number, request in self._open.items():
            if number not in self._arrived and now - request.sent_at > ARRIVES_S:
                self._arrived.add(number)
                self._counted.append((now, request.tokens))
                self._window_tokens += request.tokens
        for number in [number for number, sent in self._open.items() if now - sent.sent_at > self.allowance.lost_s]:
            self._lose(now, number)
        while self._counted and self._counted[0][0] <= now - self.window_s - _SLACK_S:
            self._window_tokens -= self._counted.popleft()[1]


class GateActor:
    """The gate as a Ray actor. Workers wait in it in the order in which they came."""

    def __init__(self, allowance: Allowance, window_s: float) -> None:
        self._gate = Gate(allowance, window_s)
        self._turn = asyncio.Lock()
        self._moved = asyncio.Event()

    async def enter(self, tokens: int, cost: float, who: str) -> int | None:
        """The number of a request that may be sent now; None: send no more."""
        async with self._turn:
            while True:
                verdict = self._gate.enter(time.monotonic(), tokens, cost, who)
                if verdict is None or isinstance(verdict, int):
                    return verdict
                self._moved.clear()
                try:
                    await asyncio.wait_for(self._moved.wait(), min(verdict, 5.0))
                except TimeoutError:
                    continue

    async def leave(self, number: int, tokens_in: int, tokens_out: int, cost: float) -> None:
        """See `Gate.leave`."""
        self._gate.leave(time.monotonic(), number, tokens_in, tokens_out, cost)
        self._moved.set()

    async def pause(self, seconds: float) -> None:
        """See `Gate.pause`."""
        self._gate.pause(time.monotonic(), seconds)

    async def count(self, answered: bool, why: str = "") -> None:
        """See `Gate.count`."""
        self._gate.count(answered=answered, why=why)
        self._moved.set()

    async def begin(self, who: str) -> None:
        """See `Gate.begin`."""
        self._gate.begin(who)

    async def end(self, who: str) -> None:
        """See `Gate.end`."""
        self._gate.end(who)

    async def start(self, who: str) -> None:
        """See `Gate.start`."""
        self._gate.start(time.monotonic(), who)
        self._moved.set()

    async def stop(self, stop: Stop, why: str) -> None:
        """See `Gate.stop`."""
        self._gate.stop(stop, why)
        self._moved.set()

    async def stopped(self) -> bool:
        """Whether no more requests are let through."""
        return bool(self._gate.spent.stop)

    async def spent(self) -> dict[str, Any]:
        """The fields of `Spent`."""
        return asdict(self._gate.spent)


def start(allowance: Allowance) -> Any:
    """Start the gate on the cluster; its handle goes to workers."""
    import ray  # once its environment is set

    # Each waiting worker holds a call.
    calls = 2 * allowance.in_flight + 1000
    gate: Any = ray.remote(GateActor)
    return gate.options(num_cpus=0, max_concurrency=calls).remote(allowance, WINDOW_S)
