"""The guide from a folder of videos to a fine-tuned search: every command of it, as written, from first to last."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import raydist
from raydist.caption.prompt import Prompt
from raydist.cli.stages import caption
from raydist.demo import films
from raydist.sections import Caption
from raydist.store import read

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "caption"))

from llm_server import LLMServer, Received  # noqa: E402  # the captioning tests' own

FILMS = 40
SMALL = {
    "RAYDIST_TRAIN_EPOCHS": "2",
    "RAYDIST_TRAIN_BATCH": "8",
    "RAYDIST_EVAL_RESAMPLES": "100",
}
"""What makes it quick; the commands are those of the guide."""


def blocks(file: Path) -> list[str]:
    """The bash blocks of a page, in order."""
    return re.findall(r"^```bash\n(.*?)^```$", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class Reader:
    """A person who types what the guide says, block by block, in one shell's environment and folder."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home, self._kept = home, home / ".environment"
        self._environment = environment
        self._kept.write_text("")

    def types(self, block: str) -> str:
        """Run one block; what it prints. A command that fails is an error."""
        script = f". {self._kept}\nset -e\n{block}\nexport -p > {self._kept}\n"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.home, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's folder, with videos and the model that the guide names: the demo's, which knows drawn films."""
    home = tmp_path_factory.mktemp("home")
    films.draw(films.choose(home / "Videos", FILMS))
    shutil.copytree(ROOT / "raydist" / "demo" / "tiny", home / "models" / "viclip-b16")
    return home


@pytest.fixture
def captioner(home: Path) -> Iterator[LLMServer]:
    """A provider on loopback that knows the films by their pictures and says what they show."""
    chosen = films.choose(home / "Videos", FILMS)
    looks = [_look(raydist.decode_clip(film.file, 0, 60)[0]) for film in chosen]

    def speak(received: Received) -> Sequence[str]:
        first = np.asarray(Image.open(io.BytesIO(received.images[0])).convert("RGB"))
        film = chosen[int(np.argmin([np.abs(look - _look(first)).sum() for look in looks]))]
        return [film.caption, f"{film.shown.colour} {film.shown.object}"][: received.expected]

    with LLMServer(speak=speak, faults={"rate": 0.05, "boilerplate": 0.1, "server": 0.05}, retry_after_s=0.2) as server:
        yield server


def _look(frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = Image.fromarray(frame_HWC).resize((16, 16), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


@pytest.fixture
def reader(home: Path, captioner: LLMServer) -> Reader:
    """Somebody with the folder as home, whose Gemini is on loopback."""
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "HF_HUB_OFFLINE") if name in os.environ}
    ray = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    return Reader(
        home,
        {
            **kept,
            **ray,
            **SMALL,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAYDIST_MODELS": str(home / "models"),
            "GOOGLE_GEMINI_BASE_URL": captioner.url,
        },
    )


def captions(archive: Path) -> list[dict[str, Any]]:
    table = read.need_table(str(archive), "captions").to_table()
    return list(table.to_pylist())


@pytest.mark.timeout(900)
def test_every_command_of_the_guide_runs_as_it_is_written(home: Path, captioner: LLMServer, reader: Reader) -> None:
    scan, dry_run, trial, settings, everything, train, evaluate, search, suspects = blocks(ROOT / "docs" / "guide.md")
    archive = home / "my-archive"

    said = reader.types(scan)
    assert f"{FILMS} files, {FILMS} ok" in said

    said = reader.types(dry_run)
    assert f"{FILMS} clips" in said
    assert "USD" in said
    assert captioner.received == []

    reader.types(trial)
    first = captions(archive)
    assert len(first) == 20
    assert {row["prompt_hash"] for row in first} == {Prompt(**_asked()).hash}
    assert "<html" in (home / "trial.html").read_text(encoding="utf-8")

    reader.types(settings)
    said = reader.types(everything)
    rows = captions(archive)
    assert Counter(row["clip_id"] for row in rows) == {f"Videos/{n:04}.mp4#t={_end(home, n)}": 2 for n in _numbers()}
    assert len({row["prompt_hash"] for row in rows}) == 1
    assert {row["prompt_hash"] for row in rows}.isdisjoint({row["prompt_hash"] for row in first})
    _is_true(home, rows)
    assert all(received.key == "your-key" for received in captioner.received)
    assert "red star" in captioner.received[-1].words

    reader.types(train)
    said = reader.types(evaluate)
    assert "mine" in said

    said = reader.types(search)
    hits = re.findall(r"^\s*\d+\s+[\d.]+\s+Videos/(\d{4})\.mp4#t=", said, re.MULTILINE)
    assert len(hits) >= 10
    assert "0014" in hits[:3]  # a red heart grows in falling snow
    assert (home / "hits.html").stat().st_size > 10_000

    reader.types(suspects)
    assert (home / "suspects.html").stat().st_size > 10_000
    assert json.loads(next((archive / "runs").glob("caption-*/report.json")).read_text())["stage"]
    _no_key(home, "your-key")


def _numbers() -> range:
    return range(1, FILMS + 1)


def _asked() -> dict[str, Any]:
    return {"hints": "", "details": ("plain",), "room": 30, "send": "frames", "frames": 8}


def _end(home: Path, number: int) -> str:
    """The span of a film's only clip, as its id has it."""
    rows = read.need_table(str(home / "my-archive"), "clips").to_table().to_pylist()
    (found,) = [row["clip_id"] for row in rows if row["clip_id"].startswith(f"Videos/{number:04}.mp4#t=")]
    return str(found).rpartition("#t=")[2]


def _is_true(home: Path, rows: list[dict[str, Any]]) -> None:
    """Each clip has the captions of its own film."""
    told = {film.file.name: film for film in films.choose(home / "Videos", FILMS)}
    for row in rows:
        film = told[row["clip_id"].partition("#")[0].rpartition("/")[2]]
        texts = (film.caption, f"{film.shown.colour} {film.shown.object}")
        assert row["caption"].casefold() == texts[row["number"]].casefold()


def _no_key(home: Path, key: str) -> None:
    """The key is in no file but the shell's own."""
    held = [
        str(file)
        for file in home.rglob("*")
        if file.is_file() and file.name != ".environment" and key.encode() in file.read_bytes()
    ]
    assert held == []


@pytest.mark.parametrize("page", ["guide.md", "captions.md"])
def test_the_pages_link_to_pages_that_there_are(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert targets
    assert all((ROOT / "docs" / target).is_file() for target in targets)


def test_the_page_on_captions_names_settings_that_there_are() -> None:
    text = (ROOT / "docs" / "captions.md").read_text(encoding="utf-8")
    fields = {*Caption.model_fields}
    named = set(re.findall(r"\bcaption\.([a-z_]+)\b", text)) - {"csv"}
    assert named <= fields, named - fields
    commands = re.findall(r"raydist caption ([^`\n#]*)", text)
    options = {option for command in commands for option in re.findall(r"--[a-z][a-z-]*", command)}
    assert {"--max-cost", "--retry-failed", "--set"} <= options
    for option in options:
        assert any(option in given.opts for given in caption.params), option
