"""Folders that an export makes."""

from __future__ import annotations

from pathlib import Path

from raydist.errors import UsageError
from raydist.store.shown import refuse_address


def free(out: str) -> Path:
    """The absolute folder, where nothing lies in the way.

    Raises:
        UsageError: something does.
    """
    refuse_address("--out", out)
    folder = Path(out).expanduser().resolve()
    if folder.is_dir():
        there = sorted(entry.name for entry in folder.iterdir())
        if there:
            shown = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
            raise UsageError(f"--out {out!r} is not empty (it holds {shown}): expected a new folder, or an empty one")
    elif folder.exists():
        raise UsageError(f"--out {out!r} is a file: expected a new folder, or an empty one")
    return folder
