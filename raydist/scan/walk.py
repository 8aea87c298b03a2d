"""Which files a scan looks at: roots, folders, sidecars, hidden files. Names and sizes only; no file is opened."""

from __future__ import annotations

import difflib
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from raydist.clips import naming
from raydist.errors import UsageError

SIDECARS = (b".txt", b".json", b".srt", b".vtt", b".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A place that was scanned: a short name, and its folder on this machine."""

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
class Candidate:
    """A file to consider."""

    video_id: str
    root: str
    path: str
    """Below the root, as `naming.encode_path` writes it."""
    bytes: int
    modified_ns: int
    reason: str = ""
    """Why it fails without being opened."""
    detail: str = ""


@dataclass(slots=True)
class Walked:
    """Counts and hints gathered while walking."""

    skipped: Counter[str] = field(default_factory=Counter)
    hints: dict[str, str] = field(default_factory=dict)
    """Folder -> the naming template that its names suggest."""


def select(inputs: Iterable[str], known: Mapping[str, str], as_name: str | None = None) -> list[Selection]:
    """Turn what was typed into selections below roots.

    Args:
        inputs: folders, files or globs.
        known: root name -> folder on this machine.
        as_name: name for a new root.

    Raises:
        UsageError: nothing there, a parent of a known root, or a name that is taken.
    """
    roots = {name: os.path.realpath(place) for name, place in known.items()}
    chosen: dict[tuple[str, bytes], Selection] = {}
    files: dict[str, list[bytes]] = {}
    for typed in inputs:
        for path in _expand(typed):
            is_folder = os.path.isdir(path)
            place = (
                os.path.realpath(path)
                if is_folder
                else os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            )
            name = _root_for(place if is_folder else os.path.dirname(place), roots, as_name)
            below = os.fsencode(os.path.relpath(place, roots[name]))
            if is_folder:
                below = b"" if below == b"." else below
                chosen[name, below] = Selection(root=Root(name=name, location=roots[name]), below=below)
            else:
                files.setdefault(name, []).append(below)
    for name, paths in files.items():
        chosen[name, b"*"] = Selection(root=Root(name=name, location=roots[name]), files=tuple(dict.fromkeys(paths)))
    return _without_nested(list(chosen.values()))


def _expand(typed: str) -> list[str]:
    path = os.path.expanduser(typed)
    if os.path.lexists(path):
        return [os.path.abspath(path)]
    if glob.has_magic(path):
        found = sorted(glob.glob(path, recursive=True))
        if found:
            return [os.path.abspath(name) for name in found]
        raise UsageError(f"no file matches {typed!r}: expected a folder, a file or a glob that matches videos")
    folder = os.path.dirname(os.path.abspath(path))
    names = os.listdir(folder) if os.path.isdir(folder) else []
    near = difflib.get_close_matches(os.path.basename(path), names, n=1)
    hint = f"did you mean {os.path.join(os.path.dirname(typed), near[0])!r}?" if near else "check the path."
    raise UsageError(f"{typed!r} does not exist: {hint} expected a folder, a file or a glob of videos")


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
    name = as_name or naming.encode_path(os.fsencode(os.path.basename(folder))) or "root"
    if name in roots:
        raise UsageError(
            f"a root named {name!r} is already in the archive ({roots[name]}); {folder!r} is another place: "
            "add --as NAME to name it, or --moved OLD NEW if the folder was moved"
        )
    if "/" in name or "#t=" in name:
        raise UsageError(f"--as {name!r}: expected a name without '/' and '#t='")
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


def walk(selection: Selection, walked: Walked, avoid: str = "") -> Iterator[Candidate]:
    """Yield the files of a selection, folder by folder, in the order of their names.

    Linked files are followed, linked folders are not (they can make circles); both facts are counted where it matters.
    `avoid` is a folder to leave out: the archive itself.
    """
    base = os.fsencode(selection.root.location)
    if selection.files is not None:
        for path in selection.files:
            yield _candidate(selection.root, base, path)
        return
    folders = [selection.below]
    while folders:
        below = folders.pop()
        names: list[bytes] = []
        deeper: list[bytes] = []
        with os.scandir(os.path.join(base, below)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name.startswith(b"."):
                        walked.skipped["hidden"] += 1
                    elif os.fsdecode(os.path.realpath(entry.path)) != avoid:
                        deeper.append(os.path.join(below, entry.name))
                elif entry.is_symlink() and entry.is_dir():
                    walked.skipped["linked_folder"] += 1
                else:
                    names.append(entry.name)
        folders.extend(sorted(deeper, reverse=True))
        yield from _in_folder(selection.root, base, below, sorted(names), walked)


def _in_folder(root: Root, base: bytes, below: bytes, names: list[bytes], walked: Walked) -> Iterator[Candidate]:
    hint = naming.looks_pre_cut([os.fsdecode(name) for name in names])
    if hint:
        walked.hints[os.fsdecode(below) or root.name] = hint
    stems = {os.path.splitext(name)[0] for name in names if not name.lower().endswith(SIDECARS)}
    whole = set(names)
    for name in names:
        if name.startswith(b"."):
            walked.skipped["hidden"] += 1
        elif _is_sidecar(name, stems, whole):
            walked.skipped["sidecar"] += 1
        else:
            yield _candidate(root, base, os.path.join(below, name))


def _is_sidecar(name: bytes, stems: set[bytes], names: set[bytes]) -> bool:
    """Whether a text file belongs to a video beside it: a.mp4 has a.txt, a.en.srt and a.mp4.json."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in SIDECARS:
        return False
    return stem in stems or stem in names or os.path.splitext(stem)[0] in stems


def _candidate(root: Root, base: bytes, path: bytes) -> Candidate:
    encoded = naming.encode_path(path)
    video_id = naming.video_id(root.name, encoded)
    size, modified_ns, reason, detail = _look(os.path.join(base, path))
    if not reason and naming.video_id(root.name, encoded) != f"{root.name}/{encoded}":
        reason, detail = _collision(base, path, encoded)
    return Candidate(
        video_id=video_id,
        root=root.name,
        path=encoded,
        bytes=size,
        modified_ns=modified_ns,
        reason=reason,
        detail=detail,
    )


def _look(location: bytes) -> tuple[int, int, str, str]:
    """(bytes, modified ns, reason, detail) without opening the file: a FIFO would block."""
    try:
        found = os.stat(location)
    except FileNotFoundError:
        if os.path.islink(location):
            return 0, 0, "not_a_file", "a link to nothing; mend or remove it"
        return 0, 0, "missing", "the file went away; scan again"
    except OSError as error:
        return (
            0,
            0,
            "not_a_file" if os.path.islink(location) else "unreadable",
            f"{error.strerror}; check it with `ls -l`",
        )
    if not stat.S_ISREG(found.st_mode):
        return 0, found.st_mtime_ns, "not_a_file", "expected a regular file; found a folder, FIFO, socket or device"
    return found.st_size, found.st_mtime_ns, "", ""


def _collision(base: bytes, path: bytes, encoded: str) -> tuple[str, str]:
    """A name that is not NFC may share its id with a sibling that is spelt otherwise."""
    composed = naming.decode_path(naming.video_id("", encoded)[1:])
    other, own = os.path.join(base, composed), os.path.join(base, path)
    if os.path.lexists(other) and not os.path.samefile(other, own):
        both = f"{os.fsdecode(path)!r} and {os.fsdecode(composed)!r}"
        return "id_collision", f"{both} differ only in how letters are composed and would share one id; rename one"
    return "", ""
