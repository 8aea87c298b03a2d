"""What `raydist submit` sends: words as the cluster needs them, files that go with the job, and nothing secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from raydist import pipeline
from raydist.cli import cli
from raydist.cli import ordered as ordered_words
from raydist.cli.ordered import order_of
from raydist.config import load
from raydist.errors import UsageError
from raydist.store import roots, settings
from raydist.submit import package
from raydist.submit.order import Order


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYDIST_ARCHIVE", raising=False)
    return tmp_path


def ordered(*words: str, archive: str = "archive", file: str | None = None, changes: tuple[str, ...] = ()) -> Order:
    """What is submitted for a verb and its arguments."""
    command = cli.commands["submit"]
    parent = click.Context(cli, info_name="raydist")
    given = ["--archive", archive, *(["--config", file] if file else []), *(f"--set={each}" for each in changes)]
    with command.make_context("submit", [*given, *words], parent=parent) as context:
        config = load(file, changes, {"archive": archive}).config
        arguments = context.params["arguments"]
        return order_of(config, arguments, parent, as_json=False, installed=False, any_version=False)


def sent(order: Order, folder: Path) -> dict[str, Any]:
    """The job's document; its files are in the folder then."""
    folder.mkdir()
    package.environment_of(order, "a-job", folder)
    document: dict[str, Any] = json.loads((folder / "raydist_job.json").read_text())
    return document


def test_a_verb_keeps_its_own_arguments(here: Path) -> None:
    order = ordered("embed", "--model", "tiny", "--retry-failed", changes=("embed.batch=32",))
    assert list(order.arguments) == [
        *("embed", "--set=embed.batch=32", f"--archive={here}/archive"),
        *("--model", "tiny", "--retry-failed"),
    ]
    assert package.entrypoint(order).startswith("exec sh raydist_job.sh embed ")


def test_settings_and_lists_travel_and_videos_do_not(here: Path) -> None:
    (here / "recipe.toml").write_text("[embed]\nbatch = 8\n")
    (here / "captions.csv").write_text("path,caption\n")
    (here / "videos").mkdir()
    (here / "videos" / "a.mp4").write_bytes(b"film")
    order = ordered("pipeline", "videos", "--from", "captions.csv", "s3://bucket/more", file="recipe.toml")
    assert list(order.arguments)[-4:] == ["--from", "lists/0/captions.csv", f"{here}/videos", "s3://bucket/more"]
    assert [(place.what, place.path, place.there) for place in order.places] == [("inputs", f"{here}/videos", True)]
    assert list(order.addresses) == ["s3://bucket/more"]
    sent(order, here / "job")
    files = {path.name for path in (here / "job").rglob("*")}
    assert {"recipe.toml", "captions.csv", "raydist_job.sh", "raydist_start.py", "py.typed"} <= files
    assert not files & {"a.mp4", "__pycache__"}


def test_the_usual_file_of_settings_travels_too(here: Path) -> None:
    (here / "raydist.toml").write_text("[embed]\nbatch = 8\n")
    assert dict(ordered("status").files) == {"raydist.toml": "raydist.toml"}


def test_no_key_travels(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "secret-7f3a")
    monkeypatch.setenv("RAYDIST_EMBED_BATCH", "4")
    monkeypatch.setenv("RAYDIST_MAX_FAILED", "0.5")
    order = ordered("embed", archive="s3://bucket/archive")
    sent(order, here / "job")
    assert order.environment == {"RAYDIST_EMBED_BATCH": "4", "RAYDIST_MAX_FAILED": "0.5"}
    assert not [path for path in (here / "job").rglob("*") if path.is_file() and b"secret-7f3a" in path.read_bytes()]


SIGNED = "https://host/v.mp4?X-Amz-Signature=secret-7f3a"
NAMED = "http://me:secret-7f3a@minio:9000"


@pytest.mark.parametrize(
    "words",
    [
        ("scan", SIGNED),
        ("scan", "videos", f"--metadata={SIGNED}"),
        ("scan", "s3://me:secret-7f3a@bucket/videos"),
        ("scan", "ftp://me:secret-7f3a@host/videos"),
        ("scan", "--moved", "films", NAMED),
        ("scan", "--moved", NAMED, "/films"),
        ("pipeline", "--from", SIGNED),
        ("dedup", "--against", "s3://me:secret-7f3a@bucket/archive"),
        ("search", "--video-file", f"{SIGNED}#t=1,2"),
    ],
)
def test_an_address_with_a_secret_is_refused_before_anything_is_sent(here: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="a user, a password or a query") as refused:
        ordered(*words)
    assert "secret-7f3a" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "how"),
    [
        *(
            (key, value, how)
            for key in ("source.endpoint", "caption.base_url")
            for value in (NAMED, NAMED.removeprefix("http://"), "https://host/?key=secret-7f3a")
            for how in ("--set", "file", "environment")
        ),
        *(("roots.films", NAMED, how) for how in ("--set", "file")),
    ],
)
def test_a_setting_with_a_secret_is_refused_before_anything_is_sent(
    here: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, how: str
) -> None:
    section, _, name = key.partition(".")
    (here / "raydist.toml").write_text(f"[{section}]\n{name} = {json.dumps(value)}\n" * (how == "file"))
    if how == "environment":
        monkeypatch.setenv(f"RAYDIST_{section}_{name}".upper(), value)
    with pytest.raises(UsageError, match="a user, a password or a query") as refused:
        ordered("embed", changes=(f"{key}={value}",) if how == "--set" else ())
    assert "secret-7f3a" not in str(refused.value)


def test_a_secret_that_another_value_overrides_does_not_travel_either(here: Path) -> None:
    (here / "raydist.toml").write_text(f'[source]\nendpoint = "{NAMED}"\n')
    with pytest.raises(UsageError, match=r"raydist\.toml: source\.endpoint"):
        ordered("embed", changes=("source.endpoint=http://minio:9000",))


def test_an_address_without_a_secret_and_a_span_of_a_video_travel(here: Path) -> None:
    order = ordered("search", "--video-file", "https://host/v.mp4#t=1,2.5", changes=("source.endpoint=minio:9000",))
    assert list(order.arguments)[-2:] == ["--video-file", "https://host/v.mp4#t=1,2.5"]


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (("scan", "talks", "--as", "talks"), ["--as", "talks", "{here}/talks"]),
        (("pipeline", "talks", "--run", "talks"), ["--run", "talks", "{here}/talks"]),
        (("pipeline", "--run=talks", "talks"), ["--run", "talks", "{here}/talks"]),
        (("scan", "--moved", "./talks", "new"), ["--moved", "{here}/talks", "{here}/new"]),
        (("scan", "--moved", "talks", "s3://b/new"), ["--moved", "talks", "s3://b/new"]),
        (
            ("dedup", "--no-read", "--same", "a", "b", "--same", "c", "d"),
            ["--no-read", *("--same", "a", "b"), *("--same", "c", "d")],
        ),
        (("search", "--top", "3", "a", "dog"), ["--top", "3", "a", "dog"]),
    ],
)
def test_words_that_are_no_paths_stay_as_they_are(here: Path, words: tuple[str, ...], there: list[str]) -> None:
    (here / "talks").mkdir()
    (here / "new").mkdir()
    sent = list(ordered(*words).arguments)
    assert sent[1 + sent[1:].index(f"--archive={here}/archive") + 1 :] == [word.format(here=here) for word in there]


def test_where_a_moved_folder_is_now_is_asked_for_and_where_it_was_is_not(here: Path) -> None:
    (here / "new").mkdir()
    order = ordered("scan", "--moved", "./old", "new")
    assert [(place.what, place.path, place.there) for place in order.places] == [("--moved", f"{here}/new", True)]
    assert list(ordered("scan", "--moved", "old", "s3://b/new").addresses) == ["s3://b/new"]


def test_settings_behind_two_dashes_are_refused(here: Path) -> None:
    with pytest.raises(UsageError, match="--archive behind `--`"):
        ordered("--", "embed", "--archive", "other")


def test_where_this_machine_has_the_videos_does_not_travel(here: Path) -> None:
    (here / "raydist.toml").write_text(
        'max_failed = 0.5\n[roots]\nfilms = "/Volumes/films"\n[embed]\nbatch = 8\nmodel = "ti\\"ny"\n'
        "[train]\nlearning_rate = 1e-5\n[dedup]\nread = false\n"
    )
    order = ordered("embed")
    sent(order, here / "job")
    there = load(str(here / "job" / "raydist.toml"))
    assert not there.config.roots
    before = load(str(here / "raydist.toml"))
    assert there.config == before.config.model_copy(update={"roots": {}})


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("embed",), True),
        (("pipeline",), True),
        (("pipeline", "--steps", "dedup"), False),
        (("dedup",), True),
        (("dedup", "--no-read"), False),
        (("caption", "--provider", "gemini"), True),
        *(((verb,), False) for verb in ("train", "eval", "index", "scan", "status", "caption")),
        (("forget", "a.mp4"), False),
    ],
)
def test_the_archives_videos_are_asked_for_where_a_verb_reads_them(
    here: Path, words: tuple[str, ...], asked: bool
) -> None:
    (here / "films").mkdir()
    settings.create_or_open(str(here / "archive"), {"clip_seconds": 1.0})
    roots.remember(str(here / "archive"), {"films": str(here / "films"), "gone": str(here / "gone")})
    wanted = [("the videos of root 'films'", f"{here}/films")] if asked else []
    assert [(place.what, place.path) for place in ordered(*words).places] == wanted
    assert not ordered(*words, changes=("roots.films=/mnt/films",)).places


def test_the_steps_are_those_of_the_pipeline() -> None:
    assert ordered_words.STEPS == pipeline.STEPS


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("demo",), "expected a verb that works on an archive"),
        (("submit", "embed"), "expected a verb that works on an archive"),
        (("export",), "expected one of: export"),
        (("export", "captions", "--out", "x.jsonl"), "would lie in the folder of the job"),
    ],
)
def test_what_cannot_be_a_job_is_refused(here: Path, words: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ordered(*words)


def test_wrong_words_for_the_verb_are_refused_here(here: Path) -> None:
    with pytest.raises(click.UsageError, match="--modle"):
        ordered("embed", "--modle", "tiny")


def test_more_than_ray_takes_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "captions.csv").write_text("path,caption\n" * 100)
    monkeypatch.setattr(package, "LIMIT_BYTES", 1000)
    with pytest.raises(UsageError, match=r"captions\.csv.*Ray takes less"):
        sent(ordered("caption", "--from", "captions.csv"), here / "job")


def test_a_name_that_is_a_run_stays_one_and_a_folder_becomes_whole(here: Path) -> None:
    (here / "adapters").mkdir()
    assert ordered("embed", "--adapter", "lora").places == []
    order = ordered("embed", "--adapter", "./adapters")
    assert [(place.what, place.path) for place in order.places] == [("--adapter", f"{here}/adapters")]
    assert list(order.arguments)[-1] == f"{here}/adapters"


def test_submitting_waits_for_no_cluster_that_is_not_there(here: Path) -> None:
    code = "from raydist.cli import main; main()"
    words = ["submit", "embed", "--archive", "a", "--address", "http://127.0.0.1:9"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "nobody answers at http://127.0.0.1:9" in ended.stderr
