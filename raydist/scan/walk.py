"""Which files a scan considers: sidecars, hidden files, links, names that collide. No file is opened."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from raydist import address
from raydist.clips import naming
from raydist.errors import SourceError
from raydist.records import Remote
from raydist.scan import far
from raydist.scan.select import Root, Selection

SIDECARS = (b".txt", b".json", b".srt", b".vtt", b".csv")

_REMOTE = Remote()

_LAST_NS = (1 << 63) - 1
"""In the year 2262; what a file system may hold beyond it fits into no column."""


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
    closed: list[tuple[str, str]] = field(default_factory=list)
    """(root, encoded folder below it) that could not be listed."""
    composed: dict[str, bytes] = field(default_factory=dict)
    """Video id -> path, of paths that are spelt otherwise than their id."""


def walk(selection: Selection, walked: Walked, avoid: str = "", remote: Remote = _REMOTE) -> Iterator[Candidate]:
    """Yield the files of a selection, folder by folder, in the order of their names.

    Linked files are followed, linked folders are not (they can make circles); both facts are counted where it matters.
    `avoid` is a folder to leave out: the archive itself. Other archives are left out too, and counted.
    """
    place = selection.root.location
    there = far.Folders(place, remote) if address.is_address(place) else _Disk(os.fsencode(place), walked, avoid)
    if selection.files is not None:
        yield from _chosen(selection, there, walked)
        return
    folders = [selection.below]
    while folders:
        below = folders.pop()
        try:
            names, deeper = there.listed(below)
        except FileNotFoundError:
            continue  # it went away while the scan was at work, and its files with it
        except (OSError, SourceError):
            walked.closed.append((selection.root.name, naming.encode_path(below)))
            continue
        if _is_archive(names, deeper):
            walked.skipped["archive"] += 1
            continue
        hidden = {folder for folder in deeper if os.path.basename(folder).startswith(b".")}
        if hidden:
            walked.skipped["hidden"] += len(hidden)
        folders.extend(sorted(set(deeper) - hidden, reverse=True))
        yield from _in_folder(selection.root, there, below, sorted(names), walked)


def _chosen(selection: Selection, there: _Place, walked: Walked) -> Iterator[Candidate]:
    """Files that were named one by one: hidden ones too; sidecars only where they stand alone (`FOLDER/*`)."""
    assert selection.files is not None
    folders: dict[bytes, list[bytes]] = {}
    for path in selection.files:
        folders.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
    for below, names in folders.items():
        yield from _in_folder(selection.root, there, below, names, walked, hidden=True)


class _Place(Protocol):
    """Where the files of a root are."""

    def listed(self, below: bytes) -> tuple[list[bytes], list[bytes]]:
        """Names of the files in a folder, and the folders in it below the root."""

    def look(self, path: bytes) -> far.Looked:
        """(bytes, modified ns, reason, detail) without opening the file."""

    def twin(self, composed: bytes, path: bytes) -> bytes | None:
        """The path that is spelt as `composed`, if another file than that at `path` has it."""


@dataclass(frozen=True)
class _Disk:
    """A folder of this machine."""

    base: bytes
    walked: Walked
    avoid: str

    def listed(self, below: bytes) -> tuple[list[bytes], list[bytes]]:
        names: list[bytes] = []
        deeper: list[bytes] = []
        with os.scandir(os.path.join(self.base, below)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if os.fsdecode(os.path.realpath(entry.path)) != self.avoid:
                        deeper.append(os.path.join(below, entry.name))
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    self.walked.skipped["linked_folder"] += 1
                else:
                    names.append(entry.name)
        return names, deeper

    def look(self, path: bytes) -> far.Looked:
        return _look(os.path.join(self.base, path))

    def twin(self, composed: bytes, path: bytes) -> bytes | None:
        place = os.path.join(self.base, composed)
        try:
            # Some file systems find a file by any spelling of its name.
            return None if os.path.samefile(place, os.path.join(self.base, path)) else composed
        except OSError:
            return composed if os.path.lexists(place) else None


def _is_archive(names: list[bytes], folders: list[bytes]) -> bool:
    """Whether a folder is another raydist archive: it holds tables and reports, no videos."""
    return b"archive.json" in names and any(folder.endswith(b".lance") for folder in folders)


def _in_folder(
    root: Root, there: _Place, below: bytes, names: list[bytes], walked: Walked, hidden: bool = False
) -> Iterator[Candidate]:
    hint = naming.looks_pre_cut([os.fsdecode(name) for name in names])
    if hint:
        walked.hints[os.fsdecode(below) or root.name] = hint
    stems = {os.path.splitext(name)[0] for name in names if not name.lower().endswith(SIDECARS)}
    whole = set(names)
    for name in names:
        if name.startswith(b".") and not hidden:
            walked.skipped["hidden"] += 1
        elif _is_sidecar(name, stems, whole):
            walked.skipped["sidecar"] += 1
        else:
            yield _candidate(root, there, os.path.join(below, name), walked)


def _is_sidecar(name: bytes, stems: set[bytes], names: set[bytes]) -> bool:
    """Whether a text file belongs to a video beside it: a.mp4 has a.txt, a.en.srt and a.mp4.json."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in SIDECARS:
        return False
    return stem in stems or stem in names or os.path.splitext(stem)[0] in stems


def _candidate(root: Root, there: _Place, path: bytes, walked: Walked) -> Candidate:
    encoded = naming.encode_path(path)
    video_id = naming.video_id(root.name, encoded)
    size, modified_ns, reason, detail = there.look(path)
    if video_id != f"{root.name}/{encoded}":
        other = _same_id(there, path, video_id, root, walked)
        if other is not None:
            both = f"{os.fsdecode(path)!a} and {os.fsdecode(other)!a}"
            reason = "id_collision"
            detail = f"{both} differ only in how letters are composed and would share one id; rename one"
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
        reason = "not_a_file" if os.path.islink(location) else "unreadable"
        return 0, 0, reason, f"{error.strerror}; check it with `ls -l`"
    modified_ns = max(-_LAST_NS, min(found.st_mtime_ns, _LAST_NS))
    if not stat.S_ISREG(found.st_mode):
        return 0, modified_ns, "not_a_file", "expected a regular file; found a folder, FIFO, socket or device"
    return found.st_size, modified_ns, "", ""


def _same_id(there: _Place, path: bytes, video_id: str, root: Root, walked: Walked) -> bytes | None:
    """The path of another file that has this id, which is spelt otherwise than `path`."""
    other = walked.composed.setdefault(video_id, path)
    if other != path:
        return other
    return there.twin(naming.decode_path(video_id[len(root.name) + 1 :]), path)
