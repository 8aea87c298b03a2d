"""Gemini's REST format (v1beta), as far as captioning needs it: generateContent and its errors."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

from llm_wire import BadRequestError, Received, Reply, gemini_image_tokens, text_tokens, video_tokens

STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
TYPES = "type.googleapis.com/google.rpc."


def read(model: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a request asks, as fields of `Received`.

    Raises:
        BadRequestError: a field that is none, or media that are none.
    """
    body = camel(body)
    known = {"contents", "systemInstruction", "generationConfig", "safetySettings"}
    if unknown := set(body) - known:
        raise BadRequestError(f"Invalid JSON payload received. Unknown name {sorted(unknown)[0]!r}: Cannot find field.")
    config = body.get("generationConfig", {})
    low = config.get("mediaResolution") == "MEDIA_RESOLUTION_LOW"
    contents = [*body.get("contents", []), *([body["systemInstruction"]] if "systemInstruction" in body else [])]
    texts, images, video, tokens = [], [], None, 0
    for part in (part for content in contents for part in content["parts"]):
        if "text" in part:
            texts.append(part["text"])
            continue
        inline = part.get("inlineData")
        if inline is None:
            raise BadRequestError(f"a part of {sorted(part)}: this server knows text and inlineData")
        data = base64.b64decode(
            inline["data"], altchars=b"-_" if "-" in inline["data"] or "_" in inline["data"] else None
        )
        if inline["mimeType"] == "image/jpeg":
            images.append(data)
            tokens += gemini_image_tokens(data, model.removeprefix("models/"), low)
        elif inline["mimeType"] == "video/mp4":
            video = data
            tokens += video_tokens(data, low)
        else:
            raise BadRequestError(f"Unsupported MIME type: {inline['mimeType']}")
    words = "\n".join(texts)
    if not words and not images and video is None:
        raise BadRequestError("GenerateContentRequest.contents: contents is not specified")
    schema = config.get("responseSchema") or config.get("responseJsonSchema") or {}
    items = schema.get("properties", {}).get("captions", {})
    return {
        "model": model.removeprefix("models/"),
        "words": words,
        "images": images,
        "video": video,
        "expected": int(items.get("minItems", 1)),
        "max_tokens": int(config.get("maxOutputTokens", 8192)),
        "tokens_in": tokens + text_tokens(words),
    }


def camel(value: Any) -> Any:
    """Names as the format's JSON has them: it takes `mime_type` for `mimeType`, and the client sends some so."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if isinstance(value, dict):
        return {re.sub("_([a-z])", lambda m: m[1].upper(), name): camel(item) for name, item in value.items()}
    return value


def said(received: Received, captions: Sequence[str], thoughts: int = 0) -> Reply:
    """An answer with captions."""
    return answer(received, json.dumps({"captions": list(captions)}, ensure_ascii=False), thoughts=thoughts)


def answer(received: Received, text: str, finish: str = "STOP", thoughts: int = 0) -> Reply:
    """An answer with this text; it counts its tokens into `received`."""
    told = text_tokens(text)
    received.tokens_out = told + thoughts
    candidate: dict[str, Any] = {"finishReason": finish, "index": 0}
    candidate["content"] = {"role": "model", **({"parts": [{"text": text}]} if text else {})}
    if finish == "SAFETY":
        candidate["safetyRatings"] = [
            {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
        ]
    return Reply(status=200, body={"candidates": [candidate], **_usage(received, told, thoughts)})


def blocked(received: Received, reason: str = "PROHIBITED_CONTENT") -> Reply:
    """The prompt is refused: no candidate at all."""
    received.tokens_out = 0
    return Reply(status=200, body={"promptFeedback": {"blockReason": reason}, **_usage(received, 0, 0)})


def _usage(received: Received, told: int, thoughts: int) -> dict[str, Any]:
    usage = {
        "promptTokenCount": received.tokens_in,
        "candidatesTokenCount": told,
        "totalTokenCount": received.tokens_in + told + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": text_tokens(received.words)}],
    }
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    if not told:
        del usage["candidatesTokenCount"]
    return {"usageMetadata": usage, "modelVersion": received.model, "responseId": "loopback"}


def error(status: int, message: str, details: Sequence[dict[str, Any]] = ()) -> Reply:
    """An error as google.rpc writes it."""
    body: dict[str, Any] = {"code": status, "message": message, "status": STATUS.get(status, "UNKNOWN")}
    if details:
        body["details"] = list(details)
    return Reply(status=status, body={"error": body})


def bad_key() -> Reply:
    """What a wrong key gets: 400, not 401."""
    info = {"@type": TYPES + "ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
    return error(400, "API key not valid. Please pass a valid API key.", [info])


def quota(per: str, retry_s: float | None) -> Reply:
    """Too many requests: `per` is Minute or Day."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": f"GenerateRequestsPer{per}PerProjectPerModel-FreeTier",
        "quotaValue": "50",
    }
    details: list[dict[str, Any]] = [{"@type": TYPES + "QuotaFailure", "violations": [violation]}]
    if retry_s is not None:
        details.append({"@type": TYPES + "RetryInfo", "retryDelay": f"{retry_s:g}s"})
    return error(429, "You exceeded your current quota, please check your plan and billing details.", details)
