"""What `raydist submit VERB ...` was given, as an order: words as the cluster needs them, files that go with it.

Never  passwords, signatures or keys in addresses: what is ordered is shown on the cluster's dashboard and in its logs
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

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
_SERVERS = ("source.endpoint", "caption.base_url")
"""Settings that are addresses also without `https://`."""
_OF_SUBMIT = {"archive": "--archive", "file": "--config", "changes": "--set", "as_json": "--json"}


@dataclass
class _Sent:
    """What the words of a verb name."""

    files: dict[str, str] = field(default_factory=dict)
    """Name in the job's folder -> the file here."""
    texts: dict[str, str] = field(default_factory=dict)
    """Name in the job's folder -> what it holds."""
    places: list[Place] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    """Of videos."""
    archives: list[str] = field(default_factory=list)
    """Addresses of archives."""

    def word(self, option: str, value: Any) -> str:
        """A value as the cluster gets it; what it names is noted.

        Raises:
            UsageError: an address with a secret, or a place in the job's own folder.
        """
        if not isinstance(value, str) or not value:
            return str(value)
        _refuse_secret(option, value)
        if address.is_address(value):
            if option in ("inputs", "--moved"):
                self.addresses.append(value)
            elif option == "--against":
                self.archives.append(value)
            return value
        if option in _BROUGHT and os.path.isfile(value):
            name = f"lists/{len(self.files)}/{Path(value).name}"
            self.files[name] = value
            return name
        if option in _WRITTEN and not os.path.isabs(value):
            raise UsageError(
                f"{option} {value!r} would lie in the folder of the job, which goes with it: expected an absolute path "
                "that the cluster shares with you, or an address"
            )
        if option in ("inputs", "--against", "--moved", "--video-file", *_BROUGHT) or (
            option in ("--model", "--adapter") and _is_path(value)
        ):
            return self.place(option, value)
        return value

    def place(self, what: str, value: str) -> str:
        """The whole path of something that the cluster must have too."""
        from raydist.submit.order import Place

        path = _here(value)
        plain = path.rpartition("#t=")[0] or path
        self.places.append(Place(what=what, path=plain, there=os.path.exists(plain)))
        return path


def order_of(config: Config, arguments: Sequence[str], parent: click.Context | None, **kind: bool) -> Order:
    """What is submitted.

    Raises:
        UsageError: a verb that is none for a cluster, wrong words for it, no archive, a place in a job's own folder, or
            an address with a password or a query.
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
    asked: dict[str, Any] = click.get_current_context().params
    sent, location = _Sent(), config.require_archive()
    with command.make_context(name, list(words), parent=parent) as context:
        own, given = _words(command, context, sent), context.params
    environment, settings = _settings_of_environment(), _settings(config, asked, sent)
    reads = _reads(name, given, config)
    machine = [*["--json"] * kind.pop("as_json"), *settings, f"--archive={location}"]
    return orders.Order(
        verb=name,
        arguments=[*path, *machine, *own],
        archive=location,
        source=config.source.model_dump(),
        environment=environment,
        files=sent.files,
        texts=sent.texts,
        places=[*sent.places, *(orders.roots_here(location, _overridden(asked["changes"])) if reads else [])],
        addresses=sent.addresses,
        archives=sent.archives,
        writes=name in WRITING,
        reads=reads,
        **kind,
    )


def _settings(config: Config, asked: Mapping[str, Any], sent: _Sent) -> list[str]:
    """Words for `--config` and `--set`, the file noted, once nothing in them is secret."""
    from raydist.submit.order import as_toml

    _refuse_secrets("", ((key, settings_of.value_of(config, key)) for key in settings_of.known_keys()))
    _refuse_secrets("--set ", ((key.strip(), value.strip()) for key, _, value in _parted(asked["changes"])))
    changes = [f"--set={change}" for change in asked["changes"]]
    for key in ("embed.model", "embed.adapter"):
        value = str(settings_of.value_of(config, key))
        if _is_path(value):
            changes.append(f"--set={key}={sent.place(key, value)}")
    file: str | None = asked["file"] or (DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else None)
    if not file:
        return changes
    table, name = tomllib.loads(Path(file).read_text(encoding="utf-8")), Path(file).name
    for section, part in table.items():
        fields = part.items() if isinstance(part, dict) else [("", part)]
        _refuse_secrets(f"{file}: ", ((f"{section}.{key}".rstrip("."), value) for key, value in fields))
    if "roots" in table:  # where this machine has the videos
        sent.texts[name] = as_toml({section: part for section, part in table.items() if section != "roots"})
    else:
        sent.files[name] = file
    return ["--config", name, *changes]


def _words(command: click.Command, context: click.Context, sent: _Sent) -> list[str]:
    """The verb's words, put together anew from what was given: options first."""
    options: list[str] = []
    last: list[str] = []
    for each in command.params:
        name = each.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if name in _OF_SUBMIT:
            raise UsageError(f"submit: {_OF_SUBMIT[name]} behind `--` is not seen: leave out the `--`")
        value = context.params[name]
        if isinstance(each, click.Argument):
            last += [sent.word(name, one) for one in (value if each.nargs != 1 else (value,))]
            continue
        option = max(each.opts, key=len)
        if isinstance(each, click.Option) and each.is_flag:
            options.append(option if value else max(each.secondary_opts, key=len))
            continue
        for one in value if each.multiple else (value,):
            options += [option, *_option(option, one if each.nargs != 1 else (one,), sent)]
    return [*options, *["--"] * any(word.startswith("-") for word in last), *last]


def _option(option: str, values: Sequence[Any], sent: _Sent) -> list[str]:
    if option == "--moved":
        old, new = values
        _refuse_secret(option, old)  # of the past: the name of a root, or where it was
        known = address.is_address(old) or os.sep not in old
        return [old if known else _here(old), sent.word(option, new)]
    return [sent.word(option, value) for value in values]


def _reads(verb: str, given: Mapping[str, Any], config: Config) -> bool:
    """Whether the verb opens the archive's videos for certain; train and eval may have all frames that they need."""
    if verb == "dedup":
        return config.dedup.read and given["read"] is not False and not given["sweep"]
    if verb == "caption":
        return bool(given["provider"] or config.caption.provider) and not given["listed"]
    if verb == "pipeline":
        return "embed" in given["steps"]
    return verb == "embed"


def _parted(changes: Iterable[str]) -> list[tuple[str, str, str]]:
    return [change.partition("=") for change in changes]


def _overridden(changes: Iterable[str]) -> set[str]:
    """Roots that `--set roots.NAME=FOLDER` places, which goes to the cluster; those of a file are of this machine."""
    return {key.strip().removeprefix("roots.") for key, _, _ in _parted(changes) if key.strip().startswith("roots.")}


def _refuse_secrets(origin: str, values: Iterable[tuple[str, Any]]) -> None:
    for key, value in values:
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,):
            if isinstance(one, str):
                _refuse_secret(f"{origin}{key} =", f"https://{one}" if key in _SERVERS and "://" not in one else one)


def _refuse_secret(what: str, value: str) -> None:
    scheme, mark, rest = value.partition("://")
    plain = re.sub(r"#t=[0-9.,:]*$", "", rest)
    in_query = scheme.lower() in address.WEB and re.search(r"[?#]", plain)
    if mark and ("@" in rest.partition("/")[0] or in_query):
        raise UsageError(
            f"{what} {address.public(value)!r} was given with a user, a password or a query: expected none, since the "
            "cluster's dashboard and logs show it. Credentials come from each node's environment, role or secret"
        )


def _is_path(value: str) -> bool:
    return os.sep in value and (value.startswith((".", "~", os.sep)) or os.path.exists(value))


def _here(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _settings_of_environment() -> dict[str, str]:
    """Settings of this machine's environment but the archive, which is named in full; never another variable."""
    known = [key for key in settings_of.known_keys() if key not in ("archive", "roots")]
    keys = {f"RAYDIST_{key.replace('.', '_').upper()}": key for key in known}
    found = {name: os.environ[name] for name in sorted(keys) if os.environ.get(name)}
    for name, value in found.items():
        _refuse_secrets(f"{name}: ", [(keys[name], value)])
    return found | {name: os.environ[name] for name in ("RAYDIST_DEBUG",) if os.environ.get(name)}
