"""Settings: which value wins, where it came from, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from raydist import config
from raydist.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(*changes: str, file: str | None = None, **rest: object) -> config.Resolved:
    return config.load(file, changes, rest.get("options"), rest.get("environment", {}))  # type: ignore[arg-type]


def toml(text: str, name: str = "raydist.toml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_an_option_beats_set_beats_environment_beats_file_beats_default() -> None:
    layers = {
        "default": (64, {}),
        "file raydist.toml": (1, {}),
        "environment": (2, {"environment": {"RAYDIST_EMBED_BATCH": "2"}}),
        "--set": (3, {"changes": ["embed.batch=3"]}),
        "option": (4, {"options": {"embed.batch": 4}}),
    }
    given: dict[str, object] = {}
    for origin, (value, more) in layers.items():
        if origin.startswith("file"):
            toml("[embed]\nbatch = 1\n")
        given |= more
        changes = given.get("changes", [])
        found = load(*changes, **{name: what for name, what in given.items() if name != "changes"})  # type: ignore[misc]
        assert found.origins["embed.batch"] == origin
        assert found.config.embed.batch == (value if origin != "default" else 0)


def test_an_option_that_was_not_given_changes_nothing() -> None:
    assert load(options={"embed.batch": None}).origins["embed.batch"] == "default"


def test_a_named_file_stands_for_the_usual_one() -> None:
    toml("[embed]\nbatch = 1\n")
    found = load(file=toml("[embed]\nbatch = 9\n", "recipe.toml"))
    assert (found.config.embed.batch, found.origins["embed.batch"]) == (9, "file recipe.toml")


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("embed.bach", "embed.batch"),
        ("scan.clip_second", "scan.clip_seconds"),
        ("batch", "train.batch' or 'embed.batch"),
        ("archiv", "archive"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(key: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{key}' .*did you mean '{near}'"):
        load(f"{key}=1")


def test_an_unknown_key_in_a_file_names_the_file() -> None:
    toml("[embed]\nbacht = 1\n")
    with pytest.raises(ConfigError, match=r"'embed.bacht' \(file raydist.toml\): did you mean 'embed.batch'"):
        load()


def test_an_unknown_variable_of_a_section_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"RAYDIST_EMBED_BACTH.*did you mean RAYDIST_EMBED_BATCH"):
        load(environment={"RAYDIST_EMBED_BACTH": "1"})
    load(environment={"RAYDIST_DEBUG": "1", "RAYDIST_ARCHIVE": "a", "OTHER_EMBED_X": "1"})


def test_a_key_like_no_other_says_where_all_are_listed() -> None:
    with pytest.raises(ConfigError, match="`raydist config` lists"):
        load("zzzzzz=1")


@pytest.mark.parametrize(
    "change",
    [
        "scan.clip_seconds=0",
        "scan.clip_seconds=nan",
        "scan.clip_seconds=-3",
        "scan.min_clip_seconds=inf",
        "scan.naming={video}",
        "embed.device=tpu",
        "embed.batch=many",
        "decode.cpu_s=inf",
        "max_failed=1.5",
        "search.top=0",
        "search.min_score=many",
        "roots=x",
    ],
)
def test_a_value_out_of_bounds_is_refused_with_key_value_and_origin(change: str) -> None:
    key, _, value = change.partition("=")
    with pytest.raises(ConfigError) as caught:
        load(change)
    assert key in str(caught.value)
    assert value in str(caught.value)
    assert "--set" in str(caught.value)
    assert str(caught.value).count(key) == 1


def test_a_change_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SECTION.FIELD=VALUE"):
        load("embed.batch")


def test_a_file_that_is_missing_or_no_toml_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'nowhere.toml' cannot be read"):
        load(file="nowhere.toml")
    toml("embed = [")
    with pytest.raises(ConfigError, match=r"'raydist.toml' is no TOML"):
        load()


def test_every_key_has_an_origin_a_meaning_and_a_value() -> None:
    found = load("roots.talks=/mnt/talks")
    for key in config.known_keys():
        assert found.origins[key]
        assert config.describe(key)
        config.value_of(found.config, key)
    assert found.config.roots == {"talks": "/mnt/talks"}


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load().config.embed.batch = 3  # type: ignore[misc]


def test_no_archive_says_the_three_ways_to_name_one() -> None:
    with pytest.raises(UsageError, match=r"--archive .*RAYDIST_ARCHIVE.*raydist\.toml"):
        load().config.require_archive()


def test_an_archive_is_a_folder_wherever_the_process_goes(tmp_path: Path) -> None:
    assert load("archive=a").config.require_archive() == str(tmp_path / "a")
    assert load("archive=~/a").config.require_archive() == str(Path.home() / "a")


def test_an_archive_may_lie_in_a_bucket_and_has_one_spelling() -> None:
    assert load("archive=S3://bucket/a/").config.require_archive() == "s3://bucket/a"
    assert load("archive=gs://bucket").config.require_archive() == "gs://bucket"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("s3a://bucket/a", "did you mean 's3://bucket/a'"),
        ("https://host/a", "cannot hold an archive: expected a folder, s3://BUCKET/PATH"),
        ("s3://someone:hunter2@bucket/a", "Credentials come from the usual places"),
        ("s3://bucket/a b", "expected BUCKET/PATH of letters"),
        ("s3://bucket/../a", "expected BUCKET/PATH of letters"),
    ],
)
def test_an_address_that_cannot_hold_an_archive_is_refused(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        load(f"archive={given}").config.require_archive()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("name", "near"), [("RAYDIST_ARCHIV", "RAYDIST_ARCHIVE"), ("RAYDIST_MAX_FAILD", "MAX_FAILED")])
def test_a_misspelt_variable_is_refused_and_the_nearest_named(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*{near}"):
        load(environment={name: "1"})


def test_variables_that_are_no_settings_are_left_alone() -> None:
    assert load(environment={"RAYDIST_MODELS": "/models", "RAYDIST_DEBUG": "1"}).config == load().config


def test_an_empty_table_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"embd.*embed"):
        load(file=toml("[embd]\n"))


def test_an_empty_section_changes_nothing() -> None:
    assert load(file=toml("[embed]\n")).config == load().config


def test_the_origin_of_roots_is_told() -> None:
    resolved = load("roots.talks=/mnt/talks")
    assert resolved.config.roots == {"talks": "/mnt/talks"}
    assert resolved.origins["roots"] == "--set"


def test_a_changed_configuration_is_checked_like_any_other() -> None:
    given = load().config
    assert config.changed(given, {"search.top": 3, "embed.model": None}).search.top == 3
    with pytest.raises(ConfigError, match=r"search\.top = 0"):
        config.changed(given, {"search.top": 0})


def test_variables_that_kubernetes_makes_of_services_are_no_settings() -> None:
    """What it puts into pods beside services `raydist-tensorboard` and `raydist-head-svc`, by its own documentation."""
    links = {
        "RAYDIST_TENSORBOARD_SERVICE_HOST": "10.0.0.11",
        "RAYDIST_TENSORBOARD_SERVICE_PORT": "6006",
        "RAYDIST_TENSORBOARD_SERVICE_PORT_HTTP": "6006",
        "RAYDIST_TENSORBOARD_PORT": "tcp://10.0.0.11:6006",
        "RAYDIST_TENSORBOARD_PORT_6006_TCP": "tcp://10.0.0.11:6006",
        "RAYDIST_TENSORBOARD_PORT_6006_TCP_PROTO": "tcp",
        "RAYDIST_HEAD_SVC_PORT_8265_TCP_ADDR": "10.0.0.12",
    }
    found = load(environment={**links, "RAYDIST_EMBED_BATCH": "3"})
    assert found.config.embed.batch == 3
    with pytest.raises(ConfigError, match="RAYDIST_EMBED_BATHC"):
        load(environment={**links, "RAYDIST_EMBED_BATHC": "3"})
