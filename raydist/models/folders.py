"""Folders that are there whole or not at all, whatever dies on the way."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new, hidden folder beside; what is written into it becomes `folder` at the end.

    After an error nothing of it is left and `folder` is as it was; after a kill the hidden folder may be left over.

    Args:
        folder: absolute.
        replace: take the place of what is there; else there may be an empty folder at most.

    Raises:
        OSError: it cannot be written, or `folder` is not empty and may not be replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    part, old = (folder.with_name(f".{folder.name}.{word}-{mark}") for word in ("part", "old"))
    part.mkdir()
    try:
        yield part
        if folder.exists():
            folder.rename(old) if replace else folder.rmdir()
        part.rename(folder)
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
