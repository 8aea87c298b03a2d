"""frames/local: a node's own copies of the frames that it has read, one file a clip.

Promises  a file is whole or not there; the name holds the clip's fingerprint, so a changed clip is another file; the
          folder stays within its bound: what is full takes no more, for with a shuffle every clip is as likely to come
          next as any other
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

_RECOUNTS = 32
"""Times that a folder is counted anew while it fills: other processes fill it too."""
_SHARE = 0.8
"""Of what is free on the disk that a folder may take: a node's scratch is often small, and others live on it."""
_ROOM = 0.9
"""A folder that is full when it is opened gives up its oldest files until it is filled by this share."""


class LocalCopies:
    """Copies below a folder, shared by all processes of the node."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._limit = limit_bytes
        self._bytes = self._tidied()
        self._limit = min(limit_bytes, self._bytes + int(_SHARE * shutil.disk_usage(folder).free))
        self._written = 0

    def get(self, clip_key: int, fingerprint: str) -> bytes | None:
        """The frames of a clip as they are kept; None where there is no copy."""
        try:
            return self._path(clip_key, fingerprint).read_bytes()
        except OSError:  # not there, or a disk that fails: there are other places to read from
            return None

    def put(self, clip_key: int, fingerprint: str, data: bytes | memoryview) -> None:
        """Keep a copy, if there is room; a disk that fails keeps none."""
        if self._bytes + len(data) > self._limit:
            return
        path = self._path(clip_key, fingerprint)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            return
        self._bytes += len(data)
        self._written += len(data)
        if self._written > self._limit / _RECOUNTS:
            self._bytes, self._written = sum(size for _, size, _ in self._files()), 0

    def drop(self, clip_key: int, fingerprint: str) -> None:
        """Forget a copy that turned out to be none."""
        with suppress(OSError):
            self._path(clip_key, fingerprint).unlink(missing_ok=True)

    def _path(self, clip_key: int, fingerprint: str) -> Path:
        return self._folder / f"{clip_key}-{fingerprint}"

    def _tidied(self) -> int:
        """Bytes that are there, after the oldest files have left a folder that was full."""
        files = self._files()
        total = sum(size for _, size, _ in files)
        if total <= self._limit:
            return total
        for _, size, path in sorted(files):
            if total <= _ROOM * self._limit:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size
        return total

    def _files(self) -> list[tuple[float, int, str]]:
        """When each was written, its bytes, its path."""
        files = []
        with os.scandir(self._folder) as listing:
            for entry in listing:
                with suppress(OSError):  # gone meanwhile
                    status = entry.stat()
                    files.append((status.st_mtime, status.st_size, entry.path))
        return files
