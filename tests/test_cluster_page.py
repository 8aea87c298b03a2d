"""cluster/README.md: its commands are raydist's, its checks pass, its figures are those that its script gives."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml
from cluster_rules import read_by_ray

from raydist.cli import cli

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kuberay"
BIN = Path(sys.executable).parent


def _page() -> str:
    return (CLUSTER / "README.md").read_text(encoding="utf-8")


def _blocks(heading: str = "") -> list[str]:
    """The bash blocks of the page, or of one of its chapters."""
    page = _page()
    if heading:
        page = page[page.index(f"\n## {heading}\n") + 1 :].partition("\n## ")[0]
    return re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def _commands() -> Iterator[list[str]]:
    for block in _blocks():
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def test_every_file_is_on_the_page_and_every_link_leads_to_one() -> None:
    page = _page()
    files = [path for path in (*CLUSTER.iterdir(), *KUBERAY.iterdir()) if path.is_file() and path.name != "README.md"]
    assert [path.name for path in files if f"]({path.relative_to(CLUSTER)})" not in page] == []
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in link]
    assert [link for link in links if not (CLUSTER / link).exists()] == []


def test_the_page_has_a_chapter_on_what_people_must_know() -> None:
    chapters = re.findall(r"^## (.+)$", _page(), re.MULTILINE)
    for manifest in (*KUBERAY.glob("*.yaml"), *CLUSTER.glob("*.yaml")):
        for chapter in re.findall(r'README\.md,\s+(?:# )?"([^"]+)"', manifest.read_text()):
            assert chapter in chapters, manifest.name
    for chapter in ("Sizing", "Cost", "Videos and credentials", "The job port is never public", "Spot"):
        assert chapter in chapters


def test_the_pages_blocks_are_shell() -> None:
    for block in _blocks():
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_the_pages_commands_are_raydists() -> None:
    found = [words[1:] for words in _commands() if words[0] == "raydist"]
    assert {"submit", "jobs", "status", "report"} <= {words[0] for words in found}
    for words in found:
        _parsed(words)


def test_the_pages_commands_of_ray_are_rays() -> None:
    found = [words[1:] for words in _commands() if words[0] == "ray"]
    assert {"up", "dashboard", "down", "job", "get-auth-token"} <= {words[0] for words in found}
    for words in found:
        read_by_ray([word for word in words if word not in (">", "/dev/null")])
    with pytest.raises(click.UsageError):
        read_by_ray(["job", "submitt"])


def _parsed(words: list[str]) -> None:
    """Let the command line read the words, without running what they say."""
    command: click.Command = cli
    parent: click.Context | None = None
    name = "raydist"
    while isinstance(command, click.Group):
        parent = click.Context(command, info_name=name, parent=parent)
        name, *words = words
        assert name in command.commands, f"raydist has no {name!r}"
        command = command.commands[name]
    context = command.make_context(name, list(words), parent=parent)
    if name == "submit":
        _parsed(list(context.params["arguments"]))


def test_a_job_runs_a_script_of_the_image_with_options_that_it_has() -> None:
    spec = yaml.safe_load((KUBERAY / "rayjob.yaml").read_text())["spec"]
    python, script, *arguments = shlex.split(spec["entrypoint"])
    assert python == "python"
    assert (ROOT / Path(script).relative_to("/opt/raydist")).exists()
    config = arguments[arguments.index("--config") + 1]
    assert (ROOT / Path(config).relative_to("/opt/raydist")).exists()
    _parsed(
        [
            Path(script).stem,
            *(str(ROOT / word[len("/opt/raydist/") :]) if word == config else word for word in arguments),
        ]
    )


def test_a_verb_or_an_option_that_there_is_not_would_be_found() -> None:
    with pytest.raises(AssertionError, match="raydist has no 'embedd'"):
        _parsed(["submit", "embedd"])
    with pytest.raises(click.NoSuchOption):
        _parsed(["submit", "embed", "--modell", "tiny"])


def test_the_pages_sizes_are_what_its_commands_say() -> None:
    page = _page()
    for chapter in ("Sizing", "Cost"):
        (block,) = _blocks(chapter)
        assert _run(block) in page


def test_the_pages_checks_pass() -> None:
    for block in _blocks("Checks"):
        _run(block)


def _run(block: str) -> str:
    """Run a block at the root of the repository, with the programs of this environment."""
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def sizing() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("sizing", CLUSTER / "sizing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sizes_are_reckoned_from_the_measured_table(sizing: ModuleType) -> None:
    exact, fast = sizing.decoding_ms("exact"), sizing.decoding_ms("fast")
    assert exact["h264-1080p-gop30"] == 583
    assert fast["h264-1080p-gop30"] == 144
    assert list(exact) == list(fast)
    row = sizing.estimate(decode_s=0.9, gpu_clips_per_s=100, busy=0.9, clips=3600, core_hour=2, gpu_hour=10)
    assert row == {"cores_a_gpu": 100.0, "core_hours": 1.0, "gpu_hours": 0.01, "cost": 2.1}


def test_a_size_from_nothing_is_refused(sizing: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpu_clips_per_s is 0: expected more than 0"):
        sizing.estimate(decode_s=1, gpu_clips_per_s=0)
    (tmp_path / "page.md").write_text("no table\n")
    with pytest.raises(ValueError, match="no table with the columns `file` and `raydist EXACT`"):
        sizing.decoding_ms("exact", tmp_path / "page.md")
    with pytest.raises(click.UsageError, match="which is measured, or --gpu-tflops, which is a guess"):
        sizing.main.main([], standalone_mode=False)
    with pytest.raises(click.UsageError, match="no row 'h266'"):
        sizing.main.main(["--gpu-clips-per-s", "1", "--file", "h266"], standalone_mode=False)


@pytest.mark.slow
def test_what_models_cost_is_what_is_counted(sizing: ModuleType) -> None:
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "flops.py")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {row["model"]: row["gflop_a_clip"] for row in map(json.loads, lines)} == sizing.GFLOP_A_CLIP
