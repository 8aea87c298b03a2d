"""What passes between a run and a provider: what is asked of a clip, what is answered, and what can go wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["rate", "server", "timeout", "connection", "bad_answer", "refused", "too_big", "clip", "fatal"]
"""What went wrong. `rate`: 429; `server`: 5xx; `bad_answer`: paid and unreadable; `refused`: blocked by a filter, or
declined; `too_big`: more bytes than the provider takes; `clip`: this request alone is refused (400); `fatal`: none
will be answered: no key or a wrong one, no such model, the quota of the day is used up."""

_AGAIN: frozenset[Kind] = frozenset({"rate", "server", "timeout", "connection", "bad_answer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """What a provider is shown of one clip: frames, or the clip itself."""

    frames: tuple[bytes, ...] = ()
    """JPEG, in the order of time."""
    clip: bytes = b""
    """An mp4 of exactly the span, without sound."""
    width_px: int = 0
    height_px: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    name: str
    """The clip's id, for messages."""
    media: Media
    words: str
    """The instruction."""
    captions: int
    """How many captions the answer must have."""
    max_tokens: int
    """Of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a provider said, captions as they came."""

    captions: tuple[str, ...]
    tokens_in: int
    tokens_out: int


class AskError(Exception):
    """A request that got no captions. Its text holds no key."""

    def __init__(
        self, kind: Kind, detail: str, *, retry_after_s: float | None = None, tokens_in: int = 0, tokens_out: int = 0
    ) -> None:
        """
        Args:
            retry_after_s: what the server asked for; None: nothing.
            tokens_in, tokens_out: what was paid for nevertheless.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"kind {kind!r}: expected one of {get_args(Kind)}")
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out

    @property
    def may_pass(self) -> bool:
        """Whether the same request may well be answered later."""
        return self.kind in _AGAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a provider is reached. Keys are not in it: they come from the environment of the process that asks."""

    provider: str
    """`gemini`, `openai`, `local`."""
    model: str
    base_url: str = ""
    """Empty: the provider's own, or as its client's environment variable says."""
    timeout_s: float = 120.0


class Provider(ABC):
    """One model of one provider. Used by several threads at once."""

    @abstractmethod
    def ask(self, ask: Ask) -> Answer:
        """Make one request, once.

        Raises:
            AskError: no captions came, or not `ask.captions` of them.
        """

    def most_tokens(self, ask: Ask) -> int:
        """The most tokens that the answer to a request may have, thoughts included."""
        return ask.max_tokens
