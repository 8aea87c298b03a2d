"""What `llm_server` answers when something goes wrong, in each provider's words, and when nothing does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import gemini_wire
import openai_wire
from llm_wire import Received, Reply, long_caption

if TYPE_CHECKING:
    from llm_server import LLMServer

FAULTS = {
    "rate": "429 and when to come again",
    "day": "429, the quota of the day (Gemini) or the money (OpenAI) is used up",
    "server": "500",
    "unavailable": "503",
    "redirect": "307 to somewhere else",
    "gateway": "502 with a page of HTML, as a proxy answers",
    "timeout": "no answer until the client hangs up",
    "reset": "the connection is reset",
    "cut": "half of the answer, then the end",
    "garbage": "200 and a body that is no JSON",
    "broken": "200 and broken JSON where the captions should be",
    "refusal": "declined, in one of the ways that each provider has",
    "max_tokens": "ended at the limit of tokens, in the middle",
    "few": "a caption too few",
    "slow": "the bytes of the answer dribble, over `slow_s` in all",
    "long": "captions of 60 words; a request with other words for the same media gets short ones",
    "boilerplate": "`This video shows` before each caption",
    "fenced": "captions in a code block with words around it (OpenAI)",
    "words": "the first caption without any JSON (OpenAI)",
    "empty": "captions without a word",
    "invalid": "400 for this request",
    "too_big": "413",
}


def captions(server: LLMServer, received: Received, fault: str) -> list[str]:
    """What is said of the media."""
    if fault == "long":
        numbers = range(received.expected)
        return [long_caption(received.images, received.video, number) for number in numbers]
    said = server.captions(received)
    if fault == "few":
        return said[:-1]
    if fault == "boilerplate":
        return [f"This video shows {caption[0].lower()}{caption[1:]}" for caption in said]
    return [""] * len(said) if fault == "empty" else said


def gemini(server: LLMServer, received: Received, fault: str) -> Reply:
    """Gemini's answer."""
    told = server.retry_after_s if server.retry_after in ("seconds", "date", "body") else None
    if fault in ("rate", "day"):
        found = gemini_wire.quota("Day" if fault == "day" else "Minute", told)
        return Reply(status=429, body=found.body, headers=server.again())
    errors = {
        "server": (500, "An internal error has occurred. Please retry."),
        "unavailable": (503, "The model is overloaded. Please try again later."),
        "invalid": (400, "Unable to process input image. Please retry or report."),
        "too_big": (413, "Request payload size exceeds the limit: 20971520 bytes."),
    }
    if fault in errors:
        return gemini_wire.error(*errors[fault])
    text = json.dumps({"captions": captions(server, received, fault)})
    if fault == "broken":
        return gemini_wire.answer(received, text[: len(text) // 2], thoughts=server.thoughts)
    if fault == "max_tokens":
        return gemini_wire.answer(received, text[: len(text) // 2], "MAX_TOKENS", server.thoughts)
    if fault == "refusal":
        ways: list[Callable[[], Reply]] = [
            lambda: gemini_wire.blocked(received),
            lambda: gemini_wire.answer(received, "", "SAFETY"),
            lambda: gemini_wire.said(received, ["I'm sorry, I can't help with that."] * received.expected),
        ]
        return ways[int(received.media[:4], 16) % len(ways)]()
    return gemini_wire.said(received, captions(server, received, fault), server.thoughts)


def openai(server: LLMServer, received: Received, fault: str) -> Reply:
    """OpenAI's answer."""
    if fault in ("rate", "day"):
        return Reply(status=429, body=openai_wire.quota(fault == "day").body, headers=server.again())
    errors = {
        "server": (500, "The server had an error while processing your request."),
        "unavailable": (503, "The engine is currently overloaded, please try again later."),
        "invalid": (400, "Invalid image data."),
        "too_big": (413, "Request too large."),
    }
    if fault in errors:
        return openai_wire.error(*errors[fault])
    text = json.dumps({"captions": captions(server, received, fault)})
    if fault == "broken":
        return openai_wire.answer(received, text[: len(text) // 2])
    if fault == "max_tokens":
        return openai_wire.answer(received, text[: len(text) // 2], "length")
    if fault == "refusal":
        no = "I'm sorry, I can't help with that."
        ways: list[Callable[[], Reply]] = [
            lambda: openai_wire.answer(received, None, refusal=no),
            lambda: openai_wire.answer(received, None, "content_filter"),
            lambda: openai_wire.said(received, [no] * received.expected),
        ]
        return ways[int(received.media[:4], 16) % len(ways)]()
    if fault == "words":
        return openai_wire.answer(received, captions(server, received, fault)[0])
    return openai_wire.said(received, captions(server, received, fault), fenced=fault == "fenced")
