"""shared: the work folder of a join where the archive is in a bucket, and nodes see no folder of each other.

Files are written and read at one path on every machine. Within `using`, what a task writes is sent to the bucket too,
and what it reads and its machine lacks is brought from there.

Writes    `runs/<run>/join/` of the archive, deleted when the join is over; copies below each machine's temporary folder
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raydist.errors import StoreError
from raydist.store import buckets, runs
from raydist.store.location import is_uri, join

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A work folder in a bucket."""

    folder: Path
    """The same on every machine."""
    address: str


_now: ContextVar[Shared | None] = ContextVar("_now", default=None)


@contextmanager
def work(location: str, run: str) -> Iterator[Path]:
    """The work folder of a run's join, for the length of a `with` block: in the archive, or shared through it."""
    if not is_uri(location):
        folder = runs.run_folder(location, run) / runs.SCRATCH
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    # No folder of the user's: a node may have another home, or none to write to.
    folder = Path(tempfile.gettempdir()) / f"raydist-{uuid.uuid4().hex[:12]}" / runs.SCRATCH
    try:
        with using(Shared(folder=folder, address=join(location, runs.FOLDER, run, runs.SCRATCH))):
            yield folder
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)
        runs.discard(location, run, [f"{runs.SCRATCH}/**"])


@contextmanager
def using(shared: Shared | None) -> Iterator[None]:
    """Share the files of a folder while the block runs."""
    token = _now.set(shared)
    try:
        yield
    finally:
        _now.reset(token)


def carried(function: Callable[..., T]) -> Callable[..., T]:
    """The function as a task of a cluster: it shares what this process shares now."""
    shared = _now.get()
    if shared is None:
        return function

    def call(*arguments: Any) -> T:
        with using(shared):
            return function(*arguments)

    return call


@contextmanager
def room() -> Iterator[None]:
    """Around what is written into the folder: where a machine's disk is full, say what to do.

    Raises:
        StoreError: it is, and the folder is a shared one.
    """
    try:
        yield
    except OSError as error:
        shared = _now.get()
        if shared is None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreError(
            f"{str(shared.folder.parent.parent)!r} on {socket.gethostname()} is full: a join of vectors in a bucket "
            "takes two to three times their room in the temporary folder of every node (1 KB a clip of 512 numbers). "
            "Set TMPDIR, where the command starts, to a folder with room on all of them"
        ) from error


def sent(file: Path) -> None:
    """Other machines may ask for a file that was written here."""
    shared = _now.get()
    if shared is not None:
        buckets.replace(shared.address, file.relative_to(shared.folder).as_posix(), file)


def brought(file: Path) -> Path:
    """A file that may have been written on another machine."""
    shared = _now.get()
    if shared is not None and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{uuid.uuid4().hex}")
        try:
            with room():
                buckets.download(shared.address, file.relative_to(shared.folder).as_posix(), draft)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    return file


def files(folder: Path, prefix: str = "") -> list[Path]:
    """The Parquet files of a folder that all machines wrote, in order of their names."""
    shared = _now.get()
    if shared is None or not folder.is_relative_to(shared.folder):
        return sorted(folder.glob(f"{prefix}*.parquet"))
    names = [entry["path"] for entry in buckets.direct(shared.address, folder.relative_to(shared.folder).as_posix())]
    return [brought(shared.folder / name) for name in sorted(names) if os.path.basename(name).startswith(prefix)]


def clear_nodes() -> None:
    """Delete the copies on all other machines of the cluster."""
    shared = _now.get()
    if shared is None:
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    own = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own gap
    others = [node["NodeID"] for node in nodes if node["Alive"] and node["NodeID"] != own]
    clear = ray.remote(num_cpus=0)(_deleted)
    wanted = [
        clear.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote(shared.folder.parent)
        for node in others
    ]
    if wanted:
        ray.wait(wanted, num_returns=len(wanted), timeout=30)


def _deleted(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
