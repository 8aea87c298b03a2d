"""What a scan is asked to look at: folders, files, globs and addresses, as selections below named roots."""

from __future__ import annotations

import difflib
import glob
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from raydist import address
from raydist.clips import naming
from raydist.errors import UsageError
from raydist.records import Remote
from raydist.scan import far

_REMOTE = Remote()


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A place that was scanned: a short name, and its folder on this machine or its address."""

    name: str
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to look at below one root."""

    root: Root
    below: bytes = b""
    """Folder below the root, or empty for all of it."""
    files: tuple[bytes, ...] | None = None
    """Single files below the root; None for whole folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Typed:
    """One path that was asked for, and the folder that it is to be found under if no root holds it yet."""

    path: str
    home: str

    @property
    def is_folder(self) -> bool:
        return self.path == self.home


def check(inputs: Iterable[str], remote: Remote = _REMOTE) -> None:
    """
    Raises:
        UsageError: if nothing is there; an archive should not be made for a slip of the pen.
        SourceError: if a server forbids to look, or cannot be reached.
    """
    for _ in _typed(inputs, remote):
        pass


def select(
    inputs: Iterable[str], known: Mapping[str, str], as_name: str | None = None, remote: Remote = _REMOTE
) -> list[Selection]:
    """Turn what was typed into selections below roots.

    Args:
        inputs: folders, files, globs or addresses.
        known: root name -> folder on this machine, or address.
        as_name: name for a new root.
        remote: how servers are asked.

    Raises:
        SourceError: a server forbids to look, or cannot be reached.
        UsageError: nothing there, a parent of a known root, or a name that is taken.
    """
    roots = {name: place if address.is_address(place) else os.path.realpath(place) for name, place in known.items()}
    folders: dict[tuple[str, bytes], Selection] = {}
    files: dict[str, list[bytes]] = {}
    # Short paths first: a folder becomes a root before those inside it ask for theirs, however they were typed.
    for typed in sorted(_typed(inputs, remote), key=lambda typed: (len(typed.home), not typed.is_folder)):
        name = _root_for(typed.home, roots, as_name)
        below = _below(typed.path, roots[name])
        if typed.is_folder:
            folders[name, below] = Selection(root=Root(name=name, location=roots[name]), below=below)
        else:
            files.setdefault(name, []).append(below)
    singles = [
        Selection(root=Root(name=name, location=roots[name]), files=tuple(dict.fromkeys(paths)))
        for name, paths in files.items()
    ]
    return _without_nested([*folders.values(), *singles])


def _below(path: str, root: str) -> bytes:
    if address.is_address(path):
        return address.below(path, root)
    below = os.fsencode(os.path.relpath(path, root))
    return b"" if below == b"." else below


def _typed(inputs: Iterable[str], remote: Remote) -> Iterator[_Typed]:
    for text in inputs:
        if address.is_address(text):
            place, is_folder = far.named(text, remote)
            yield _Typed(path=place, home=place if is_folder else address.parent(place))
            continue
        path = os.path.expanduser(text)
        if os.path.lexists(path):
            yield _named(path)
        elif glob.has_magic(path):
            yield from _globbed(path, text)
        else:
            raise _missing(path, text)


def _named(path: str, home: str = "") -> _Typed:
    if os.path.isdir(path):
        place = os.path.realpath(path)
        return _Typed(path=place, home=place)
    # A linked file keeps its own name; only the folder it lies in is resolved.
    place = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(path))
    return _Typed(path=place, home=home or os.path.dirname(place))


def _globbed(path: str, text: str) -> Iterator[_Typed]:
    found = sorted(glob.glob(path, recursive=True))
    if not found:
        raise UsageError(f"no file matches {text!r}: expected a folder, a file or a glob that matches videos")
    plain = path
    while glob.has_magic(plain):
        plain = os.path.dirname(plain)
    home = os.path.realpath(plain or ".")
    for name in found:
        if not os.path.isdir(name):  # `**` matches folders too; their files match by themselves
            yield _named(name, home)
        elif not path.rstrip("/").endswith("**"):
            yield _named(name)


def _missing(path: str, text: str) -> UsageError:
    hint = address.not_read(text)
    if hint:
        return UsageError(hint)
    folder = os.path.dirname(os.path.abspath(path))
    names = os.listdir(folder) if os.path.isdir(folder) else []
    near = difflib.get_close_matches(os.path.basename(path.rstrip("/")), names, n=1)
    hint = f"did you mean {os.path.join(os.path.dirname(text), near[0])!r}?" if near else "check the path;"
    return UsageError(f"{text!r} does not exist: {hint} expected a folder, a file or a glob of videos")


def _root_for(folder: str, roots: dict[str, str], as_name: str | None) -> str:
    """Name of the root that holds the folder; a new one is added to `roots`."""
    for name, place in roots.items():
        if folder == place or folder.startswith(place.rstrip("/") + "/"):
            return name
    inside = [name for name, place in roots.items() if place.startswith(folder.rstrip("/") + "/")]
    if inside:
        raise UsageError(
            f"{folder!r} is a parent of the root {inside[0]!r} ({roots[inside[0]]}), whose clips would get "
            "second names: scan its other folders one by one, or start a new archive for all of it"
        )
    last = address.name(folder) if address.is_address(folder) else os.fsencode(os.path.basename(folder))
    name = unicodedata.normalize("NFC", as_name or naming.encode_path(last) or "root")
    if name in roots:
        raise UsageError(
            f"a root named {name!r} is already in the archive ({roots[name]}); {folder!r} is another place: "
            "add --as NAME to name it, or --moved OLD NEW if the folder was moved"
        )
    if "/" in name or "#t=" in name:
        raise UsageError(f"{name!r} cannot name a root: expected --as NAME, a name without '/' and '#t='")
    if any("\ud800" <= char <= "\udfff" for char in folder):
        raise UsageError(
            f"{folder!r} cannot be a root, its path holds bytes that are no text: expected a path in UTF-8; files and "
            "folders below it may have any name"
        )
    roots[name] = folder
    return name


def _without_nested(selections: list[Selection]) -> list[Selection]:
    """Drop what lies inside another selected folder, so that no file is looked at twice."""
    folders = {(s.root.name, s.below) for s in selections if s.files is None}

    def covered(root: str, path: bytes) -> bool:
        parents = [path]
        while parents[-1]:
            parents.append(parents[-1].rpartition(b"/")[0])
        return any((root, parent) in folders for parent in parents[1:])

    kept = []
    for selection in selections:
        if selection.files is None:
            if not covered(selection.root.name, selection.below):
                kept.append(selection)
        else:
            files = tuple(path for path in selection.files if not covered(selection.root.name, path))
            if files:
                kept.append(Selection(root=selection.root, files=files))
    return kept
