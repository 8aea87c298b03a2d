"""Keys of providers: found in the environment of the process that asks, and kept out of everything that is written."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from raydist.caption.asking import Access

KEYS: Mapping[str, tuple[str, ...]] = {
    "gemini": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),  # the client's own order
    "openai": ("OPENAI_API_KEY",),
}
"""Provider -> variables that may hold its key; the first one that is set counts."""

ADDRESSES: Mapping[str, str] = {"gemini": "GOOGLE_GEMINI_BASE_URL", "openai": "OPENAI_BASE_URL"}
"""Provider -> the variable with which its client is pointed at another server."""

_OWN = (".googleapis.com", ".openai.com", ".openai.azure.com")
_NONE = "none"
_USER = re.compile(r"://[^/@\s'\"]+@")
_SHORTEST_KEY = 4
"""Of letters: shorter values are parts of words, and no secrets."""


def key_of(provider: str) -> str:
    """The key that the environment has for a provider; empty: none."""
    return next((value for name in KEYS.get(provider, ()) if (value := os.environ.get(name, "").strip())), "")


def key_to_send(access: Access) -> str:
    """What the client is given: a server that asks for no key gets one that is none."""
    return key_of(access.provider) or _NONE


def base_url(access: Access) -> str:
    """The address that is asked; empty: the provider's own."""
    return access.base_url or os.environ.get(ADDRESSES.get(access.provider, ""), "").strip()


def needs_key(access: Access) -> bool:
    """Whether nothing is answered without a key: other servers than the provider's may ask for none."""
    url = base_url(access)
    return not url or ("." + (urlsplit(url).hostname or "")).endswith(_OWN)


def silence_clients() -> None:
    """Keep what clients write for debugging out of logs: the heads of answers, in which a server may repeat a key."""
    for name in ("httpcore2", "openai", "google_genai"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.INFO))


def redacted(text: str) -> str:
    """A text without any provider's key, whoever wrote it, and without passwords in addresses."""
    for name in {name for names in KEYS.values() for name in names}:
        value = os.environ.get(name, "")
        for key in {value, value.strip(), quote(value, safe="")}:
            if len(key) >= _SHORTEST_KEY:
                text = text.replace(key, "***")
    return _USER.sub("://***@", text)
