"""The other ways to have clips captioned: a batch API, the clip itself in place of frames, a model of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import configure, rows
from asked import KEY, KEYS, Asked, archive_of
from llm_server import LLMServer
from small_captioners import write_blip

import raydist
from raydist import caption
from raydist.caption import answers
from raydist.caption.prices import price_of
from raydist.errors import ModelError, ProviderError, UsageError

pytestmark = pytest.mark.usefixtures("cluster")

CLIPS = 12
Start = Callable[..., Asked]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive_of(tmp_path_factory.mktemp("others"), CLIPS, a_file=4)


@pytest.fixture
def start(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    servers: list[LLMServer] = []

    def begin(**given: object) -> Asked:
        monkeypatch.setenv(KEYS["gemini"], KEY)
        servers.append(LLMServer(**given).__enter__())  # type: ignore[arg-type]
        shutil.copytree(once, tmp_path / "archive", dirs_exist_ok=True)
        return Asked(tmp_path / "archive", servers[-1], "gemini")

    yield begin
    for server in servers:
        server.__exit__()


def test_the_batch_api_captions_all_clips_at_half_the_price(start: Start) -> None:
    asked = start()
    report = asked.run("caption.batch_api=true", "caption.batch_clips=5", "caption.batch_jobs=2")
    assert report.counts["clips"] == CLIPS
    assert asked.captions() == {name: [text] for name, text in asked.expected().items()}
    assert asked.server.received == []
    price = price_of("gemini-2.5-flash")
    assert price is not None
    assert report.details["cost"] == pytest.approx(price.cost(*asked.server.jobs.billed) / 2, abs=2e-6)
    assert asked.run("caption.batch_api=true").counts["clips"] == 0


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-without-a-price"])
def test_a_wrong_key_for_the_batch_api_is_an_error(start: Start, model: str) -> None:
    asked = start(keys={"another"})
    with pytest.raises(ProviderError, match="refuses all requests") as caught:
        asked.run("caption.batch_api=true", f"caption.model={model}")
    assert KEY not in str(caught.value)
    assert asked.failed() == {}
    assert raydist.open(str(asked.archive)).status()["captions"] == 0


def test_a_budget_bounds_the_clips_of_batch_jobs_beforehand(start: Start) -> None:
    asked = start()
    report = asked.run("caption.batch_api=true", "caption.max_cost=0.003")
    assert 0 < report.counts["clips"] < CLIPS
    assert report.details["cost"] <= 0.003
    with pytest.raises(UsageError, match="give --limit, or send frames"):
        asked.run("caption.batch_api=true", "caption.max_cost=1", "caption.send=clip")


def test_the_clip_itself_is_sent_where_that_is_asked_for(start: Start) -> None:
    asked = start()
    told = asked.run("caption.send=clip", dry_run=True)
    assert any("cutting the clip" in note and "CPU s a clip" in note for note in told.notes)
    report = asked.run("caption.send=clip")
    assert report.counts["clips"] == CLIPS
    assert all(one.video is not None and not one.images for one in asked.server.received)
    assert report.details["cost"] == pytest.approx(told.details["cost"], rel=0.25)  # clips of a second


def test_answers_about_a_video_that_is_forgotten_or_gone_go(start: Start) -> None:
    asked = start()
    asked.run("caption.batch_api=true", limit=3)
    location = str(asked.archive)
    (video,) = {row["video_id"] for row in rows(asked.archive, "clips") if row["video_id"].endswith("v000.mp4")}
    clip = next(row for row in rows(asked.archive, "clips") if row["video_id"] == video)
    answer = {
        **{name: clip[name] for name in ("clip_key", "clip_id", "video_id", "fingerprint")},
        "captions": ["a secret"], "cut": [False], "reason": "", "detail": "", "origin": "gemini-2.5-flash",
        "prompt_hash": "0" * 16, "left": False, "requests": 1, "tokens_in": 1, "tokens_out": 1, "cost": 0.0,
        "ask_s": 0.1, "prepare_s": 0.0, "prepare_cpu_s": 0.0,
    }  # fmt: skip
    answers.keep(location, answer)
    raydist.open(location).forget(video)
    assert list(answers.all_kept(location)) == []
    answers.keep(location, answer)  # by a worker that came late
    asked.run()
    assert list(answers.all_kept(location)) == []
    assert not [row for row in rows(asked.archive, "captions") if row["clip_id"].startswith(video)]
    assert b"a secret" not in b"".join(file.read_bytes() for file in asked.archive.rglob("*") if file.is_file())


def test_a_local_model_captions_without_any_key(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS.values():
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(once, tmp_path / "archive")
    model = write_blip(tmp_path / "small-blip")
    changes = ("caption.provider=local", f"caption.model={model}", "caption.decoders=1", "caption.device=cpu")
    told = caption.run(configure(tmp_path / "archive", "", *changes), caption.Request(dry_run=True))
    assert told.counts["clips"] == CLIPS
    report = caption.run(configure(tmp_path / "archive", "", *changes), caption.Request())
    found = rows(tmp_path / "archive", "captions")
    assert report.counts["clips"] + report.counts["failed"] == CLIPS
    assert {row["origin"] for row in found} == {"small-blip"}
    assert len(found) == report.counts["clips"] > 0
    again = caption.run(configure(tmp_path / "archive", "", *changes), caption.Request())
    assert again.counts["clips"] == 0
    missing = [change.replace("small-blip", "no-such-model") for change in changes]
    with pytest.raises(ModelError, match="no-such-model"):
        caption.run(configure(tmp_path / "archive", "", *missing), caption.Request())
