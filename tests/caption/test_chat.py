"""Servers that speak OpenAI's API, through the real client, on loopback."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Iterator
from itertools import pairwise

import pytest
from asks import KEY, asked, fails, in_threads
from llm_server import LLMServer, caption_of

from raydist.caption import providers
from raydist.caption.asking import Access, AskError, Provider
from raydist.caption.chat import Style
from raydist.caption.providers import require
from raydist.caption.said import captions_in
from raydist.errors import ProviderError, UsageError

MODEL = "gpt-4.1-mini"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer() as running:
        yield running


def loaded(server: LLMServer, model: str = MODEL, timeout_s: float = 10.0) -> Provider:
    return providers.load(Access(provider="openai", model=model, base_url=f"{server.url}/v1", timeout_s=timeout_s))


def test_frames_go_out_in_order_and_the_captions_come_back(server: LLMServer) -> None:
    ask = asked(3, frames=8, captions=2, words="Tell what happens.")
    answer = loaded(server).ask(ask)
    (received,) = server.received
    assert received.images == list(ask.media.frames)
    assert received.words == "Tell what happens."
    assert received.key == KEY
    assert received.expected == 2
    assert received.max_tokens == 200
    assert answer.captions == (caption_of(ask.media.frames), caption_of(ask.media.frames, number=1))
    assert (answer.tokens_in, answer.tokens_out) == server.billed
    assert answer.tokens_in == 8 * 85 + 5


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("rate", "rate", "429 rate_limit_exceeded"),
        ("day", "fatal", "429 insufficient_quota"),
        ("server", "server", "500"),
        ("unavailable", "server", "503"),
        ("gateway", "server", "502"),
        ("garbage", "server", "no JSON"),
        ("redirect", "fatal", "307"),
        ("reset", "connection", "broke"),
        ("cut", "connection", "broke"),
        ("invalid", "clip", "400"),
        ("too_big", "too_big", "413"),
        ("broken", "bad_answer", "no JSON with captions"),
        ("max_tokens", "bad_answer", "cut off"),
        ("few", "bad_answer", "0 captions instead of 1"),
    ],
)
def test_each_fault_is_told_by_its_kind_after_one_request(server: LLMServer, fault: str, kind: str, said: str) -> None:
    server.plan.append(fault)
    provider = loaded(server)
    error = fails(provider)
    assert (error.kind, len(server.received)) == (kind, 1)
    assert said in error.detail
    if kind == "bad_answer":
        assert (error.tokens_in, error.tokens_out) == (server.received[0].tokens_in, server.received[0].tokens_out)
    assert provider.ask(asked()).captions  # it goes on


def test_every_way_to_decline_is_refused(server: LLMServer) -> None:
    provider = loaded(server)
    server.plan.extend(["refusal"] * 12)
    told: set[object] = set()
    for number in range(12):
        try:
            told.add(provider.ask(asked(number)).captions[0])
        except AskError as error:
            told.add((error.kind, error.detail, error.tokens_in == server.received[-1].tokens_in))
    assert told == {
        ("refused", "the model declined: \"I'm sorry, I can't help with that.\"", True),
        ("refused", "the answer was blocked: content_filter", True),
        "I'm sorry, I can't help with that.",  # as a caption, for the judge
    }


@pytest.mark.parametrize(("form", "least", "most"), [("seconds", 7, 7), ("date", 5.5, 7.5), ("", None, None)])
def test_when_to_come_again_is_read_in_every_form(form: str, least: float | None, most: float | None) -> None:
    with LLMServer(faults={"rate": 1}, retry_after_s=7, retry_after=form) as server:
        waits = fails(loaded(server)).retry_after_s
    if least is None or most is None:
        assert waits is None
    else:
        assert waits is not None
        assert least <= waits <= most


@pytest.mark.parametrize("fault", ["timeout", "slow"])
def test_an_answer_has_a_deadline_even_when_its_bytes_dribble(fault: str) -> None:
    with LLMServer(faults={fault: 1}, slow_s=30) as server:
        provider = loaded(server, timeout_s=0.6)
        began = time.monotonic()
        error = fails(provider)
        assert time.monotonic() - began < 2.5
        assert (error.kind, len(server.received)) == ("timeout", 1)


def test_sixty_four_threads_share_a_provider_and_reuse_its_connections(server: LLMServer) -> None:
    provider = loaded(server, timeout_s=60)

    def work(thread: int) -> None:
        for number in range(5):
            ask = asked(thread * 5 + number)
            assert provider.ask(ask).captions == (caption_of(ask.media.frames),)

    assert not in_threads(64, work)
    assert len(server.received) == len({received.content for received in server.received}) == 320
    assert len({received.connection for received in server.received}) <= 64


def test_a_server_without_response_format_is_asked_in_words_from_then_on() -> None:
    with LLMServer(formats=False) as server:
        provider = loaded(server)
        error = fails(provider, asked(1, captions=2))
        assert (error.kind, error.retry_after_s) == ("server", 0.0)
        assert "without it from now on" in error.detail
        for number in (1, 2, 3):
            ask = asked(number, captions=2)
            assert provider.ask(ask).captions == tuple(caption_of(ask.media.frames, number=n) for n in (0, 1))
        assert len(server.received) == 4
        server.plan.append("fenced")
        assert provider.ask(asked(4)).captions == (caption_of(asked(4).media.frames),)


def test_a_server_that_takes_no_notice_of_the_format_may_answer_in_plain_words() -> None:
    with LLMServer(faults={"words": 1}) as server:
        assert loaded(server).ask(asked()).captions == (caption_of(asked().media.frames),)
        assert fails(loaded(server), asked(captions=2)).kind == "bad_answer"


def test_a_password_in_the_address_is_not_shown(server: LLMServer) -> None:
    url = server.url.replace("://", "://me:hush@") + "/v1"
    server.plan.extend(["server", "reset"])
    provider = providers.load(Access(provider="openai", model="m", base_url=url))
    for _ in range(2):
        assert "://***@127.0.0.1" in fails(provider).detail


def test_many_threads_learn_at_once_what_a_server_refuses() -> None:
    with LLMServer(formats=False, latency_s=0.1) as server:
        provider = loaded(server)

        def work(thread: int) -> None:
            for _ in range(3):
                try:
                    assert provider.ask(asked(thread)).captions
                except AskError as error:
                    assert error.retry_after_s == 0.0  # noqa: PT017 - of some of many
                else:
                    return
            raise AssertionError("refused three times")

        assert not in_threads(16, work)


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch, server: LLMServer) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert loaded(server, "Qwen/Qwen3-VL-8B-Instruct").ask(asked()).captions
    assert server.received[0].model == "Qwen/Qwen3-VL-8B-Instruct"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    assert providers.load(Access(provider="openai", model="m")).ask(asked()).captions
    monkeypatch.delenv("OPENAI_BASE_URL")
    for url in ("", "https://api.openai.com/v1"):
        with pytest.raises(ProviderError, match="environment variable OPENAI_API_KEY, on every machine"):
            providers.require(Access(provider="openai", model="m", base_url=url))


def test_a_wrong_key_and_an_unknown_model_are_fatal() -> None:
    with LLMServer(keys=["another"]) as server:
        error = fails(loaded(server))
        assert error.kind == "fatal"
        assert "401 invalid_api_key: Incorrect API key provided: ***." in error.detail
    with LLMServer(models=["another"]) as server:
        error = fails(loaded(server))
        assert error.kind == "fatal"
        assert "404" in error.detail
        assert "http://localhost:8000/v1" in error.detail


@pytest.mark.parametrize("fault", ["rate", "day", "server", "gateway", "invalid", "too_big", "key"])
def test_a_server_that_repeats_the_key_does_not_bring_it_out(
    fault: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    with LLMServer(echo=True, keys=["another"] if fault == "key" else None) as server:
        server.plan.append(fault)
        provider = loaded(server)
        error = fails(provider)
        shown = [error.detail, str(error), repr(error), "".join(traceback.format_exception(error)), repr(provider)]
        shown += [str(error.__dict__), str(error.__cause__), str(error.__context__), caplog.text, *capfd.readouterr()]
        assert KEY not in "".join(shown)
        assert KEY.encode() not in pickle.dumps(provider)
        assert pickle.loads(pickle.dumps(provider)).ask is not None


def test_models_that_reason_get_room_and_are_told_to_think_little() -> None:
    own = Style(Access(provider="openai", model="gpt-5-mini"))
    body = own.body(asked())
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("low", 200 + 4_096)
    refused = AskError("clip", "OpenAI answered 400: Unsupported value: 'reasoning_effort' does not support 'low'")
    assert own.learnt(body, refused).retry_after_s == 0.0
    assert "reasoning_effort" not in own.body(asked())
    assert "max_completion_tokens" in Style(Access(provider="openai", model="gpt-4.1")).body(asked())
    other = Style(Access(provider="openai", model="llava", base_url="http://localhost:11434/v1"))
    assert other.body(asked())["max_tokens"] == 200


def test_the_older_name_of_the_limit_is_changed_when_a_server_refuses_it() -> None:
    style = Style(Access(provider="openai", model="m", base_url="http://localhost:1/v1"))
    body = style.body(asked())
    said = "answered 400: Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    assert style.learnt(body, AskError("clip", said)).kind == "server"
    again = style.body(asked())
    assert "max_tokens" not in again
    assert again["max_completion_tokens"] == 200


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ('{"captions": ["A dog runs."]}', ("A dog runs.",)),
        ('{"captions": ["A dog runs.", "A dog."]}', ("A dog runs.",)),
        ('{"captions": "A dog runs."}', ("A dog runs.",)),
        ('["A dog runs."]', ("A dog runs.",)),
        ('Here [1]:\n```json\n{"captions": ["A {dog} runs."]}\n```\nBye', ("A {dog} runs.",)),
        ('<think>Is it {"captions": ["a cat"]}?</think>{"captions": ["A dog\nruns."]}', ("A dog\nruns.",)),
        ("A dog runs.", ("A dog runs.",)),
        ('{"captions": ["A dog \\ud83d runs."]}', ("A dog ? runs.",)),
    ],
)
def test_captions_are_found_in_what_models_write(text: str, captions: tuple[str, ...]) -> None:
    assert captions_in(text, 1, plain=True) == captions


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"captions": ["A dog ru', "bad_answer"),
        ('```json\n{"captions": ["A dog ru', "bad_answer"),
        ('{"captions": []}', "bad_answer"),
        ('{"captions": [7]}', "bad_answer"),
        ('{"error": "no"}', "bad_answer"),
        ("<think>so long", "bad_answer"),
        ("[" * 100_000, "bad_answer"),
        ('Here you go: {"captions": ["A dog ru', "bad_answer"),
        ("captions: A dog", "bad_answer"),
        ("I'm sorry, but I can't help with that.", "refused"),
    ],
)
def test_what_is_no_caption_is_none(text: str, kind: str) -> None:
    with pytest.raises(AskError) as caught:
        captions_in(text, 1, plain=True)
    assert caught.value.kind == kind
    assert len(caught.value.detail) < 400


def test_requests_follow_each_other_on_one_connection(server: LLMServer) -> None:
    provider = loaded(server)
    for number in range(4):
        provider.ask(asked(number))
    assert all(one.connection == other.connection for one, other in pairwise(server.received))


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "htp://x", "http://", "http://[::1", "http://127.0.0.1:99999/v1", "file:///etc/hosts"]
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(UsageError, match="expected an address such as http://localhost:8000/v1"):
        require(Access(provider="openai", model="m", base_url=url))
