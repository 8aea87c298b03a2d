"""Settings: frozen sections, and where each value came from.

Precedence: option > `--set section.field=value` > environment > file > default. The file is TOML: `--config FILE`, else
`./raydist.toml` where there is one. The environment knows `RAYDIST_ARCHIVE` and `RAYDIST_<SECTION>_<FIELD>`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from raydist.errors import ConfigError, UsageError
from raydist.records import Limits, Remote

DEFAULT_FILE = "raydist.toml"
OTHER_VARIABLES = ("RAYDIST_DEBUG", "RAYDIST_MODELS", "RAYDIST_REQUIRE_GPU")
"""Variables that are no settings of a run."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scan(Section):
    """[scan] files -> videos and clips. The first four belong to the archive once it is made."""

    clip_seconds: float = Field(default=30.0, ge=0.1, le=86_400, description="length of a clip")
    min_clip_seconds: float = Field(default=2.0, ge=0, le=86_400, description="a shorter last span is dropped")
    naming: str = Field(default="", description="template of pre-cut clip names: {video}_{index}; empty: videos")
    index_base: int = Field(default=0, ge=0, description="index of the first pre-cut clip of a video")
    probes: int = Field(default=0, ge=0, description="probing processes in the cluster; 0: one a core")

    @field_validator("naming")
    @classmethod
    def _has_both_fields(cls, naming: str) -> str:
        if naming and (naming.count("{video}") != 1 or naming.count("{index}") != 1):
            raise ValueError("expected {video} and {index} once each, such as {video}_{index}")
        return naming


class Decode(Section):
    """[decode] how clips are decoded, and what one may cost before it fails."""

    cpu_s: float = Field(default=30.0, gt=0, description="CPU seconds a clip; a hang ends at five times that")
    memory_mb: int = Field(default=896, ge=256, description="memory of a decoding process, beyond its first 100 MB")
    megapixels: float = Field(default=67.2, gt=0, description="pixels of one picture, in millions")
    threads: int = Field(
        default=1, ge=1, le=16, description="threads of a decoder for 4K pictures and larger; clips run side by side"
    )
    hwaccel: str = Field(
        default="",
        pattern="^(|cuda|vaapi|qsv|videotoolbox|vulkan|drm|amf)$",
        description="hardware that decodes what it can, such as cuda; memory_mb then does not hold; empty: none",
    )


class Source(Section):
    """[source] how files on servers are read. Credentials are no settings: they come from the usual places."""

    endpoint: str = Field(
        default="", description="URL of an S3-compatible server; empty: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, Amazon"
    )
    region: str = Field(default="", description="of the S3 buckets; empty: AWS_REGION, else as the bucket says")
    anonymous: bool = Field(default=False, description="read public buckets without credentials")
    connect_s: float = Field(default=10.0, gt=0, le=600, description="seconds for a connection")
    read_s: float = Field(default=30.0, gt=0, le=3600, description="seconds without a byte after which a try ends")
    tries: int = Field(default=6, ge=1, le=100, description="tries a request, with growing pauses between them")
    whole_mb: int = Field(
        default=1024, ge=0, description="largest file that is downloaded whole from a server that reads no ranges"
    )
    whole_s: float = Field(
        default=900.0, gt=0, le=86_400, description="seconds that such a download may take, its tries included"
    )

    def remote(self) -> Remote:
        """As the part that opens sources takes it."""
        kept = self.model_dump(exclude={"whole_mb"})
        return Remote(**kept, whole_bytes=self.whole_mb << 20)


class Embed(Section):
    """[embed] clips -> vectors."""

    model: str = Field(
        default="",
        description="a name, a folder or a hub repository; empty: the archive's only model, else viclip-b16",
    )
    adapter: str = Field(default="", description="a LoRA adapter: a run of the archive, or a folder; empty: none")
    sampling: str = Field(
        default="exact",
        pattern="^(exact|fast)$",
        description="frames of a clip: exact, or fast: key frames nearby, which cost less; a table of its own",
    )
    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$", description="auto: GPUs where there are")
    batch: int = Field(default=0, ge=0, description="clips per forward pass; 0: 64 on a GPU, 16 on a CPU")
    decoders: int = Field(default=0, ge=0, description="decoding processes in the cluster; 0: one a core")
    encoders: int = Field(default=0, ge=0, description="encoder processes in the cluster; 0: one a GPU, or one a node")
    commit_s: float = Field(default=60.0, gt=0, description="seconds between commits")
    commit_rows: int = Field(default=100_000, ge=1, description="rows after which a commit comes sooner")


class Caption(Section):
    """[caption] clips -> captions. The columns are those of the list that `--from` names; empty: guessed, and said."""

    path_column: str = Field(default="", description="column that names the file or the clip")
    text_column: str = Field(default="", description="column of the captions")
    start_column: str = Field(default="", description="column of the start in the file: seconds, or h:m:s")
    end_column: str = Field(default="", description="column of the end in the file")
    time_column: str = Field(default="", description="column of a moment in the file, where there is no start")


class Train(Section):
    """[train] clips and captions -> a LoRA adapter. The model is `embed.model`."""

    batch: int = Field(default=64, ge=2, description="clips of a step, over all workers")
    micro_batch: int = Field(
        default=0, ge=0, description="clips a forward pass holds for its gradient; 0: the whole share of a worker"
    )
    epochs: int = Field(default=50, ge=1, description="at most; the horizon of the learning rate's schedule")
    learning_rate: float = Field(default=1e-4, gt=0, description="of AdamW, after the warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW, on matrices only")
    warm_up: float = Field(default=0.05, ge=0, lt=1, description="share of all steps in which the rate rises")
    clip_norm: float = Field(default=1.0, gt=0, description="norm that gradients are clipped to")
    rank: int = Field(default=32, ge=1, le=1024, description="of the LoRA matrices")
    alpha: float = Field(default=64.0, gt=0, description="LoRA's scale is alpha / rank")
    learn_temperature: bool = Field(
        default=False, description="train the model's temperature too, held at 0.01 or more"
    )
    checkpointing: bool = Field(default=False, description="compute activations again on the way back, to save memory")
    eval_steps: int = Field(default=100, ge=1, description="steps between evaluations; epochs end with one too")
    eval_clips: int = Field(default=1000, ge=2, description="held-out clips of an evaluation, at most")
    patience: int = Field(default=10, ge=1, description="whole epochs without a better evaluation loss, then it stops")
    checkpoint_steps: int = Field(default=100, ge=1, description="steps after which a crash can lose no more")
    seed: int = Field(default=0, ge=0, description="of the order of clips, the choice of captions and the adapter")
    workers: int = Field(default=0, ge=0, description="DDP processes; 0: one a GPU, or one on CPUs")
    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$", description="auto: GPUs where there are")
    jitter: bool = Field(default=False, description="take one of three frames of an interval, another each epoch")
    flip: bool = Field(default=False, description="mirror half of the clips; not where captions say left or right")
    cache: str = Field(
        default="raw",
        pattern="^(raw|jpeg|none)$",
        description="frames on disk: raw, jpeg (q95), none: decode each epoch",
    )
    cache_gb: float = Field(default=50.0, gt=0, description="disk that cached frames may take in the archive")
    leaks: str = Field(
        default="move", pattern="^(move|report)$", description="copies of clips across splits: move videos, or only say"
    )


class Eval(Section):
    """[eval] retrieval accuracy on held-out clips, base against adapter. The models are those of [embed]."""

    split: str = Field(default="test", pattern="^(train|val|test)$", description="whose clips are searched")
    resamples: int = Field(default=2_000, ge=100, le=100_000, description="of the bootstrap that gives intervals")
    seed: int = Field(default=0, ge=0, description="of the resamples and of the paired test")
    strips: int = Field(default=8, ge=0, le=100, description="largest gains, and as many losses, shown with pictures")


class Search(Section):
    """[search] words, a picture or a clip -> ranked clips."""

    top: int = Field(default=10, ge=1, le=100_000, description="hits a query")


class Ray(Section):
    """[ray] where the work runs."""

    address: str = Field(default="", description="of a Ray cluster; empty: RAY_ADDRESS, else this machine alone")
    cpus: int = Field(default=0, ge=0, description="cores to use on this machine alone; 0: all")
    temp_dir: str = Field(default="", description="folder for Ray's own files on this machine; empty: Ray's choice")


class Config(Section):
    """All settings of a run."""

    archive: str = Field(default="", description="folder of the archive")
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
    eval: Eval = Eval()
    search: Search = Search()
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
        """The archive's location.

        Raises:
            UsageError: if none was named.
        """
        if not self.archive:
            raise UsageError(
                "no archive was named: expected --archive FOLDER, RAYDIST_ARCHIVE, "
                'or `archive = "FOLDER"` in ./raydist.toml'
            )
        if "://" in self.archive:
            raise UsageError(f"archive = {self.archive!r}: expected a folder; an address cannot hold an archive yet")
        return str(Path(self.archive).expanduser().absolute())


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
        if name.startswith("RAYDIST_") and name not in names and name not in OTHER_VARIABLES:
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
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        meaning = f" ({describe(key)})" if key in known_keys() else ""
        lines.append(f"{key} = {problem['input']!r} ({origins.get(key, 'default')}): {problem['msg']}{meaning}")
    return "; ".join(lines)
