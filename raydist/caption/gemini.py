"""Gemini through google-genai: frames or a clip in, captions by a schema out.

Promise   one request an ask: the client's retries, continuations and function calls are off, redirects not followed
Limits    a request has 20 MB with its media in base64; larger clips are refused here (`MAX_BYTES`)
Source    ai.google.dev/gemini-api/docs: structured-output, thinking, media-resolution, video-understanding, rate-limits
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raydist.caption.asking import Access, Answer, Ask, AskError, Provider
from raydist.caption.faults import Fault, duration_s, failed, retry_after_s, shown
from raydist.caption.keys import base_url, key_to_send, silence_clients
from raydist.caption.loop import Loop
from raydist.caption.said import captions_in

if TYPE_CHECKING:
    from google import genai

MAX_BYTES = 14_000_000
"""Of the media of a request: 18.7 MB in base64."""

_API_VERSION = "v1beta"  # the one that has schemas, thinking and jobs for all models; the client's own choice changes
_THINKING_TOKENS = 4_096
"""More than the answer's tokens: the limit of an answer counts thoughts too, and ends them in the middle."""

_REFUSED = {
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION", "LANGUAGE", "ESCALATION", "MODEL_ARMOR",
}  # fmt: skip
_ABOUT_THINKING = re.compile(r"thinking|thought|budget", re.IGNORECASE)
_ABOUT_RESOLUTION = re.compile(r"media[ _]?resolution", re.IGNORECASE)
_RETRY_IN = re.compile(r"retry in ([\d.]+s)")

Thinking = Mapping[str, Any] | None


class Gemini(Provider):
    """One model of Gemini. Used by several threads at once."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._style = Style(access.model)
        self._loop = Loop("gemini")
        self._client = client_of(access)

    def __reduce__(self) -> tuple[type[Gemini], tuple[Access]]:
        """Whoever unpickles it takes the key from the environment there."""
        return type(self), (self._access,)

    def ask(self, ask: Ask) -> Answer:
        """Make one request, once."""
        size = len(ask.media.clip) + sum(map(len, ask.media.frames))
        if size > MAX_BYTES:
            raise AskError("too_big", f"{ask.name}: {size:,} bytes of media; Gemini takes {MAX_BYTES:,} in a request")
        told = self._style.generation(ask)
        try:
            response = self._generated(ask, told)
        except AskError as error:
            raise self._style.learnt(told, error) from None
        return answer_of(response, ask.captions, self._style, told)

    def most_tokens(self, ask: Ask) -> int:
        """The limit that the answer is given."""
        return self._style.most_tokens(ask)

    def _generated(self, ask: Ask, told: Mapping[str, Any]) -> dict[str, Any]:
        from google.genai import types

        parts = [types.Part.from_bytes(data=data, mime_type="image/jpeg") for data in ask.media.frames]
        if ask.media.clip:
            parts.append(types.Part.from_bytes(data=ask.media.clip, mime_type="video/mp4"))
        parts.append(types.Part.from_text(text=ask.words))
        config = types.GenerateContentConfig.model_validate(dict(told))
        config.automatic_continuation = False
        config.automatic_function_calling = types.AutomaticFunctionCallingConfig(disable=True)
        failure: AskError
        try:
            response = self._loop.run(
                self._client.aio.models.generate_content(
                    model=self._access.model, contents=[types.Content(role="user", parts=parts)], config=config
                ),
                self._access.timeout_s,
            )
            return response.model_dump(mode="json", by_alias=True, exclude_none=True)
        except exceptions() as error:
            failure = ask_error(error, self._access)
        raise failure  # outside of `except`: the client's error, which holds the request, does not go along


class Style:
    """How one model wants to be asked: what it refused once is not said again. Used by several threads at once."""

    def __init__(self, model: str) -> None:
        name = model.rpartition("/")[2]
        self._third = bool(re.match(r"gemini-(?:[3-9]|[a-z])", name))
        self._rungs = _rungs(name)
        self._resolution = True
        self._lock = threading.Lock()
        self._thinks = False

    def generation(self, ask: Ask) -> dict[str, Any]:
        """`generationConfig` of a request, as JSON."""
        with self._lock:
            thinking, resolution = self._rungs[0], self._resolution
            room = _THINKING_TOKENS if self._thinks or self._may_think(thinking) else 0
        captions = {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": ask.captions, "maxItems": ask.captions}
        told: dict[str, Any] = {
            "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"captions": captions}, "required": ["captions"]},
            "maxOutputTokens": ask.max_tokens + room,
        }
        if thinking:
            told["thinkingConfig"] = dict(thinking)
        # A second of video has 66 tokens then instead of 258. For pictures, the third generation's least is what the
        # second one has by itself; its own choice is four times as much.
        if resolution and (ask.media.clip or self._third):
            told["mediaResolution"] = "MEDIA_RESOLUTION_LOW"
        return told

    def most_tokens(self, ask: Ask) -> int:
        """Of an answer, thoughts included."""
        return int(self.generation(ask)["maxOutputTokens"])

    def learnt(self, told: Mapping[str, Any], error: AskError) -> AskError:
        """The error to pass on: one about the way of asking passes, and the next request leaves that out."""
        if error.kind != "clip":
            return error
        thinking = told.get("thinkingConfig")
        if thinking is not None and _ABOUT_THINKING.search(error.detail):
            with self._lock:
                if self._rungs[0] == thinking:
                    self._rungs = self._rungs[1:]
        elif "mediaResolution" in told and _ABOUT_RESOLUTION.search(error.detail):
            self._resolution = False
        else:
            return error
        return AskError("server", f"{error.detail}; asked without it from now on", retry_after_s=0.0)

    def thought(self) -> None:
        """It thinks, whatever it was told: answers get room for that."""
        self._thinks = True

    def _may_think(self, thinking: Thinking) -> bool:
        return (thinking is None and len(_rungs("gemini-") if self._third else self._rungs) > 1) or bool(
            thinking and thinking.get("thinkingBudget") != 0
        )


def _rungs(name: str) -> tuple[Thinking, ...]:
    """Ways to have a model think little, the best one first; the last one says nothing of it."""
    if name.startswith("gemini-2.5-pro"):
        return {"thinkingBudget": 128}, None
    if name.startswith("gemini-2.5"):
        return {"thinkingBudget": 0}, None
    if re.match(r"gemini-(?:[3-9]|[a-z]|$)", name):
        return {"thinkingLevel": "MINIMAL"}, {"thinkingLevel": "LOW"}, None
    return (None,)


def client_of(access: Access) -> genai.Client:
    """The client of a provider's server, or of one that speaks as it does."""
    import httpx2
    from google import genai
    from google.genai import types

    silence_clients()
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=15.0)
    options = types.HttpOptions(
        base_url=base_url(access) or None,
        api_version=os.environ.get("GOOGLE_GENAI_API_VERSION") or _API_VERSION,
        timeout=max(1, round(access.timeout_s * 1000)),
        # Clients of our own, as the library's own ones follow redirects with the key. On the asynchronous side it would
        # take aiohttp where that is there, and try a reset connection again in secret, after some seconds.
        httpx_client=httpx2.Client(timeout=access.timeout_s, follow_redirects=False, limits=limits),
        httpx_async_client=httpx2.AsyncClient(timeout=access.timeout_s, follow_redirects=False, limits=limits),
    )
    return genai.Client(api_key=key_to_send(access), vertexai=False, http_options=options)


def exceptions() -> tuple[type[Exception], ...]:
    """What the client raises when there is no answer."""
    import httpx2
    from google.genai import errors

    return (errors.APIError, httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError, ValueError)


def ask_error(error: Exception, access: Access) -> AskError:
    """What the client raised, in our words."""
    import httpx2
    from google.genai import errors

    if isinstance(error, errors.APIError):
        return failed(f"Gemini ({access.model})", _fault(error))
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return AskError("timeout", f"Gemini ({access.model}) did not answer within {access.timeout_s:g} s")
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        return AskError("fatal", f"caption.base_url={shown(base_url(access))!r}: {shown(str(error))}")
    if isinstance(error, ValueError):
        return AskError("server", f"Gemini ({access.model}) answered 200 with no JSON: {shown(str(error))}")
    where = base_url(access) or "the provider"
    return AskError("connection", f"the connection to {shown(where)} broke: {type(error).__name__} {shown(str(error))}")


def _fault(error: Any) -> Fault:
    said = error.details if isinstance(error.details, dict) else {}
    body = said.get("error", said)
    details = body.get("details", []) if isinstance(body, dict) else []
    message = str(error.message or "")
    told = [detail["retryDelay"] for detail in details if isinstance(detail, dict) and "retryDelay" in detail]
    told += _RETRY_IN.findall(message)
    after = retry_after_s(error.response.headers) if error.response is not None else None
    if after is None and told:
        after = duration_s(str(told[0]))
    return Fault(
        status=int(error.code or 0),
        word=str(error.status or ""),
        message=message,
        body=json.dumps(details, default=str),
        retry_after_s=after,
    )


def answer_of(response: Mapping[str, Any], wanted: int, style: Style, told: Mapping[str, Any]) -> Answer:
    """The captions of a response, as JSON.

    Args:
        told: its `generationConfig`.

    Raises:
        AskError: there are none.
    """
    usage = response.get("usageMetadata", {})
    thoughts = int(usage.get("thoughtsTokenCount", 0))
    tokens_in = int(usage.get("promptTokenCount", 0)) + int(usage.get("toolUsePromptTokenCount", 0))
    tokens_out = int(usage.get("candidatesTokenCount", 0)) + thoughts
    try:
        captions = captions_in(_text(response, style, thoughts, told), wanted)
    except AskError as error:
        # What could not be used was paid for all the same.
        raise AskError(error.kind, error.detail, tokens_in=tokens_in, tokens_out=tokens_out) from None
    return Answer(captions=captions, tokens_in=tokens_in, tokens_out=tokens_out)


def _text(response: Mapping[str, Any], style: Style, thoughts: int, told: Mapping[str, Any]) -> str:
    blocked = response.get("promptFeedback", {}).get("blockReason")
    if blocked:
        raise AskError("refused", f"Gemini blocked the request: {shown(str(blocked))}")
    candidates = response.get("candidates") or [{}]
    finish = str(candidates[0].get("finishReason", "STOP"))
    if finish in _REFUSED:
        raise AskError("refused", f"Gemini ended its answer: {finish}")
    if finish == "PUP_LIMITED_DISABLED":
        raise AskError("fatal", f"Gemini has limited this account: {finish}")
    if finish == "MAX_TOKENS":
        if thoughts:
            style.thought()
        used = f" ({thoughts:,} of them were thoughts)" if thoughts else ""
        raise AskError("bad_answer", f"the answer was cut off at {told.get('maxOutputTokens', 0):,} tokens{used}")
    parts = candidates[0].get("content", {}).get("parts", [])
    text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
    if not text.strip():
        raise AskError("bad_answer", f"Gemini gave no text (finish reason {shown(finish)})")
    return text
