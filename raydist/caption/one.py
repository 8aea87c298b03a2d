"""One clip: asked, judged, asked once more for fewer words, cut. All waiting and all counting of money is here.

Promises  a request is sent only with a number of the gate, and each number is given back with what was used
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from raydist.caption.asking import Answer, Ask, AskError, Media, Provider
from raydist.caption.judge import Judged, cut, judged
from raydist.caption.limits import Stop
from raydist.caption.patience import Patience
from raydist.caption.prices import Price, media_tokens, text_tokens
from raydist.caption.prompt import Prompt
from raydist.models.lengths import TextLimit

_REASON = {"refused": "refused", "clip": "refused", "bad_answer": "bad_answer", "too_big": "too_big"}
_NAP_S = 1.0
"""A worker that waits looks so often whether the run is over."""


class Door(Protocol):
    """The run's gate, as a worker sees it: see `limits.Gate`."""

    def enter(self, tokens: int, cost: float) -> int | None: ...
    def leave(self, number: int, tokens_in: int, tokens_out: int, cost: float) -> None: ...
    def pause(self, seconds: float) -> None: ...
    def begin(self) -> None: ...
    def end(self) -> None: ...
    def count(self, answered: bool, why: str = "") -> None: ...
    def stop(self, stop: Stop, why: str) -> None: ...
    def stopped(self) -> bool: ...


class LeftError(Exception):
    """The run is over and the clip has no answer: it stays pending."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a clip."""

    captions: tuple[str, ...] = ()
    cut: tuple[bool, ...] = ()
    reason: str = ""
    detail: str = ""
    left: bool = False
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0


@dataclass(slots=True, kw_only=True)
class Captioner:
    """Asks one provider about clips; used by several threads at once."""

    provider: Provider
    prompt: Prompt
    limit: TextLimit
    door: Door
    price: Price | None
    patience: Patience
    sleep: Callable[[float], None] = field(default=time.sleep)
    _dearer: float = field(default=1.0, init=False)
    """Times that a request took the tokens that the price table reckons with, at most."""

    def caption(self, name: str, media: Media) -> Outcome:
        """Caption one clip."""
        outcome = Outcome()
        try:
            found = self._judged(name, media, self.prompt.words(), outcome)
            if found.too_long and not found.reason:
                found = self._shorter(name, media, found, outcome)
        except AskError as error:
            outcome.reason = _REASON.get(error.kind, "provider")
            outcome.detail = error.detail
        except LeftError:
            outcome.left = True
        else:
            outcome.reason, outcome.detail = found.reason, found.detail
            if not found.reason:
                outcome.captions, outcome.cut = cut(found.captions, self.limit)
        return outcome

    def _shorter(self, name: str, media: Media, found: Judged, outcome: Outcome) -> Judged:
        """Ask once more for fewer words. What came first is good enough where that brings nothing."""
        try:
            second = self._judged(name, media, self.prompt.shorter(found.captions), outcome)
        except (AskError, LeftError):
            return found
        return found if second.reason else second

    def _judged(self, name: str, media: Media, words: str, outcome: Outcome) -> Judged:
        wanted = len(self.prompt.details)
        ask = Ask(name=name, media=media, words=words, captions=wanted, max_tokens=self.prompt.max_tokens)
        answer = self._asked(ask, outcome)
        return judged(answer.captions, wanted, self.limit)

    def _asked(self, ask: Ask, outcome: Outcome) -> Answer:
        """The answer, after as many tries as it takes.

        Raises:
            AskError: there is none.
            LeftError: the run is over.
        """
        tried = 0
        while True:
            tried += 1
            try:
                answer = self._once(ask, outcome)
            except AskError as error:
                if error.kind == "fatal":
                    self.door.stop("fatal", error.detail)
                    raise LeftError from error
                if not self.patience.again(error, tried):
                    self.door.count(error.kind not in ("rate", "server", "timeout", "connection"), error.detail)
                    raise
                self._wait(error, tried)
            else:
                self.door.count(True)
                return answer

    def _once(self, ask: Ask, outcome: Outcome) -> Answer:
        reckoned = text_tokens(ask.words) + media_tokens(self.price, ask.media)
        tokens_in, tokens_out = math.ceil(reckoned * self._dearer), self.provider.most_tokens(ask)
        number = self.door.enter(tokens_in + tokens_out, self._cost(tokens_in, tokens_out))
        if number is None:
            raise LeftError
        used_in = used_out = unknown = 0
        outcome.requests += 1
        try:
            answer = self.provider.ask(ask)
            used_in, used_out = answer.tokens_in, answer.tokens_out
        except AskError as error:
            used_in, used_out = error.tokens_in, error.tokens_out
            if error.kind == "timeout" and not used_in:
                # The server may have answered all the same, and nobody will tell: the money may be spent.
                used_in, unknown = tokens_in, tokens_out
            raise
        finally:
            self._dearer = max(self._dearer, used_in / reckoned)
            cost = self._cost(used_in, used_out + unknown)
            outcome.tokens_in += used_in
            outcome.tokens_out += used_out
            outcome.cost += cost
            self.door.leave(number, used_in, used_out, cost)
        return answer

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        return self.price.cost(tokens_in, tokens_out) if self.price else 0.0

    def _wait(self, error: AskError, tried: int) -> None:
        """Pause. A server that asks for patience asks all workers."""
        seconds = self.patience.pause_s(error, tried)
        if error.kind == "rate" or error.retry_after_s is not None:
            self.door.pause(seconds)
            return
        while seconds > 0:
            if self.door.stopped():
                raise LeftError from error
            self.sleep(min(seconds, _NAP_S))
            seconds -= _NAP_S
