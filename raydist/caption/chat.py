"""Any server that speaks OpenAI's chat completions, through the openai client: OpenAI, vLLM, Ollama and others.

Promise   one request an ask: the client's retries are off, redirects not followed
Images    frames go as `data:` URLs at low detail, which OpenAI bills alike whatever their size; others do not mind
Fallback  a server that refuses a part of the format (`response_format`, the limit's name, `reasoning_effort`) is asked
          without it from then on; words that are no JSON are the caption, where one is wanted
Source    platform.openai.com/docs/api-reference/chat; docs.vllm.ai, openai_compatible_server
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raydist.caption.asking import Access, Answer, Ask, AskError, Provider
from raydist.caption.faults import Fault, failed, retry_after_s, shown
from raydist.caption.keys import base_url, key_to_send, needs_key, silence_clients
from raydist.caption.loop import Loop
from raydist.caption.said import captions_in

if TYPE_CHECKING:
    import openai

MAX_BYTES = 35_000_000
"""Of the media of a request: OpenAI takes 50 MB with all in base64; other servers have limits of their own."""

_THINKING_TOKENS = 4_096
_REASONS = re.compile(r"(?:o\d|gpt-(?:[5-9]|\d\d))")
_ABOUT = {
    "format": re.compile(r"response_format|json_schema|json_object|schema|structured|guided|grammar", re.IGNORECASE),
    "effort": re.compile(r"reasoning|effort", re.IGNORECASE),
}
_PLAIN = 'Answer with JSON alone: {{"captions": [...]}} with exactly {count} strings, without any other words.'


class Chat(Provider):
    """One model of a server. Used by several threads at once."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._style = Style(access)
        self._loop = Loop("openai")
        self._client = _client_of(access)

    def __reduce__(self) -> tuple[type[Chat], tuple[Access]]:
        """Whoever unpickles it takes the key from the environment there."""
        return type(self), (self._access,)

    def ask(self, ask: Ask) -> Answer:
        """Make one request, once."""
        if ask.media.clip:
            raise ValueError(f"{ask.name}: a clip for an OpenAI-compatible server, which takes frames")
        size = sum(map(len, ask.media.frames))
        if size > MAX_BYTES:
            raise AskError("too_big", f"{ask.name}: {size:,} bytes of pictures; expected {MAX_BYTES:,} at most")
        body = self._style.body(ask)
        try:
            return self._style.answer(self._completed(body), ask)
        except AskError as error:
            raise self._style.learnt(body, error) from None

    def most_tokens(self, ask: Ask) -> int:
        """The limit that the answer is given."""
        return self._style.most_tokens(ask)

    def _completed(self, body: dict[str, Any]) -> dict[str, Any]:
        import openai

        failure: AskError
        try:
            completion = self._loop.run(self._client.chat.completions.create(**body), self._access.timeout_s)
            if isinstance(completion, openai.BaseModel):
                return completion.model_dump(mode="json", warnings=False)
            failure = AskError("server", f"{self._who()} answered 200 with no JSON: {shown(str(completion))}")
        except (openai.OpenAIError, TimeoutError, OSError, ValueError) as error:
            failure = self._ask_error(error)
        raise failure  # outside of `except`: the client's error, which holds the request, does not go along

    def _who(self) -> str:
        return f"{shown(base_url(self._access) or 'OpenAI')} ({self._access.model})"

    def _ask_error(self, error: Exception) -> AskError:
        """What the client raised, in our words."""
        import openai

        if isinstance(error, openai.APIStatusError):
            found = failed(self._who(), _fault(error))
            if error.status_code in (404, 405):
                hint = "expected a model that the server has, and a caption.base_url such as http://localhost:8000/v1"
                return AskError("fatal", f"{found.detail}; {hint}")
            return found
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return AskError("timeout", f"{self._who()} did not answer within {self._access.timeout_s:g} s")
        cause = error.__cause__ or error
        if isinstance(error, openai.APIConnectionError):
            named = f"{type(cause).__name__} {shown(str(cause))}"
            if type(cause).__name__ in ("InvalidURL", "UnsupportedProtocol"):
                return AskError("fatal", f"caption.base_url={shown(base_url(self._access))!r}: {named}")
            return AskError("connection", f"the connection to {self._who()} broke: {named}")
        if isinstance(error, OSError):
            return AskError("connection", f"the connection to {self._who()} broke: {shown(str(error))}")
        return AskError("server", f"{self._who()} answered 200 with no JSON: {shown(str(error))}")


class Style:
    """How one server wants to be asked: what it refused once is not said again. Used by several threads at once."""

    def __init__(self, access: Access) -> None:
        self._model = access.model
        own = needs_key(access)
        self._limit = "max_completion_tokens" if own else "max_tokens"  # other servers know the older name, all of them
        self._effort = own and bool(_REASONS.match(access.model))
        self._format = True
        self._thinks = self._effort
        self._lock = threading.Lock()

    def most_tokens(self, ask: Ask) -> int:
        """Of an answer, thoughts included."""
        return ask.max_tokens + (_THINKING_TOKENS if self._thinks else 0)

    def body(self, ask: Ask) -> dict[str, Any]:
        """A request."""
        parts: list[dict[str, Any]] = []
        for data in ask.media.frames:
            url = "data:image/jpeg;base64," + base64.b64encode(data).decode()
            parts.append({"type": "image_url", "image_url": {"url": url, "detail": "low"}})
        with self._lock:
            limit, effort, formatted, thinks = self._limit, self._effort, self._format, self._thinks
        words = ask.words if formatted else f"{ask.words}\n{_PLAIN.format(count=ask.captions)}"
        parts.append({"type": "text", "text": words})
        body: dict[str, Any] = {"model": self._model, "messages": [{"role": "user", "content": parts}]}
        body[limit] = ask.max_tokens + (_THINKING_TOKENS if thinks else 0)
        if effort:
            body["reasoning_effort"] = "low"
        if formatted:
            schema = {
                "type": "object",
                "properties": {"captions": _strings(ask.captions)},
                "required": ["captions"],
                "additionalProperties": False,
            }
            named = {"name": "captions", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body

    def learnt(self, body: Mapping[str, Any], error: AskError) -> AskError:
        """The error to pass on: one about the way of asking passes, and the next request leaves that out."""
        # Some servers fail (500) over a schema that they cannot follow.
        if error.kind != "clip" and " answered 50" not in error.detail:
            return error
        with self._lock:
            if "reasoning_effort" in body and _ABOUT["effort"].search(error.detail):
                self._effort = False
            elif self._about_limit(body, error):
                known = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
                self._limit = next(known[name] for name in known if name in body)
            elif "response_format" in body and _ABOUT["format"].search(error.detail):
                self._format = False
            else:
                return error
        return AskError("server", f"{error.detail}; asked without it from now on", retry_after_s=0.0)

    @staticmethod
    def _about_limit(body: Mapping[str, Any], error: AskError) -> bool:
        sent = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
        unknown = re.search(r"unsupported|not supported|unrecogni[sz]ed|unknown|extra", error.detail, re.IGNORECASE)
        return bool(unknown and re.search(rf"\b{sent}\b", error.detail))

    def answer(self, completion: Mapping[str, Any], ask: Ask) -> Answer:
        """The captions of a completion.

        Raises:
            AskError: there are none.
        """
        usage = completion.get("usage") or {}
        tokens_in, tokens_out = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        try:
            # Some servers take `response_format` and do not mind it.
            captions = captions_in(self._text(completion), ask.captions, plain=True)
        except AskError as error:
            # What could not be used was paid for all the same.
            raise AskError(error.kind, error.detail, tokens_in=tokens_in, tokens_out=tokens_out) from None
        return Answer(captions=captions, tokens_in=tokens_in, tokens_out=tokens_out)

    def _text(self, completion: Mapping[str, Any]) -> str:
        choices = completion.get("choices")
        if not choices:
            raise AskError("server", f"the answer has no choices: {shown(json.dumps(completion, default=str))}")
        message, finish = choices[0].get("message") or {}, str(choices[0].get("finish_reason") or "stop")
        text = message.get("content") or ""
        if message.get("refusal"):
            raise AskError("refused", f"the model declined: {shown(str(message['refusal']))!r}")
        if finish == "content_filter":
            raise AskError("refused", "the answer was blocked: content_filter")
        if finish == "length":
            thinking = "reasoning" in str(sorted(message)) or "<think" in text
            self._thinks = self._thinks or thinking
            raise AskError("bad_answer", "the answer was cut off at the limit of its tokens" + ", thinking" * thinking)
        if not text.strip():
            raise AskError("bad_answer", f"the answer has no text (finish reason {shown(finish)})")
        return text


def _strings(count: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}


def _client_of(access: Access) -> openai.AsyncOpenAI:
    import httpx2
    import openai

    silence_clients()
    http = httpx2.AsyncClient(
        timeout=access.timeout_s,
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=15.0),
    )
    return openai.AsyncOpenAI(
        api_key=key_to_send(access),
        base_url=base_url(access) or None,
        timeout=access.timeout_s,
        max_retries=0,
        http_client=http,
    )


def _fault(error: openai.APIStatusError) -> Fault:
    body = error.body if isinstance(error.body, dict) else {}
    message = str(body.get("message") or error.body or error.message)
    return Fault(
        status=error.status_code,
        word=str(body.get("code") or body.get("type") or ""),
        message=message,
        body=json.dumps(body, default=str),
        retry_after_s=retry_after_s(error.response.headers),
    )
