"""What `raydist submit VERB ...` was given, as an order: words as the cluster needs them, files that go with it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raydist import address
from raydist import config as settings_of
from raydist.cli.common import cli
from raydist.config import DEFAULT_FILE, Config
from raydist.errors import UsageError

if TYPE_CHECKING:
    from raydist.submit.order import Order, Place

STEPS = ("scan", "caption", "train", "eval", "embed", "dedup")
WRITING = (*STEPS, "pipeline", "index", "forget")
SUBMITTED = (*WRITING, "search", "status", "export", "report")
"""Verbs that make sense as a job; the others are about this machine."""

_BROUGHT = ("--from", "--metadata", "--splits", "--queries", "--image", "--decisions")
"""Options whose files travel with the job."""
_WRITTEN = ("--out", "--sheet")


def order_of(config: Config, arguments: Sequence[str], parent: click.Context | None, **kind: bool) -> Order:
    """What is submitted.

    Raises:
        UsageError: a verb that is none for a cluster, wrong words for it, no archive, or a place in a job's own folder.
    """
    from raydist.submit import order as orders

    name, *words = arguments
    if name not in SUBMITTED or name not in cli.commands:
        raise UsageError(f"submit {name!r}: expected a verb that works on an archive: {', '.join(SUBMITTED)}")
    command, path = cli.commands[name], [name]
    if isinstance(command, click.Group):
        if not words or words[0] not in command.commands:
            raise UsageError(f"submit {shlex.join(arguments)}: expected one of: {name} {', '.join(command.commands)}")
        command, path = command.commands[words[0]], [name, words.pop(0)]
    with command.make_context(name, list(words), parent=parent) as context:
        given = {max(each.opts, key=len): context.params[each.name or ""] for each in command.params}
    asked: dict[str, Any] = click.get_current_context().params
    location = config.require_archive()
    changes = [f"--set={change}" for change in asked["changes"]]
    files, places, renamed = _places(given)
    for key in ("embed.model", "embed.adapter"):
        value = str(settings_of.value_of(config, key))
        if _is_path(value):
            places.append(orders.Place(what=key, path=_here(value), there=os.path.exists(_here(value))))
            changes.append(f"--set={key}={_here(value)}")
    file: str | None = asked["file"] or (DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else None)
    config_file = []
    if file:
        files[Path(file).name] = file
        config_file = ["--config", Path(file).name]
    own = [renamed.get(word, word) for word in words]
    machine = [*["--json"] * kind.pop("as_json"), *config_file, *changes, f"--archive={location}"]
    return orders.Order(
        verb=name,
        arguments=[*path, *machine, *own],
        archive=location,
        source=config.source.model_dump(),
        environment=_settings_of_environment(),
        files=files,
        places=[*places, *(orders.roots_here(config) if name in WRITING else [])],
        addresses=[word for word in given.get("inputs", ()) if address.is_address(word)],
        writes=name in WRITING,
        **kind,
    )


def _places(given: Mapping[str, Any]) -> tuple[dict[str, str], list[Place], dict[str, str]]:
    """Files that travel (name there -> file), places that the cluster must have, and words as the cluster gets them."""
    from raydist.submit.order import Place

    files: dict[str, str] = {}
    places: list[Place] = []
    renamed: dict[str, str] = {}

    def rename(option: str, value: str, there: str) -> None:
        renamed[value] = there
        renamed[f"{option}={value}"] = f"{option}={there}"

    for option, value in given.items():
        for each in value if isinstance(value, tuple) else (value,):
            if not isinstance(each, str) or not each or address.is_address(each):
                continue
            if option in _BROUGHT and os.path.isfile(each):
                name = f"lists/{len(files)}/{Path(each).name}"
                files[name] = each
                rename(option, each, name)
            elif option in _WRITTEN:
                _refuse_relative(option, each)
            elif option in ("inputs", "--against", "--video-file", *_BROUGHT) or (
                option in ("--model", "--adapter") and _is_path(each)
            ):
                path = _here(each)
                plain = path.rpartition("#t=")[0] or path
                places.append(Place(what=option, path=plain, there=os.path.exists(plain)))
                rename(option, each, path)
    return files, places, renamed


def _refuse_relative(option: str, place: str) -> None:
    if not os.path.isabs(place):
        raise UsageError(
            f"{option} {place!r} would lie in the folder of the job, which goes with it: expected an absolute path "
            "that the cluster shares with you, or an address"
        )


def _is_path(value: str) -> bool:
    return os.sep in value and (value.startswith((".", "~", os.sep)) or os.path.exists(value))


def _here(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _settings_of_environment() -> dict[str, str]:
    """Settings of this machine's environment but the archive, which is named in full; never another variable."""
    names = {f"RAYDIST_{key.replace('.', '_').upper()}" for key in settings_of.known_keys() if "." in key}
    return {name: os.environ[name] for name in (*sorted(names), "RAYDIST_DEBUG") if os.environ.get(name)}
