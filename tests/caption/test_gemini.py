"""Gemini through its real client, against a server on loopback."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from asks import KEY, asked, fails, in_threads
from llm_server import LLMServer, caption_of
from videos import encode

from raydist.caption import providers
from raydist.caption.asking import Access, AskError, Provider
from raydist.errors import ProviderError, UsageError

MODEL = "gemini-2.5-flash"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "OPENAI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer() as running:
        yield running


def loaded(server: LLMServer, model: str = MODEL, timeout_s: float = 10.0) -> Provider:
    return providers.load(Access(provider="gemini", model=model, base_url=server.url, timeout_s=timeout_s))


def test_frames_go_out_in_order_and_captions_come_back_with_their_tokens(server: LLMServer) -> None:
    ask = asked(3, frames=8, captions=2, words="Tell what happens.")
    answer = loaded(server).ask(ask)
    (received,) = server.received
    assert received.images == list(ask.media.frames)
    assert received.words == "Tell what happens."
    assert received.key == KEY
    assert received.model == MODEL
    assert received.expected == 2
    assert answer.captions == (caption_of(ask.media.frames), caption_of(ask.media.frames, number=1))
    assert (answer.tokens_in, answer.tokens_out) == server.billed
    assert answer.tokens_in == 8 * 258 + 5
    assert received.body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 0}
    assert received.max_tokens == 200


def test_a_clip_goes_out_whole_at_low_resolution(server: LLMServer, tmp_path: Path) -> None:
    clip = encode(tmp_path / "a.mp4", count=50).read_bytes()
    answer = loaded(server).ask(asked(clip=clip))
    (received,) = server.received
    assert received.video == clip
    assert answer.captions == (caption_of([], clip),)
    assert answer.tokens_in == 2 * 66 + 2
    assert received.body["generationConfig"]["mediaResolution"] == "MEDIA_RESOLUTION_LOW"


def test_the_third_generation_sees_frames_for_what_the_second_asked(server: LLMServer) -> None:
    answer = loaded(server, "gemini-3.5-flash").ask(asked(frames=8))
    assert answer.tokens_in == 8 * 280 + 2
    config = server.received[0].body["generationConfig"]
    assert config["thinkingConfig"] == {"thinkingLevel": "MINIMAL"}
    assert config["maxOutputTokens"] > 4_000  # thoughts count


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("rate", "rate", "429 RESOURCE_EXHAUSTED"),
        ("day", "fatal", "429"),
        ("server", "server", "500 INTERNAL"),
        ("unavailable", "server", "503 UNAVAILABLE"),
        ("gateway", "server", "502"),
        ("garbage", "server", "no JSON"),
        ("redirect", "fatal", "307"),
        ("reset", "connection", "broke"),
        ("cut", "connection", "broke"),
        ("invalid", "clip", "400 INVALID_ARGUMENT: Unable to process input image"),
        ("too_big", "too_big", "413"),
        ("broken", "bad_answer", "no JSON with captions"),
        ("max_tokens", "bad_answer", "cut off at 200 tokens"),
        ("few", "bad_answer", "0 captions instead of 1"),
    ],
)
def test_each_fault_is_told_by_its_kind_after_one_request(server: LLMServer, fault: str, kind: str, said: str) -> None:
    server.plan.append(fault)
    provider = loaded(server)
    error = fails(provider)
    assert (error.kind, len(server.received)) == (kind, 1)
    assert said in error.detail
    assert provider.ask(asked()).captions  # it goes on


def test_answers_that_cannot_be_used_tell_what_they_cost(server: LLMServer) -> None:
    provider = loaded(server)
    for fault in ("broken", "max_tokens", "few"):
        server.plan.append(fault)
        error = fails(provider)
        received = server.received[-1]
        assert (error.tokens_in, error.tokens_out) == (received.tokens_in, received.tokens_out)
        assert error.tokens_in > 500


def test_every_way_to_decline_is_refused_and_costs_what_it_says(server: LLMServer) -> None:
    provider = loaded(server)
    server.plan.extend(["refusal"] * 12)
    told: set[object] = set()
    for number in range(12):
        ask = asked(number)
        try:
            told.add(provider.ask(ask).captions[0])
        except AskError as error:
            told.add((error.kind, error.detail, error.tokens_in == server.received[-1].tokens_in))
    assert told == {
        ("refused", "Gemini blocked the request: PROHIBITED_CONTENT", True),
        ("refused", "Gemini ended its answer: SAFETY", True),
        "I'm sorry, I can't help with that.",  # as a caption, for the judge
    }


@pytest.mark.parametrize(
    ("form", "least", "most"), [("seconds", 7, 7), ("date", 5.5, 7.5), ("body", 7, 7), ("", None, None)]
)
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
        assert error.kind == "timeout"
        assert "within 0.6 s" in error.detail
        assert len(server.received) == 1


def test_a_slow_answer_that_ends_in_time_is_an_answer() -> None:
    with LLMServer(faults={"slow": 1}, slow_s=0.5) as server:
        assert loaded(server).ask(asked()).captions


def test_sixty_four_threads_share_a_provider_and_reuse_its_connections(server: LLMServer) -> None:
    provider = loaded(server, timeout_s=60)

    def work(thread: int) -> None:
        for number in range(5):
            ask = asked(thread * 5 + number)
            assert provider.ask(ask).captions == (caption_of(ask.media.frames),)

    assert not in_threads(64, work)
    assert len(server.received) == len({received.content for received in server.received}) == 320
    assert len({received.connection for received in server.received}) <= 64


@pytest.mark.parametrize(("model", "says"), [("gemini-2.5-flash", "always"), ("gemini-3.5-flash", "never")])
def test_a_model_that_refuses_to_think_little_is_asked_otherwise(model: str, says: str) -> None:
    with LLMServer(thinking=says) as server:
        provider = loaded(server, model)
        for _ in range(2):
            if says == "always" or server.received:
                break
            assert fails(provider).kind == "server"
        error = fails(provider)
        assert (error.kind, error.retry_after_s) == ("server", 0.0)
        assert provider.ask(asked()).captions
        assert "thinkingConfig" not in server.received[-1].body["generationConfig"]
        seen = len(server.received)
        assert provider.ask(asked()).captions
        assert len(server.received) == seen + 1  # remembered


def test_thoughts_are_counted_as_output() -> None:
    with LLMServer(thoughts=500) as server:
        answer = loaded(server).ask(asked())
        assert answer.tokens_out == server.billed[1] > 500


def test_a_model_that_thinks_all_the_same_gets_room_for_it() -> None:
    with LLMServer(thoughts=180) as server:
        server.plan.append("max_tokens")
        provider = loaded(server)
        assert "180 of them were thoughts" in fails(provider).detail
        assert provider.ask(asked()).captions
        assert server.received[-1].max_tokens > 4_000


def test_a_clip_beyond_the_limit_is_not_sent(server: LLMServer) -> None:
    error = fails(loaded(server), asked(clip=bytes(providers.MAX_BYTES["gemini"] + 1)))
    assert error.kind == "too_big"
    assert not server.received


def test_a_wrong_key_and_an_unknown_model_are_fatal() -> None:
    with LLMServer(keys=["another"], models=[MODEL]) as server:
        error = fails(loaded(server))
        assert (error.kind, error.detail) == (
            "fatal",
            "Gemini (gemini-2.5-flash) answered 400 INVALID_ARGUMENT: API key not valid. Please pass a valid API key.",
        )
    with LLMServer(models=["another"]) as server:
        error = fails(loaded(server))
        assert error.kind == "fatal"
        assert "404" in error.detail


def test_no_server_at_all_is_a_connection_that_may_come() -> None:
    with LLMServer() as server:
        provider = loaded(server)
    error = fails(provider)
    assert error.kind == "connection"
    assert error.may_pass


@pytest.mark.parametrize("fault", ["rate", "day", "server", "gateway", "invalid", "too_big", "key"])
def test_a_server_that_repeats_the_key_does_not_bring_it_out(
    fault: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    with LLMServer(echo=True, keys=["another"] if fault == "key" else None) as server:
        server.plan.append(fault if fault != "key" else "ok")
        provider = loaded(server)
        error = fails(provider)
        assert server.received or fault == "key"
        copied = pickle.loads(pickle.dumps(provider))
        shown = [error.detail, str(error), repr(error), "".join(traceback.format_exception(error)), repr(provider)]
        shown += [str(error.__dict__), str(error.__cause__), str(error.__context__), caplog.text, *capfd.readouterr()]
        assert KEY not in "".join(shown)
        assert KEY.encode() not in pickle.dumps(provider)
        assert "***" in error.detail or fault == "gateway"
        assert type(copied) is type(provider)


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(ProviderError, match=r"GEMINI_API_KEY \(or GOOGLE_API_KEY\)"):
        providers.require(Access(provider="gemini", model=MODEL))
    with pytest.raises(ProviderError, match="GEMINI_API_KEY"):
        providers.load(Access(provider="gemini", model=MODEL))
    with LLMServer() as server:  # one's own server needs none
        assert loaded(server).ask(asked()).captions
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        assert providers.load(Access(provider="gemini", model=MODEL)).ask(asked()).captions
        assert len(server.received) == 2


@pytest.mark.parametrize("key", ["two words", "two\nlines", "schlüssel"])
def test_a_key_that_cannot_be_one_is_told_without_showing_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", key)
    with pytest.raises(ProviderError, match=r"GEMINI_API_KEY.*expected the key alone") as caught:
        providers.load(Access(provider="gemini", model=MODEL))
    assert key not in str(caught.value)
    assert repr(key)[1:-1] not in str(caught.value)


def test_the_clients_other_settings_do_not_lead_away(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "1")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "another")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "nowhere")
    assert loaded(server).ask(asked()).captions


def test_what_cannot_work_is_told_before_anything_is_asked() -> None:
    with pytest.raises(UsageError, match=r"expected --model NAME"):
        providers.require(Access(provider="gemini", model=""))
    with pytest.raises(UsageError, match="'nobody': expected one of gemini, openai, or local"):
        providers.require(Access(provider="nobody", model="m"))
    for url in ("localhost:8000", "ftp://host/v1", "http://"):
        with pytest.raises(UsageError, match=r"caption.base_url=.*http://localhost:8000/v1"):
            providers.require(Access(provider="gemini", model=MODEL, base_url=url))


@pytest.mark.parametrize(("provider", "package"), [("gemini", "google.genai"), ("openai", "openai")])
def test_a_missing_client_says_what_to_install(provider: str, package: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from raydist.caption import providers
from raydist.caption.asking import Access
try:
    providers.require(Access(provider={provider!r}, model="m"))
except providers.ProviderError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'raydist[{provider}]'" in done.stdout


def test_the_origin_is_the_name_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "blip").mkdir()
    assert providers.origin(Access(provider="gemini", model="models/gemini-2.5-pro")) == "gemini-2.5-pro"
    assert providers.origin(Access(provider="gemini", model="")) == providers.DEFAULT_MODELS["gemini"]
    assert providers.origin(Access(provider="local", model=str(tmp_path / "blip"))) == "blip"
    assert providers.origin(Access(provider="local", model="org/blip")) == "org/blip"
