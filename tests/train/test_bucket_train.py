"""Training and what follows it on an archive in a bucket: a killed run goes on from the bucket alone, elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from archives import fails_with
from loopback import Loopback
from runs import captioned, losses
from stores import ENVIRONMENT, fill

import raydist
from raydist import export, forget
from raydist.caption import review
from raydist.config import Config, load
from raydist.errors import ModelError, UsageError
from raydist.models.registry import describe
from raydist.store import models, objects, read
from raydist.store.runs import fetch, listed, run_folder
from raydist.train.state import State

SCRIPT = Path(__file__).parents[1] / "store" / "verbs.py"
ARCHIVE = "s3://bucket/archive"
SETTINGS = (
    "scan.clip_seconds=1",
    "scan.min_clip_seconds=0.2",
    "embed.decoders=1",
    "train.rank=4",
    "train.alpha=8",
    "train.learning_rate=1e-3",
    "train.batch=4",
    "train.epochs=2",
    # An evaluation after each step makes steps slow enough to be hit between two of them.
    "train.eval_steps=1",
    "train.checkpoint_steps=2",
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An archive in a bucket, with a run that was left alone."""

    folder: Path
    printed: dict[str, str]
    """Verb -> what it printed."""

    @property
    def config(self) -> Config:
        return load(changes=SETTINGS, options={"archive": ARCHIVE}, environment={}).config


def command(*words: str) -> list[str]:
    return [*words, "--archive", ARCHIVE, *(word for setting in SETTINGS for word in ("--set", setting))]


def start(commands: list[list[str]], cache: Path, temporary: str) -> subprocess.Popen[str]:
    """The commands, with Ray of their own, which has the bucket's credentials as a node of a cluster has."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), temporary, json.dumps(commands)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=(cache.parent / "talk.log").open("a"),
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], log: Path) -> dict[str, str]:
    """Verb -> what it printed; all went well."""
    out, _ = process.communicate(timeout=900)
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"verb"')]
    assert lines, log.read_text()[-3000:]
    assert {line["code"] for line in lines} == {0}, log.read_text()[-3000:]
    return {line["verb"]: line["out"] for line in lines}


@pytest.fixture(scope="module")
def temporary() -> Iterator[str]:
    """A folder of a short name: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="rb", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture(scope="module")
def made(moto: int, temporary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("bucket")
    with pytest.MonkeyPatch.context() as patch, Loopback(upstream=moto) as server:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": server.url, "XDG_CACHE_HOME": str(folder / "c")}.items():
            patch.setenv(name, value)
        fill(moto, "bucket", {})
        captioned(ARCHIVE, folder / "videos")
        commands = [
            command("train", "--model", "tiny", "--run", "alone"),
            command("eval", "--adapter", "alone", "--json"),
            command("embed", "--adapter", "alone", "--json"),
            command("search", "a red thing", "--adapter", "alone", "--json"),
        ]
        printed = ended(start(commands, folder / "other", temporary), folder / "talk.log")
        yield Made(folder=folder, printed=printed)


def test_a_run_leaves_all_of_it_in_the_bucket_and_nothing_half(made: Made) -> None:
    names = set(listed(ARCHIVE, "alone/*")) | set(listed(ARCHIVE, "alone/adapter/*"))
    expected = ("recipe.json", "trained.parquet", "watched.parquet", "steps.jsonl", "outcome.json", "report.json")
    adapter = ("adapter_config.json", "adapter_model.safetensors", "card.json", "README.md")
    assert {f"alone/{name}" for name in expected} | {f"alone/adapter/{name}" for name in adapter} <= names
    assert listed(ARCHIVE, "alone/tensorboard/events.out.tfevents.*")
    assert len(listed(ARCHIVE, "alone/checkpoints/*/state.pt")) == 2
    assert not run_folder(ARCHIVE, "alone").exists(), "the test's own machine has taken no part in it"


def test_its_adapter_is_the_same_model_here_and_searches(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = json.loads(made.printed["eval"])
    assert {"base", "adapter", "difference"} <= figures.keys()
    (run,) = {name.partition("/")[0] for name in listed(ARCHIVE, "eval-*/report.html")}
    assert listed(ARCHIVE, f"{run}/queries.csv")
    (key,) = read.model_keys(ARCHIVE)
    folder = shutil.copytree(fetch(ARCHIVE, "alone", only=("adapter/*",)), made.folder / "copied" / "alone")
    assert describe("tiny", str(folder / "adapter")).model_key == key
    named = models.portable(str(run_folder(ARCHIVE, "alone") / "adapter"), ARCHIVE)
    with monkeypatch.context() as patch:  # another node has another cache
        patch.setenv("XDG_CACHE_HOME", str(made.folder / "node"))
        brought = models.here(named)
        assert brought.startswith(str(made.folder / "node"))
        assert describe("tiny", brought).model_key == key
    hits = raydist.open(ARCHIVE, SETTINGS).search("a red thing", adapter="alone", top=3)
    printed = [json.loads(line) for line in made.printed["search"].splitlines()][:3]
    assert hits["clip_id"].to_pylist() == [hit["clip_id"] for hit in printed]
    with fails_with(ModelError, "no adapter 'another'", "alone"):
        raydist.open(ARCHIVE, SETTINGS).search("a red thing", adapter="another")


def test_a_killed_run_goes_on_from_the_bucket_on_another_machine(made: Made, temporary: str) -> None:
    expected = losses(ARCHIVE, "alone")
    log = made.folder / "talk.log"
    words = command("train", "--model", "tiny", "--run", "struck")
    process = start([words], made.folder / "first", temporary)
    deadline = time.monotonic() + 600
    named_by = "struck/checkpoints/checkpoint_manager_snapshot.json"
    while len(listed(ARCHIVE, "struck/checkpoints/*/state.pt")) < 2 or not listed(ARCHIVE, named_by):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not listed(ARCHIVE, "struck/adapter/*"), "it was over before it was killed"
    named = json.loads(objects.read(ARCHIVE, f"runs/{named_by}") or b"")
    last = named["latest_checkpoint_result"]["checkpoint_dir_name"]
    kept = State.load(fetch(ARCHIVE, "struck", only=(f"checkpoints/{last}/*",)) / "checkpoints" / last)
    assert kept.step <= len(losses(ARCHIVE, "struck")) < len(expected), "the journal is behind the checkpoint"

    # An upload that was cut short: nothing names it.
    objects.replace(ARCHIVE, "runs/struck/checkpoints/checkpoint_2099-01-01_00-00-00.000000/state.pt", b"half of")
    shutil.rmtree(made.folder / "first")
    ended(start([words], made.folder / "second", temporary), log)
    assert losses(ARCHIVE, "struck") == pytest.approx(expected, abs=1e-6)
    assert listed(ARCHIVE, "struck/adapter/adapter_config.json")


def test_the_dataset_and_exports_read_from_the_bucket(made: Made) -> None:
    dataset = raydist.VideoTextDataset(ARCHIVE, "train", model="tiny")
    frames, caption = dataset[0]
    assert (len(frames), frames[0].dtype, bool(caption)) == (8, torch.uint8, True)
    adapted = load(changes=(*SETTINGS, "embed.adapter=alone"), options={"archive": ARCHIVE}, environment={}).config
    export.checkpoint(adapted, str(made.folder / "merged"))
    assert raydist.load_encoder(str(made.folder / "merged")).encode_text(["a red thing"]).shape[0] == 1
    export.embeddings(adapted, str(made.folder / "vectors.parquet"))
    export.captions(made.config, str(made.folder / "captions.parquet"))
    clips = read.count_rows(ARCHIVE, "clips")
    assert pq.read_metadata(made.folder / "vectors.parquet").num_rows == clips
    assert pq.read_metadata(made.folder / "captions.parquet").num_rows == clips
    for out in ("s3://bucket/out.parquet", "s3://bucket/folder"):
        with fails_with(UsageError, "--out", "path on this machine", "aws s3 cp"):
            export.captions(made.config, out)


def test_forgetting_frees_the_pages_and_lists_in_the_bucket(made: Made) -> None:
    report = review.run(made.config, None)
    page = report.details["sheet"]
    assert page.startswith(f"{ARCHIVE}/runs/")
    name = page.removeprefix(f"{ARCHIVE}/")
    assert objects.read(ARCHIVE, name)
    clip = pq.read_table(fetch(ARCHIVE, "alone", only=("*.parquet",)) / "trained.parquet").to_pylist()[0]
    video = clip["clip_id"].partition("#")[0]
    planned = forget.plan(made.config, [video])
    assert planned.adapters
    done = forget.run(made.config, planned)
    assert done.counts["files"]
    for file in listed(ARCHIVE, "**/*"):
        if file.endswith((".html", ".json", ".csv", ".jsonl")):
            assert video.encode() not in (objects.read(ARCHIVE, f"runs/{file}") or b""), file
    left = pq.read_table(fetch(ARCHIVE, "alone", only=("*.parquet",)) / "trained.parquet")["clip_id"].to_pylist()
    assert left
    assert not [clip for clip in left if clip.startswith(f"{video}#")]
    assert not [row for table in read.table_names(ARCHIVE) for row in _named(table, video)]


def _named(table: str, video: str) -> list[str]:
    columns = read.need_table(ARCHIVE, table).schema.names
    if "video_id" not in columns:
        return []
    found = [
        name for batch in read.scan_batches(ARCHIVE, table, ["video_id"]) for name in batch["video_id"].to_pylist()
    ]
    return [name for name in found if name == video]
