"""What `raydist submit` sends: words as the cluster needs them, files that go with the job, and nothing secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from raydist.cli import cli
from raydist.cli.ordered import order_of
from raydist.config import load
from raydist.errors import UsageError
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
    assert list(order.arguments)[-4:] == [f"{here}/videos", "--from", "lists/0/captions.csv", "s3://bucket/more"]
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
    order = ordered("embed", archive="s3://bucket/archive")
    sent(order, here / "job")
    assert order.environment == {"RAYDIST_EMBED_BATCH": "4"}
    assert not [path for path in (here / "job").rglob("*") if path.is_file() and b"secret-7f3a" in path.read_bytes()]


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
