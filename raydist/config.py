"""Settings: all sections together, and where each value came from.

Precedence: option > `--set section.field=value` > environment > file > default. The file is TOML: `--config FILE`, else
`./raydist.toml` where there is one. The environment knows `RAYDIST_ARCHIVE` and `RAYDIST_<SECTION>_<FIELD>`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from raydist import address
from raydist.errors import ConfigError, UsageError
from raydist.records import Limits
from raydist.sections import Caption, Decode, Dedup, Embed, Eval, Ray, Report, Scan, Search, Section, Source, Train

DEFAULT_FILE = "raydist.toml"
OTHER_VARIABLES = ("RAYDIST_DEBUG", "RAYDIST_MODELS", "RAYDIST_REQUIRE_GPU")
"""Variables that are no settings of a run."""

_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""Of what Kubernetes puts into a pod for each service of the namespace, such as `raydist-tensorboard`."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/(?!\.{1,2}(/|$))[A-Za-z0-9_.=-]+)*")


class Config(Section):
    """All settings of a run."""

    archive: str = Field(default="", description="folder of the archive, or its s3:// or gs:// address")
    max_failed: float = Field(
        default=0.10, ge=0, le=1, description="share of failures from which on a stage exits with 1"
    )
    roots: dict[str, str] = Field(default_factory=dict, description="root name -> its folder on this machine")
    scan: Scan = Scan()
    decode: Decode = Decode()
    source: Source = Source()
    caption: Caption = Caption()
    train: Train = Train()
    embed: Embed = Embed()
    dedup: Dedup = Dedup()
    eval: Eval = Eval()
    search: Search = Search()
    report: Report = Report()
    ray: Ray = Ray()

    def limits(self) -> Limits:
        """What one clip may cost, as the decoding child takes it."""
        decode = self.decode
        return Limits(
            cpu_s=decode.cpu_s,
            memory_bytes=decode.memory_mb << 20,
            pixels=int(decode.megapixels * 1e6),
            threads=decode.threads,
            hwaccel=decode.hwaccel,
            remote=self.source.remote(),
        )

    def require_archive(self) -> str:
        """The archive's location: an absolute path, or an address in a bucket (`s3://`, `gs://`).

        Raises:
            UsageError: if none was named, or an address that cannot hold one.
        """
        if not self.archive:
            raise UsageError(
                "no archive was named: expected --archive FOLDER, RAYDIST_ARCHIVE, "
                'or `archive = "FOLDER"` in ./raydist.toml'
            )
        return archive_location(self.archive)


def archive_location(given: str) -> str:
    """Where an archive lies, in the one way to write it.

    Raises:
        UsageError: an address that is none, holds a secret, or cannot hold an archive.
    """
    problem = address.not_read(given)
    if not problem and "://" not in given:
        return str(Path(given).expanduser().absolute())
    shown = address.public(given)
    if not problem and address.scheme_of(given) not in address.BUCKETS:
        problem = f"{shown!r} cannot hold an archive: expected a folder, s3://BUCKET/PATH or gs://BUCKET/PATH"
    if problem:
        raise UsageError(f"archive: {problem}")
    try:
        place = address.plain(given)
    except ValueError as error:
        raise UsageError(f"archive: {error}") from error
    if not _PLAIN_KEY.fullmatch(place.partition("://")[2]):
        raise UsageError(
            f"archive = {shown!r}: expected BUCKET/PATH of letters, digits and `-_.=` between single slashes; clients "
            "write other characters in different ways and would not find what another wrote"
        )
    return place


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration and, for each key, where its value came from."""

    config: Config
    origins: Mapping[str, str]


def load(
    file: str | None = None,
    changes: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Resolved:
    """Resolve the configuration.

    Args:
        file: a TOML file, or None for `./raydist.toml` where it exists.
        changes: `section.field=value` each, as given to `--set`.
        options: `section.field` -> value of the options that were given; None values were not.
        environment: defaults to the process's.

    Raises:
        ConfigError: unknown key (the nearest known one is named), bad value, unreadable file.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers = [
        (_from_file(file), f"file {file or DEFAULT_FILE}"),
        (_from_environment(os.environ if environment is None else environment), "environment"),
        (_from_changes(changes), "--set"),
        ({key: value for key, value in (options or {}).items() if value is not None}, "option"),
    ]
    for layer, origin in layers:
        for key, value in layer.items():
            _require_known(key, origin)
            values[key] = value
            origins[key] = origin
    try:
        config = Config.model_validate(_nest(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    if any(key.startswith("roots.") for key in origins):
        origins["roots"] = next(origin for key, origin in reversed(origins.items()) if key.startswith("roots."))
    return Resolved(config, {key: origins.get(key, "default") for key in known_keys()})


def changed(config: Config, options: Mapping[str, Any]) -> Config:
    """The configuration with `section.field` -> value changed; None leaves a value as it is.

    Raises:
        ConfigError: a value out of bounds.
    """
    given = {key: value for key, value in options.items() if value is not None}
    values = {key: value_of(config, key) for key in known_keys() if _is_stated(config, key)} | given
    try:
        return Config.model_validate(_nest(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, dict.fromkeys(given, "argument"))) from error


def _is_stated(config: Config, key: str) -> bool:
    """Whether the value at `section.field` was given, and is no default."""
    head, _, field = key.partition(".")
    owner = getattr(config, head) if field else config
    return (field or head) in owner.model_fields_set


def known_keys() -> list[str]:
    """Every key, as `section.field` or `field`, in the order of the sections."""
    keys: list[str] = []
    for name, info in Config.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, Section):
            keys.extend(f"{name}.{field}" for field in section.model_fields)
        else:
            keys.append(name)
    return keys


def value_of(config: Config, key: str) -> Any:
    """The value at `section.field`."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def describe(key: str) -> str:
    """What a key means, as its field says."""
    head, _, field = key.partition(".")
    info = Config.model_fields[head]
    if field and isinstance(info.annotation, type) and issubclass(info.annotation, Section):
        info = info.annotation.model_fields[field]
    return info.description or ""


def _from_file(file: str | None) -> dict[str, Any]:
    path = Path(file or DEFAULT_FILE)
    if file is None and not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {str(path)!r} cannot be read ({error.strerror}): expected a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{str(path)!r} is no TOML ({error}): expected lines such as `[embed]` and `batch = 64`"
        ) from error
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and value and name != "roots":
            flat.update({f"{name}.{field}": inner for field, inner in value.items()})
        elif value == {} and name in Config.model_fields:
            continue
        else:
            flat[name] = value
    return flat


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    names = {_variable(key): key for key in known_keys() if key != "roots"}
    for name in environment:
        known = name in names or name in OTHER_VARIABLES or _SERVICE_LINK.search(name)
        if name.startswith("RAYDIST_") and not known:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else "`raydist config` lists all keys."
            raise ConfigError(f"unknown variable {name} (environment): {hint}")
    return {key: environment[name] for name, key in names.items() if environment.get(name)}


def _variable(key: str) -> str:
    return f"RAYDIST_{key.replace('.', '_').upper()}"


def _from_changes(changes: tuple[str, ...]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change!r}: expected SECTION.FIELD=VALUE, such as embed.batch=32")
        flat[key.strip()] = value.strip()
    return flat


def _require_known(key: str, origin: str) -> None:
    known = known_keys()
    if key in known or key.startswith("roots."):
        return
    fields: dict[str, list[str]] = {}
    for name in known:
        fields.setdefault(name.rpartition(".")[2], []).append(name)
    field = key.rpartition(".")[2]
    near = fields.get(field, []) or difflib.get_close_matches(key, [*known, *Config.model_fields], n=1)
    for name in [] if near else difflib.get_close_matches(field, list(fields), n=1):
        near = fields[name]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`raydist config` lists all keys."
    raise ConfigError(f"unknown key {key!r} ({origin}): {hint}")


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        head, dot, field = key.partition(".")
        if dot:
            nested[head] = {**nested.get(head, {}), field: value}
        else:
            nested[head] = value
    return nested


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    known = known_keys()
    problems: dict[tuple[str, str], list[str]] = {}
    for problem in error.errors():
        # Of a field that takes one of several types, each type has a problem of its own, at `section.field.type`.
        places = [str(part) for part in problem["loc"]]
        key = field if (field := ".".join(places[:2])) in known else ".".join(places)
        problems.setdefault((key, repr(problem["input"])), []).append(problem["msg"])
    lines = []
    for (key, value), messages in problems.items():
        meaning = f" ({describe(key)})" if key in known else ""
        lines.append(f"{key} = {value} ({origins.get(key, 'default')}): {', or '.join(messages)}{meaning}")
    return "; ".join(lines)
