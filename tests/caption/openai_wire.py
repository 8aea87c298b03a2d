"""OpenAI's chat completions, as far as captioning needs them, and their errors."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Sequence
from typing import Any

from llm_wire import BadRequestError, Received, Reply, openai_image_tokens, text_tokens


def read(body: dict[str, Any]) -> dict[str, Any]:
    """What a request asks, as fields of `Received`.

    Raises:
        BadRequestError: media that are none.
    """
    texts, images, tokens = [], [], 0
    for message in body["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image_url":
                head, _, data = part["image_url"]["url"].partition(",")
                if head != "data:image/jpeg;base64":
                    raise BadRequestError(f"Invalid image URL {head!r}: expected data:image/jpeg;base64")
                images.append(base64.b64decode(data, validate=True))
                tokens += openai_image_tokens(images[-1], part["image_url"].get("detail", "auto"))
            else:
                raise BadRequestError(f"Invalid value: {part['type']!r}. Supported values are: 'text', 'image_url'.")
    words = "\n".join(texts)
    return {
        "model": body["model"],
        "words": words,
        "images": images,
        "video": None,
        "expected": _expected(body, words),
        "max_tokens": int(body.get("max_completion_tokens") or body.get("max_tokens") or 8192),
        "tokens_in": tokens + text_tokens(words),
    }


def _expected(body: dict[str, Any], words: str) -> int:
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
    items = schema.get("properties", {}).get("captions", {})
    if "minItems" in items:
        return int(items["minItems"])
    found = re.search(r"\b(\d+) (?:captions|strings)\b", words)
    return int(found[1]) if found else 1


def said(received: Received, captions: Sequence[str], fenced: bool = False) -> Reply:
    """An answer with captions; `fenced`: in a code block, as models write that are not held to JSON."""
    text = json.dumps({"captions": list(captions)}, ensure_ascii=False)
    return answer(received, f"Here you go:\n```json\n{text}\n```" if fenced else text)


def answer(received: Received, text: str | None, finish: str = "stop", refusal: str | None = None) -> Reply:
    """An answer with this text; it counts its tokens into `received`."""
    received.tokens_out = text_tokens(text or "") + text_tokens(refusal or "")
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": refusal},
        "finish_reason": finish,
        "logprobs": None,
    }
    usage = {
        "prompt_tokens": received.tokens_in,
        "completion_tokens": received.tokens_out,
        "total_tokens": received.tokens_in + received.tokens_out,
    }
    body = {"id": "chatcmpl-loopback", "object": "chat.completion", "created": int(time.time())}
    return Reply(status=200, body={**body, "model": received.model, "choices": [choice], "usage": usage})


def error(status: int, message: str, code: str | None = None, kind: str = "invalid_request_error") -> Reply:
    """An error as OpenAI writes it."""
    return Reply(status=status, body={"error": {"message": message, "type": kind, "param": None, "code": code}})


def bad_key(key: str) -> Reply:
    """What a wrong key gets."""
    return error(401, f"Incorrect API key provided: {key}.", "invalid_api_key")


def quota(total: bool) -> Reply:
    """Too many requests; `total`: the money is used up."""
    if total:
        message = "You exceeded your current quota, please check your plan and billing details."
        return error(429, message, "insufficient_quota", "insufficient_quota")
    return error(429, "Rate limit reached for requests.", "rate_limit_exceeded", "requests")
