"""One word names one thing everywhere: the verb, its module, its settings, its tests, its place in the README."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import click
import pytest

from raydist import config
from raydist.cli import cli

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("scan", "caption", "train", "embed", "eval", "dedup")
VERBS = {
    *("scan", "caption", "train", "embed", "dedup", "eval"),
    *("search", "index", "export", "forget", "status", "report", "demo", "config"),
    *("pipeline", "submit", "jobs"),
}


def test_a_verb_is_there_when_it_works_and_not_before() -> None:
    assert set(cli.commands) == VERBS


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_has_help_and_a_module_of_its_name(verb: str) -> None:
    assert cli.commands[verb].help
    assert importlib.util.find_spec(f"raydist.{verb}")


@pytest.mark.parametrize("verb", STAGES)
def test_a_stage_has_settings_and_tests_of_its_name(verb: str) -> None:
    assert verb in config.Config.model_fields
    assert list((ROOT / "tests" / verb).glob("test_*.py"))


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_takes_what_every_verb_takes(verb: str) -> None:
    command = cli.commands[verb]
    for each in command.commands.values() if isinstance(command, click.Group) else [command]:
        options = {name for parameter in each.params for name in parameter.opts}
        assert {"--archive", "--config", "--set", "--json"} <= options


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_readme_mentions_every_verb(verb: str) -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README yet")
    assert re.search(rf"(raydist|make) {verb}\b", readme.read_text(encoding="utf-8"))
