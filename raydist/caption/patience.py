"""How often a request is tried again and how long is waited in between: one rule for all providers.

Source  exponential back-off with full jitter's upper half: Marc Brooker, "Exponential Backoff And Jitter", AWS
        Architecture Blog, 2015; `Retry-After`: RFC 9110, 10.2.3
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from raydist.caption.asking import AskError

_FIRST_S = 1.0
_PAID_TRIES = 3
"""Of a request whose answers are paid for and cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The rule."""

    tries: int = 6
    longest_s: float = 120.0
    """Of one pause, whatever the server asks for."""

    def again(self, error: AskError, tried: int) -> bool:
        """Whether a request that was tried so often is tried once more."""
        tries = min(self.tries, _PAID_TRIES) if error.kind == "bad_answer" else self.tries
        return error.may_pass and tried < tries

    def pause_s(self, error: AskError, tried: int, draw: float | None = None) -> float:
        """Seconds to wait after the try of this number, from 1.

        Args:
            draw: from 0 to 1 in the place of a random number.
        """
        if error.retry_after_s is not None:
            return min(max(0.0, error.retry_after_s), self.longest_s)
        if error.kind == "bad_answer":
            return 0.0
        grown = _FIRST_S * 2.0 ** min(tried - 1, 30)
        share = random.random() if draw is None else draw
        return min(grown, self.longest_s) * (0.5 + 0.5 * share)
