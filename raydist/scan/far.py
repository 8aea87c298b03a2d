"""far: what a scan sees of a server: folders and files of a bucket, single files of a web server.

Buckets have no folders, only keys with slashes: what lies before one counts as a folder. Nothing is opened.
"""

from __future__ import annotations

from raydist import address
from raydist.clips.buckets import Entry, entries, look
from raydist.clips.remote import shown
from raydist.clips.retry import Tries
from raydist.clips.web import WebFile
from raydist.errors import SourceError, UsageError
from raydist.records import Remote

Looked = tuple[int, int, str, str]
"""bytes, modified ns, reason, detail"""


def named(text: str, remote: Remote) -> tuple[str, bool]:
    """What was typed, as an archive holds it, and whether it is a folder.

    Raises:
        UsageError: nothing is there, or the address holds a secret or a query.
        SourceError: forbidden or unreadable.
    """
    try:
        location = address.plain(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if address.scheme_of(location) in address.WEB:
        if text.endswith("/") or location == address.parent(location):
            raise UsageError(
                f"{shown(location)} names a folder of a web server, which nothing lists: expected the URLs of files"
            )
        try:
            _web_file(location, remote)
        except SourceError as error:
            if error.reason != "missing":
                raise
            raise UsageError(f"{error.detail}; check the URL") from error
        return location, False
    found = look(location, remote)
    if found is None:
        star = " Globs are for folders on a disk." if "*" in location else ""
        raise UsageError(f"{shown(location)} does not exist: expected a bucket, a prefix or a file in one.{star}")
    return location, found.is_folder


def require_folder(location: str, remote: Remote) -> None:
    """
    Raises:
        UsageError: no such place; a web server is not asked, for it knows no folders.
        SourceError: forbidden or unreadable.
    """
    if address.scheme_of(location) in address.BUCKETS:
        found = look(location, remote)
        if found is None or not found.is_folder:
            raise UsageError(f"{shown(location)} is no bucket or prefix; expected where the videos are now")


class Folders:
    """Folders of a bucket, or files of a web server, below a root; remembers what it listed last."""

    def __init__(self, root: str, remote: Remote) -> None:
        self._root = root
        self._remote = remote
        self._known: dict[bytes, Entry] = {}

    def listed(self, below: bytes) -> tuple[list[bytes], list[bytes]]:
        """Names of the files in a folder, and the folders in it below the root.

        Raises:
            SourceError: forbidden or unreadable.
        """
        self._known = {}
        names: list[bytes] = []
        deeper: list[bytes] = []
        for entry in sorted(entries(address.join(self._root, below), self._remote), key=lambda entry: entry.name):
            name = entry.name.encode(errors="surrogateescape")
            path = b"/".join([below, name]) if below else name
            if entry.is_folder:
                deeper.append(path)
            else:
                names.append(name)
                self._known[path] = entry
        return names, deeper

    def look(self, path: bytes) -> Looked:
        """Size and time of a file, or why there are none."""
        entry = self._known.get(path)
        if entry is None:
            try:
                entry = self._ask(address.join(self._root, path))
            except SourceError as error:
                return 0, 0, error.reason, error.detail
        if entry is None:
            return 0, 0, "missing", "the file went away; scan again"
        if entry.is_folder:
            return 0, 0, "not_a_file", "expected a file; found a folder"
        return entry.bytes, entry.modified_ns, "", ""

    def twin(self, composed: bytes, path: bytes) -> bytes | None:
        """The path that is spelt as `composed`, if another file has it."""
        return composed if composed in self._known else None

    def _ask(self, location: str) -> Entry | None:
        if address.scheme_of(location) in address.BUCKETS:
            return look(location, self._remote)
        file = _web_file(location, self._remote)
        name = address.name(location).decode(errors="surrogateescape")
        return Entry(name=name, is_folder=False, bytes=max(0, file.size), modified_ns=file.modified_ns)


def _web_file(location: str, remote: Remote) -> WebFile:
    return Tries(remote)(shown(location), lambda: WebFile(location, remote))
