"""Captions beside clips: folders of `.txt`, `.json`, `.srt` and `.vtt` files, and shards of WebDataset.

Reads     a folder as video2dataset writes it (`00012.mp4`, `00012.txt`, `00012.json`), a `.tar` with such members, a
          folder of `.tar`, subtitles alone
Gives     a listing in `COLUMNS`: what a file says of itself (`clip_id`), the name that it shares with its video, its
          captions and times
Promises  media are passed over, not read; what is no caption is counted and said; one bad file does not end the import
"""

from __future__ import annotations

import json
import lzma
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from raydist import tabular
from raydist.caption import subtitles
from raydist.caption.times import milliseconds
from raydist.caption.words import ENDS, STARTS, TEXTS, text_of, texts_of
from raydist.clips import naming
from raydist.errors import UsageError
from raydist.tabular import Line, Listing, plain

COLUMNS = ("clip_id", "stem", "others", "caption", "start_ms", "end_ms", "cue")
"""`others`: names of the video that a `.json` gives, tried where the stem is unknown; `cue`: a span of subtitles."""

_TEXT, _JSON, _SHARD = ".txt", ".json", ".tar"
_MAX_BYTES = 8 << 20
"""Larger files of captions are none."""
_NAMING = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
"""Kinds of members that hold what is said of the next one."""
_TIMES = {"start_ms": [name for name in STARTS if name != "from"], "end_ms": [name for name in ENDS if len(name) > 2]}
"""Without words that say other things in an object of metadata."""


_Samples: TypeAlias = dict[str, list[dict[str, str]]]
"""Stem -> its samples, mostly one: suffix -> text."""


@dataclass(slots=True)
class _Found:
    """What was read so far."""

    named: str
    """The key of captions in `.json` files; empty: a known one."""
    lines: list[Line] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    """Kind of file -> how many gave captions."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Suffix -> how many."""
    western: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    """Files that are no text, no JSON or too large, each with the reason."""
    broken_cues: int = 0

    def listing(self, file: str, option: str) -> Listing:
        """All of it."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        notes = [f"captions from: {kinds}"] if kinds else []
        if self.ignored:
            suffixes = ", ".join(f"{suffix} {count:,}" for suffix, count in self.ignored.most_common(5))
            notes.append(f"{self.ignored.total():,} files of other kinds ignored: {suffixes}")
        if self.western:
            notes.append(f"read as Windows-1252 (Latin-1), for they are no UTF-8: {_some(self.western)}")
        if self.unusable:
            notes.append(f"left out: {_some(self.unusable)}")
        if self.broken_cues:
            notes.append(f"{self.broken_cues:,} subtitles left out: their times are none, or end before they start")
        return Listing(
            file=file, option=option, columns=COLUMNS, lines=tuple(self.lines), notes=tuple(notes), beside=True
        )

    def file(self, path: str, name: str) -> str | None:
        """The same of a file of a folder, or None where it cannot be read."""
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            self.unusable.append(f"{name} ({error.strerror or error})")
            return None
        return self.text(data, name)

    def text(self, data: bytes, name: str) -> str | None:
        """The text of a file, or None where it is none."""
        if len(data) > _MAX_BYTES:
            self.unusable.append(f"{name} (more than {_MAX_BYTES >> 20} MiB)")
            return None
        try:
            text, western = tabular.decoded(data, name)
        except UsageError as error:
            self.unusable.append(name + str(error)[len(name) :].partition(":")[0])
            return None
        self.western += [name] * western
        return text

    def add(self, stem: str, name: str, caption: Any, **values: Any) -> None:
        """Captions of one clip or video."""
        given = {"stem": stem, "caption": caption, **values}
        self.lines.append(Line(number=len(self.lines) + 1, values=given, source=name))

    def count(self, kind: str, gave: bool) -> None:
        """Count a file that gave captions."""
        if gave:
            self.kinds[kind] += 1

    def sample(self, stem: str, files: Mapping[str, str]) -> None:
        """A clip's `.txt` and `.json`, by suffix; what both say counts once."""
        said = (files.get(_TEXT) or "").strip()
        self.count(_TEXT, bool(said))
        name = f"{stem}{_JSON if _JSON in files else _TEXT}"
        entries = self._entries(files[_JSON], name) if _JSON in files else []
        if len(entries) <= 1:
            entry = entries[0] if entries else {}
            texts = texts_of(entry.get("caption"))
            if texts is not None and said not in ("", *texts):
                texts.append(said)
            if texts is None:  # such as the number of a class, beside a text
                texts = [said] if said else entry["caption"]
            self.add(stem, name, **{**entry, "caption": texts})
            return
        for entry in entries:
            self.add(stem, name, **entry)
        if said and not any(said in (texts_of(entry["caption"]) or ()) for entry in entries):
            self.add(stem, f"{stem}{_TEXT}", [said])

    def subtitles(self, stem: str, name: str, text: str) -> None:
        """The cues of a file."""
        found, broken = subtitles.cues(text)
        self.broken_cues += broken
        self.count(os.path.splitext(name)[1].lower(), bool(found))
        for cue in found:
            times = {"start_ms": cue.start_ms, "end_ms": cue.end_ms}
            self.add(stem, f"{name}, line {cue.line}", [cue.text], cue=True, **times)

    def _entries(self, text: str, name: str) -> list[dict[str, Any]]:
        """What a `.json` says: one entry for its clip, or one for each of the clips that it lists."""
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            self.unusable.append(f"{name} (no JSON)")
            return []
        if isinstance(whole, str | list):
            whole = {self.named or TEXTS[0]: whole}
        if not isinstance(whole, dict):
            return []
        key, said = text_of(whole, self.named)
        own, parts = _about(whole), whole.get("clips")
        if isinstance(parts, list) and parts and all(isinstance(part, dict) for part in parts):
            entries = [{**own, **_about(part), "caption": text_of(part, self.named)[1]} for part in parts]
            self.count(f"{_JSON} (`clips`)", any(entry["caption"] for entry in entries))
            return [{**own, "caption": said}, *entries] if said else entries
        self.count(f"{_JSON} (`{key}`)", bool(key))
        # One span alone says where the file was cut out of another one.
        if isinstance(parts, list) and isinstance(said, list) and len(parts) == len(said) > 1:
            spans = [{"start": part[0], "end": part[1]} for part in parts if isinstance(part, list) and len(part) == 2]
            if len(spans) == len(said):
                return [{**own, **_about(span), "caption": text} for span, text in zip(spans, said, strict=True)]
        return [{**own, "caption": said}]


def is_beside(path: str) -> bool:
    """Whether a path is a folder, a shard or subtitles, and not a list."""
    return os.path.isdir(path) or path.lower().endswith(subtitles.SUFFIXES) or _is_tar(path)


def read(file: str, option: str, key: str = "") -> Listing:
    """Captions of a folder, a shard or subtitles.

    Args:
        key: of the captions in `.json` files; empty: a known one.

    Raises:
        UsageError: it cannot be read, or holds nothing of that kind.
    """
    path, what = os.path.expanduser(file), f"{option} {file!r}"
    found = _Found(named=key)
    try:
        if os.path.isdir(path):
            _of_folder(path, what, found)
        elif path.lower().endswith(subtitles.SUFFIXES):
            _of_subtitles(path, found)
        else:
            _of_shard(path, what, found)
    except OSError as error:
        raise UsageError(f"{what} cannot be read ({error.strerror or error})") from error
    listing = found.listing(file, option)
    if not listing.lines:
        reasons = f" ({'; '.join(listing.notes)})" if listing.notes else ""
        raise UsageError(
            f"{what} holds no captions{reasons}: expected .txt, .json, .srt or .vtt files named as the clips' files, "
            "or .tar shards of them; a list of captions is named as a file"
        )
    return listing


def _of_subtitles(path: str, found: _Found) -> None:
    name = _shown(os.path.basename(path))
    with open(path, "rb") as file:
        text = found.text(file.read(_MAX_BYTES + 1), name)
    if text is not None:
        found.subtitles(os.path.splitext(name)[0], name, text)


def _gather(samples: _Samples, stem: str, suffix: str, text: str) -> None:
    """Add a text to its sample; a second one of its name, as `a.TXT` or later in a shard, is one more sample."""
    several = samples.setdefault(stem, [{}])
    if suffix in several[-1]:
        several.append({})
    several[-1][suffix] = text


def _of_folder(top: str, what: str, found: _Found) -> None:
    shards: list[str] = []
    for folder, names in _folders(top):
        samples: _Samples = {}
        for name in sorted(names):
            below = os.path.relpath(os.path.join(folder, name), top)
            stem, suffix = os.path.splitext(below)
            suffix = suffix.lower()
            if suffix == _SHARD:
                shards.append(os.path.join(folder, name))
            elif suffix not in (_TEXT, _JSON, *subtitles.SUFFIXES):
                found.ignored[_shown(suffix) or "no suffix"] += 1
            else:
                text = found.file(os.path.join(folder, name), _shown(below))
                if text is not None and suffix in subtitles.SUFFIXES:
                    found.subtitles(_shown(stem), _shown(below), text)
                elif text is not None:
                    _gather(samples, _shown(stem), suffix, text)
        for stem, several in samples.items():
            for files in several:
                found.sample(stem, files)
    if found.kinds and shards:
        found.ignored[_SHARD] += len(shards)
    else:
        for shard in shards:
            _of_shard(shard, f"{what}: {_shown(os.path.relpath(shard, top))!r}", found, _shown(os.path.basename(shard)))


def _folders(top: str) -> Iterator[tuple[str, list[str]]]:
    """Folders and the files in them, without hidden ones, archives of raydist and what cannot be read."""
    for folder, inner, names in os.walk(top):
        if "archive.json" in names and any(name.endswith(".lance") for name in inner):
            inner.clear()
            continue
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        wanted = [name for name in names if not name.startswith(".")]
        yield folder, [name for name in wanted if os.path.isfile(os.path.join(folder, name))]


class _Header(tarfile.TarInfo):
    """A member's header; what is said beside it is read at once, so it must be of a size that names have."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _NAMING and header.size > _MAX_BYTES:
            raise tarfile.ReadError(f"{header.size:,} bytes for a name")
        return header


def _of_shard(path: str, what: str, found: _Found, shown: str = "") -> None:
    """Samples of a WebDataset shard: members whose names agree up to the first dot of the last part."""
    samples: _Samples = {}
    try:
        with tarfile.open(path, "r:*", tarinfo=_Header) as shard:
            while (member := shard.next()) is not None:
                shard.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
                head, slash, name = _shown(member.name).removeprefix("./").rpartition("/")
                base, dot, suffix = name.partition(".")
                suffix = f"{dot}{suffix.lower()}"
                if not member.isreg() or not base:
                    continue
                if suffix not in (_TEXT, _JSON):
                    found.ignored[f".{suffix.rpartition('.')[2]}"] += 1
                    continue
                data = shard.extractfile(member)
                text = found.text(data.read(_MAX_BYTES + 1) if data else b"", f"{shown}{':' * bool(shown)}{name}")
                if text is not None:
                    _gather(samples, f"{head}{slash}{base}", suffix, text)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError) as error:
        raise UsageError(f"{what} is no whole tar file ({error}): expected a shard of WebDataset; copy it again") from (
            error
        )
    for stem, several in samples.items():
        for files in several:
            found.sample(stem, files)


def _is_tar(path: str) -> bool:
    return path.lower().endswith((_SHARD, ".tar.gz", ".tgz"))


def _about(values: Mapping[str, Any]) -> dict[str, Any]:
    """Clip id, other names and times that an object gives."""
    about: dict[str, Any] = {}
    others = []
    for name in tabular.PLACES:
        for key, value in values.items():
            if plain(key) == name and isinstance(value, str) and value.strip():
                others.append(value)
                if name == "clip_id" and "#t=" in value:  # another tool's says nothing here
                    about["clip_id"] = value
    for column, known in _TIMES.items():
        key = next((key for name in known for key in values if plain(key) == name), "")
        if key and values[key] not in (None, ""):
            time_ms = milliseconds(values[key], in_ms=plain(key).endswith("_ms"))
            about[column] = str(values[key]) if time_ms is None else time_ms
    return {**about, **({"others": others} if others else {})}


def _shown(path: str) -> str:
    """A path as ids have it, whatever bytes it is of."""
    return naming.encode_path(os.fsencode(path)).replace(os.sep, "/")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
