"""Adapters as folders: where they lie, what they are called, and the card that says how one came to be.

Reads   `runs/<name>/adapter` of an archive, or any folder as PEFT's save_pretrained writes it
Writes  adapter_model.safetensors and adapter_config.json (PEFT's), card.json, README.md (the card for people)
Promise a folder is there whole or not at all
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.errors import ModelError
from raydist.models.encoder import ModelInfo
from raydist.models.folders import written_whole
from raydist.version import __version__

if TYPE_CHECKING:
    from raydist.models.lora import LoRA

FILES = ("adapter_config.json", "adapter_model.safetensors")
MARK = FILES[0]
"""Written last where files come one by one: a folder without it holds no adapter."""
CARD = "card.json"
FOLDER = "adapter"
"""Name of the folder in a run; it is called by its run then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """How an adapter came to be."""

    base: str
    """Name of the model that it was trained on."""
    base_digest: str
    """Of that model's weights (`models.keys.weights_digest`); the adapter is of use with these alone."""
    base_location: str = ""
    """Where they lay; empty where the hub has them."""
    repository: str = ""
    """Where the hub has them."""
    licence: str = ""
    """Of the base's weights, which binds what is made of them."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    """Counts of what it was trained and watched with, and their fingerprint."""
    temperature: float | None = None
    """Where it was trained too; None: the base's own."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """Scores of the base on the held-out clips."""
    after: Mapping[str, Any] = field(default_factory=dict)
    """Of the adapter on the same."""
    raydist: str = __version__
    at: str = ""
    """When it was written, in UTC."""


def card_of(
    info: ModelInfo,
    *,
    recipe: Mapping[str, Any],
    data: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    temperature: float | None = None,
) -> Card:
    """The card of an adapter that was trained on a model, now.

    Raises:
        ValueError: the model has an adapter already, which the card could not name.
    """
    if info.adapter:
        raise ValueError(f"{info.name} is no base: it has the adapter in {info.adapter}")
    return Card(
        base=info.name if info.sampling == "exact" else info.name.rpartition("@")[0],
        base_digest=info.digest,
        base_location="" if info.repository else info.location,
        repository=info.repository,
        licence=info.licence,
        recipe=dict(recipe),
        data=dict(data),
        temperature=temperature,
        before=dict(before),
        after=dict(after),
        at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )


def write(lora: LoRA, folder: Path, card: Card) -> None:
    """Write the adapter with its card; what the folder held before is gone then."""
    with written_whole(folder.absolute(), replace=True) as part:
        lora.save(part, base=card.repository or card.base)
        (part / CARD).write_text(json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (part / "README.md").write_text(describe_card(card, name_of(folder)), encoding="utf-8")


def read_card(folder: Path) -> Card | None:
    """The card in an adapter's folder; None where another program wrote the adapter.

    Raises:
        ModelError: it cannot be read.
    """
    file = folder / CARD
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return Card(**{name: stored[name] for name in (part.name for part in fields(Card)) if name in stored})
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{str(file)!r} cannot be read ({error}); expected what `raydist train` wrote there"
        ) from error


def find(adapter: str, location: str = "", known: Sequence[str] | None = None) -> Path:
    """The folder of an adapter.

    Args:
        adapter: name of a run of the archive, else a folder: the adapter's own, or that of its run.
        location: the archive's folder; empty: there is none on this machine.
        known: runs of the archive that have an adapter; None: those in its folder.

    Raises:
        ModelError: there is no such adapter; the message says which there are.
    """
    run = Path(location) / "runs" / adapter if location and is_plain(adapter) else None
    path = Path(adapter).expanduser()
    for folder in (*((run / FOLDER,) if run else ()), path, path / FOLDER):
        if adapter.strip() and all((folder / name).is_file() for name in FILES):
            return folder.absolute()
    if run is not None and run.is_dir():
        raise ModelError(unfinished(adapter, str(run)))
    if path.is_dir():
        raise ModelError(missing(path))
    asked = "run of the archive, and no such " if location or known is not None else ""
    there = ", ".join(known if known is not None else runs(location) if location else ())
    raise ModelError(
        f"no adapter {adapter!r}: no such {asked}folder. "
        + (f"Runs with an adapter: {there}." if there else "Expected a folder that `raydist train` or PEFT wrote.")
    )


def unfinished(run: str, place: str) -> str:
    """That a run has no adapter yet, as a message."""
    return (
        f"the run {run!r} has no adapter: expected {FOLDER}/ in {place!r}. `raydist train --run {run}` goes on with a "
        "run that was stopped."
    )


def missing(folder: Path) -> str:
    """What a folder lacks to be an adapter's, as a message."""
    if not folder.is_dir():
        return f"no adapter at {str(folder)!r}: there is no such folder; bring it back, or name another"
    lacking = [name for name in FILES if not (folder / name).is_file()]
    return (
        f"no adapter at {str(folder)!r}: {' and '.join(lacking)} missing. Expected a folder as PEFT's save_pretrained "
        "writes it (a pickled adapter_model.bin is not opened)."
    )


def runs(location: str) -> list[str]:
    """Runs of an archive that have an adapter."""
    folders = (Path(location) / "runs").glob(f"*/{FOLDER}/{FILES[0]}")
    return sorted(file.parent.parent.name for file in folders)


def name_of(folder: Path) -> str:
    """How an adapter is called: by its run where the folder is just `adapter`, else by its folder."""
    folder = folder.absolute()
    return folder.parent.name or FOLDER if folder.name == FOLDER else folder.name


def describe_card(card: Card, name: str) -> str:
    """The card for people: Markdown, with the header that the hub reads."""
    base = card.repository or card.base
    learnt = "" if card.temperature is None else f"\n- temperature, trained too: {card.temperature:.6g}"
    before, after = dict(_flat(card.before)), dict(_flat(card.after))
    scores = [f"| {score} | {before.get(score, '')} | {value} |" for score, value in after.items()]
    return f"""---
library_name: peft
base_model: {json.dumps(base)}
tags: [lora]
---

# {name}

A LoRA adapter for {base}, trained by raydist {card.raydist}, {card.at}.

- base: {card.base}, weights `{card.base_digest}`
- licence of the base: {card.licence or "unknown"}{learnt}

`raydist embed --adapter {name}`, then `raydist search --adapter {name} "words"`.

## On held-out clips

| score | before | after |
|---|---|---|
{_lines(scores)}
## Data

{_lines(f"- {key}: {value}" for key, value in _flat(card.data))}
## Recipe

{_lines(f"- {key}: {value}" for key, value in _flat(card.recipe))}"""


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of what is nested, without lists."""
    for key, value in values.items():
        name = f"{above}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} ")
        elif isinstance(value, float):
            yield name, f"{value:.6g}"
        elif not isinstance(value, list | tuple):
            yield name, str(value)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def is_plain(name: str) -> bool:
    """Whether a name can be that of a run, and is no path."""
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name
