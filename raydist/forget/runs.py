"""What runs kept of a video: pages and pictures that show it, lists that name it, the strips of TensorBoard.

Pages and pictures go as a whole; of lists, only the lines and rows that name the video. Adapters and checkpoints stay:
what they learnt cannot be taken out of them, so they are named.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import escape

from raydist.clips import naming
from raydist.forget import events
from raydist.models.keys import cache_home
from raydist.store import objects
from raydist.store.erase import Target
from raydist.store.location import folder, is_uri, join
from raydist.store.manifest import Manifest
from raydist.store.runs import FOLDER, listed, run_folder, sweep_scratch

_TRAINED, _WATCHED = "trained.parquet", "watched.parquet"
_WHOLE = (".html", ".htm", ".png", ".jpg", ".jpeg", ".svg")
_SHEETS = (".html", ".htm", ".png")
_GONE = "(forgotten)"
_WRITTEN = ("file", "names", "sheet", "keep", "json")
"""Entries of a report's details that name a file."""
_KEPT_FOLDERS = ("adapter", "checkpoints", "tensorboard")


@dataclass(frozen=True)
class Traces:
    """How videos are called in files that are no tables."""

    target: Target
    paths: tuple[str, ...] = ()
    """Of their files, on this machine or on a server."""
    captions: tuple[str, ...] = ()
    """Of their clips; a page may show one without its clip."""

    @cached_property
    def _names(self) -> re.Pattern[str]:
        ids = [*self.target.video_ids, *(_as_listed(video) for video in self.target.video_ids)]
        # As people write it in lists, of which a report shows a line: with its last folders, or none.
        ends = {video.split("/", first)[-1] for video in ids for first in range(1, video.count("/") + 1)}
        # Not within a longer name; what follows may be `#t=`, a quotation mark, the end.
        return re.compile(
            rf"(?:(?<![\w.-]){_any_of([*ids, *self.paths])}|(?<![\w./-])(?:\./)?{_any_of(ends)})(?![\w-]|\.\w)"
        )

    def are_in(self, text: str) -> bool:
        """Whether a text names one of the videos."""
        return self._names.search(text) is not None

    def are_on(self, page: str) -> bool:
        """Whether a page names one of the videos, or shows a caption of it."""
        return self.are_in(page) or any(form in page for caption in self.captions for form in _on_pages(caption))


def _on_pages(text: str) -> tuple[str, str]:
    """A text as HTML: two ways to write quotation marks."""
    return html.escape(text), str(escape(text))


def _as_listed(video: str) -> str:
    """An id with its bytes as the file system has them, instead of `%25` and the like."""
    return naming.decode_path(video).decode(errors="replace")


def _any_of(names: Iterable[str]) -> str:
    """A pattern of names as they stand in texts, pages, links, JSON, CSV and messages."""
    forms = {
        form
        for name in names
        for form in (
            name,
            *_on_pages(name),
            quote(name),
            json.dumps(name)[1:-1],
            json.dumps(name, ensure_ascii=False)[1:-1],
            name.replace('"', '""'),
            repr(name)[1:-1],
            json.dumps(repr(name)[1:-1], ensure_ascii=False)[1:-1],
        )
    }
    return f"(?:{'|'.join(map(re.escape, sorted(forms, key=len)))})" if forms else r"(?!)"


def trained_on(location: str, target: Target) -> list[str]:
    """The runs whose training clips were of the videos."""
    found = []
    for name in listed(location, f"*/{_TRAINED}"):
        data = objects.read(location, f"{FOLDER}/{name}")
        if data is not None and any(_mask(pq.read_table(pa.BufferReader(data)), target)):
            found.append(name.partition("/")[0])
    return found


def exports(location: str, adapters: Sequence[str]) -> Iterator[str]:
    """What verbs wrote where `redact` does not reach, as their reports say: vectors, pages, lists; and checkpoints with
    one of these adapters."""
    for name in listed(location, "*/report.json"):
        try:
            details = json.loads(objects.read(location, f"{FOLDER}/{name}") or b"")["details"]
        except (OSError, ValueError, KeyError):
            continue
        places = [details.get(name) for name in _WRITTEN]
        if details.get("adapter") in adapters:
            places.append(details.get("folder"))
        for place in places:
            if isinstance(place, str) and place and not _is_reached(place, location):
                yield place


def _is_reached(place: str, location: str) -> bool:
    """Whether `redact` looks into a file: of a run, or a sheet in the archive's folder."""
    if is_uri(location):
        return place.startswith(f"{join(location, FOLDER)}/") and Path(place).suffix.lower() in _LOOKED_INTO
    file = Path(place)
    if file.is_relative_to(run_folder(location, "")):
        return file.suffix.lower() in _LOOKED_INTO
    return file.is_relative_to(location) and file.suffix in _SHEETS


def redact(location: str, traces: Traces) -> list[str]:
    """Free the files of runs of the videos, and this machine's copies of frames.

    Returns:
        The files that were deleted or changed, below the archive.
    """
    Manifest.sweep(location, list)
    sweep_scratch(location)
    changed = _freed_far(location, traces) if is_uri(location) else _freed(folder(location), traces)
    _drop_copies(traces.target)
    return changed


def _freed_far(location: str, traces: Traces) -> list[str]:
    """Free the files of runs in a bucket, by way of this machine's disk; its working copies go."""
    names = [name for name in listed(location, "**/*") if Path(name).suffix.lower() in _LOOKED_INTO]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        _bring(location, [name for name in names if not _is_kept(name.split("/"))], home)
        shown = [run.name for run in (home / FOLDER).glob("*") if _shows(run, traces.target)]
        for run in shown:
            _bring(location, listed(location, f"{run}/**/events.out.tfevents.*"), home)
        changed = _freed(home, traces)
        for name in changed:
            if (home / name).exists():
                objects.replace(location, name, (home / name).read_bytes())
            else:
                objects.delete(location, name)
    shutil.rmtree(run_folder(location, ""), ignore_errors=True)
    return changed


def _bring(location: str, names: Iterable[str], home: Path) -> None:
    """Download files of runs."""
    for name in names:
        data = objects.read(location, f"{FOLDER}/{name}")
        if data is not None:
            file = home / FOLDER / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def _freed(home: Path, traces: Traces) -> list[str]:
    """Free the files of runs in a folder of the archive's shape; those that were deleted or changed."""
    changed: list[str] = []
    top = home / FOLDER
    shown = {run for run in top.glob("*") if run.is_dir() and _shows(run, traces.target)}
    for file in sorted([*_files(top), *_pages(home)]):
        if _redacted(file, traces):
            changed.append(str(file.relative_to(home)))
    for run in sorted(shown):
        for file in sorted(run.glob("**/events.out.tfevents.*")):
            if events.without_pictures(file):
                changed.append(str(file.relative_to(home)))
    return changed


def _files(top: Path) -> Iterator[Path]:
    """Files of runs that may name a video."""
    for file in top.glob("**/*"):
        if file.is_file() and not _is_kept(file.relative_to(top).parts):
            yield file


def _is_kept(below: Sequence[str]) -> bool:
    """Whether a file, by its path below `runs`, is of a folder that stays as it is."""
    return len(below) > 2 and below[1] in _KEPT_FOLDERS


def _pages(location: Path) -> Iterator[Path]:
    """Sheets in the archive's folder beside its tables and runs, such as the demo's."""
    for place in location.iterdir():
        if place.is_dir() and place.suffix != ".lance" and place.name != FOLDER:
            yield from (file for file in place.glob("**/*") if file.suffix in _SHEETS)
        elif place.suffix in _SHEETS:
            yield place


def _shows(run: Path, target: Target) -> bool:
    """Whether clips of the videos are among those that a run's TensorBoard shows."""
    file = run / _WATCHED
    return file.is_file() and any(_mask(pq.read_table(file), target))


def _redacted(file: Path, traces: Traces) -> bool:
    """Whether the file named a video; it does not any more."""
    suffix = file.suffix.lower()
    if suffix in _WHOLE:
        beside = [other for other in file.parent.iterdir() if other.suffix.lower() in (".json", ".csv", ".jsonl")]
        is_page = suffix in (".html", ".htm")
        # A sheet that is a picture bears the names of its clips; of others, lists beside them tell.
        named = is_page or suffix == ".png"
        if (named and traces.are_on(_read(file))) or (
            not is_page and any(traces.are_in(_read(other)) for other in beside)
        ):
            file.unlink()
            return True
        return False
    if suffix == ".parquet":
        return _without_rows(file, traces.target)
    how = _HOW.get(suffix)
    if how is None or not traces.are_in(_read(file)):
        return False
    _replace(file, how(_read(file), traces).encode(errors="surrogateescape"))
    return True


def _read(file: Path) -> str:
    # Lines end as they do in the file.
    return file.read_bytes().decode(errors="surrogateescape")


def _replace(file: Path, data: bytes) -> None:
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    part.write_bytes(data)
    part.replace(file)


def _json(text: str, traces: Traces) -> str:
    try:
        return json.dumps(_without(json.loads(text), traces), indent=2, ensure_ascii=False) + "\n"
    except ValueError:  # half of one
        return ""


def _lines(text: str, traces: Traces) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not traces.are_in(line))


def _csv(text: str, traces: Traces) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    for row in csv.reader(io.StringIO(text, newline="")):
        if not any(traces.are_in(cell) for cell in row):
            writer.writerow(row)
    return file.getvalue()


_HOW: dict[str, Callable[[str, Traces], str]] = {
    ".json": _json,
    ".jsonl": _lines,
    ".txt": _lines,
    ".md": _lines,
    ".csv": _csv,
}
_LOOKED_INTO = (*_WHOLE, *_HOW, ".parquet")


def _without(value: Any, traces: Traces) -> Any:
    """A JSON value without what names a video: whole elements of lists, single values of objects."""
    if isinstance(value, str):
        return _GONE if traces.are_in(value) else value
    if isinstance(value, list):
        return [_without(each, traces) for each in value if not _names_it(each, traces)]
    if isinstance(value, dict):
        return {key: _without(each, traces) for key, each in value.items() if not traces.are_in(key)}
    return value


def _names_it(element: Any, traces: Traces) -> bool:
    """Whether an element of a list is about a video: it, or one of its values, names it."""
    if isinstance(element, str):
        return traces.are_in(element)
    values = element.values() if isinstance(element, dict) else element if isinstance(element, list) else ()
    inner = [text for value in values for text in (value if isinstance(value, list) else [value])]
    return any(isinstance(text, str) and traces.are_in(text) for text in inner)


def _without_rows(file: Path, target: Target) -> bool:
    table = pq.read_table(file)
    mask = _mask(table, target)
    if not any(mask):
        return False
    kept = table.filter(pc.invert(pa.array(mask)))
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    pq.write_table(kept, part)
    part.replace(file)
    return True


def _mask(table: pa.Table, target: Target) -> list[bool]:
    """Which rows of a file name a video, by any of the columns that do in tables."""
    wanted: dict[str, tuple[pa.DataType, Iterable[Any]]] = {
        "video_id": (pa.string(), target.video_ids),
        "clip_id": (pa.string(), target.clip_ids),
        "clip_key": (pa.int64(), target.keys),
        "a": (pa.int64(), target.keys),
        "b": (pa.int64(), target.keys),
    }
    found = [False] * table.num_rows
    for name, (kind, values) in wanted.items():
        if name in table.schema.names and table.schema.field(name).type == kind:
            hits = pc.is_in(table[name], value_set=pa.array(list(values), kind)).to_pylist()
            found = [old or new for old, new in zip(found, hits, strict=True)]
    return found


def _drop_copies(target: Target) -> None:
    """Frames that training copied to this machine; their names begin with the clip's key."""
    keys = {str(key) for key in target.keys}
    for file in (cache_home() / "frames").glob("*/*"):
        # A key may be negative: the fingerprint is what follows the last sign.
        if file.name.lstrip(".").rpartition("-")[0] in keys:
            file.unlink(missing_ok=True)
