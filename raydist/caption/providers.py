"""Providers of captions: which there are, what each needs, and how one is loaded where requests are made."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from raydist.caption import chat, gemini
from raydist.caption.asking import Access, Ask, Provider
from raydist.caption.keys import KEYS, base_url, key_of, needs_key, redacted
from raydist.errors import ProviderError, UsageError

__all__ = ["DEFAULT_MODELS", "KEYS", "MAX_BYTES", "load", "most_tokens", "origin", "redacted", "require"]

DEFAULT_MODELS: Mapping[str, str] = {"gemini": "gemini-2.5-flash-lite"}
"""Of those that have one. OpenAI's and other servers' models come and go: name one."""

MAX_BYTES: Mapping[str, int] = {"gemini": gemini.MAX_BYTES, "openai": chat.MAX_BYTES}
"""Of the media of one request."""

_CLIENTS = {"gemini": "google.genai", "openai": "openai"}
_PROVIDERS: Mapping[str, Callable[[Access], Provider]] = {"gemini": gemini.Gemini, "openai": chat.Chat}


def require(access: Access, *, to_ask: bool = True) -> None:
    """See that a provider can be asked, without asking it.

    Args:
        to_ask: whether it will be asked; to reckon what that would cost takes neither its client nor a key.

    Raises:
        UsageError: an unknown provider, no model, or an address that is none.
        ProviderError: its client is not installed, or its key is not in the environment.
    """
    if access.provider not in _PROVIDERS:
        raise UsageError(f"caption.provider={access.provider!r}: expected one of {', '.join(_PROVIDERS)}, or local")
    if not access.model:
        raise UsageError(
            f"caption.provider={access.provider} and no model: expected --model NAME (caption.model), a model that "
            "takes pictures, as its server calls it"
        )
    url = base_url(access)
    if url and not _is_address(url):
        raise UsageError(f"caption.base_url={redacted(url)!r}: expected an address such as http://localhost:8000/v1")
    if not to_ask:
        return
    if not _is_installed(_CLIENTS[access.provider]):
        raise ProviderError(
            f"the client of {access.provider} ({_CLIENTS[access.provider]}) is not installed: "
            f"pip install 'raydist[{access.provider}]'"
        )
    names, key = KEYS[access.provider], key_of(access.provider)
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ProviderError(
            f"the key of {access.provider} ({' or '.join(names)}) holds a blank, a line break or a letter that no key "
            "has: expected the key alone"
        )
    if needs_key(access) and not key:
        others = f" (or {', '.join(names[:-1])})" if names[1:] else ""
        raise ProviderError(
            f"{access.provider} needs a key: expected the environment variable {names[-1]}{others}, on every machine "
            "that asks; a server of your own (caption.base_url) needs none"
        )


def load(access: Access) -> Provider:
    """A provider, ready to be asked by any number of threads. In the process that asks: the key comes from there.

    Raises:
        UsageError, ProviderError: as `require`.
    """
    require(access)
    return _PROVIDERS[access.provider](access)


def most_tokens(access: Access, ask: Ask) -> int:
    """The most tokens of an answer to a request as it is first made, thoughts included."""
    style = gemini.Style(access.model) if access.provider == "gemini" else chat.Style(access)
    return style.most_tokens(ask)


def origin(access: Access) -> str:
    """What `captions.origin` holds: the model's name."""
    if access.provider == "local" and os.path.isdir(os.path.expanduser(access.model)):
        return os.path.basename(os.path.abspath(os.path.expanduser(access.model)))  # not where it lies on a machine
    return access.model.removeprefix("models/") or DEFAULT_MODELS.get(access.provider, "")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half of brackets, or a port that is none
        return False


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is not there, or it is blocked
        return False
