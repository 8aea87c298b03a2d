"""A provider's captions for an archive in a bucket: answers wait there, and go once they are committed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from archives import rows, scanned, videos
from asked import KEY, KEYS, MODELS, Asked
from llm_server import LLMServer
from loopback import Loopback
from stores import fill
from test_batches import prepared, task
from test_one import Here

from raydist.caption import answers
from raydist.caption.asker import known
from raydist.store import objects

SCRIPT = Path(__file__).parents[1] / "store" / "verbs.py"
ARCHIVE = "s3://asked/archive"


def test_answers_are_kept_in_the_bucket_until_they_are_dropped(s3: Loopback, moto: int) -> None:
    fill(moto, "asked", {})
    wanted = {"clip_key": -3, "fingerprint": "f"}
    row = {**wanted, "origin": "m", "prompt_hash": "p"}
    row |= {name: None for name in answers.ANSWERED.names if name not in row}
    answers.keep(ARCHIVE, row)
    assert answers.kept(ARCHIVE, wanted, "m", "p") == row
    assert answers.kept(ARCHIVE, wanted, "m", "another") is None
    assert list(answers.all_kept(ARCHIVE)) == [row]
    answers.drop(ARCHIVE, [-3])
    assert not list(answers.all_kept(ARCHIVE))


def test_a_bucket_that_gives_no_answers_stops_the_run_and_leaves_the_clip(s3: Loopback, moto: int) -> None:
    fill(moto, "asked", {})
    (clip,) = prepared(1).drop_columns(["frames", "clip"]).to_pylist()
    door = Here()
    assert known(ARCHIVE, clip, task("http://127.0.0.1:9"), door) is None
    s3.fail("status", float("inf"), status=403)
    row = known(ARCHIVE, clip, task("http://127.0.0.1:9"), door)
    assert row is not None
    assert row["left"]
    assert "cannot be read" in row["detail"]
    assert door.stopped()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_every_clip_gets_the_caption_of_its_own_pictures(s3: Loopback, moto: int, tmp_path: Path) -> None:
    fill(moto, "asked", {})
    scanned(ARCHIVE, videos(tmp_path / "videos", 3, 2))
    folder = tempfile.mkdtemp(prefix="rk")
    with LLMServer() as server:
        asked = Asked(ARCHIVE, server, "openai")  # type: ignore[arg-type]  # it is turned into a text
        settings = [f"caption.base_url={server.url}/v1", "caption.timeout_s=30", "caption.decoders=1"]
        words = ["caption", "--provider", "openai", "--archive", ARCHIVE, "--set", f"caption.model={MODELS['openai']}"]
        words += [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run(
            [sys.executable, str(SCRIPT), folder, json.dumps([words])],
            env={**os.environ, KEYS["openai"]: KEY},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert json.loads(done.stdout.splitlines()[-1])["code"] == 0, done.stderr[-3000:]
        assert asked.captions() == {name: [text] for name, text in asked.expected().items()}
    shutil.rmtree(folder, ignore_errors=True)
    kept = [one.path for one in s3.asked if one.method == "PUT" and f"/{answers.FOLDER}/" in one.path]
    assert len(set(kept)) == len(rows(ARCHIVE, "clips")) == 6
    assert not objects.entries(ARCHIVE, answers.FOLDER)
