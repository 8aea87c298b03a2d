"""Ray: the session that a stage runs in, the resources that it may plan with, and a manifest of work as a dataset.

A stage writes its work as a manifest of Parquet files, a row a unit of work, and reads it back as a Ray dataset:
neither the driver's memory nor Ray's object store grows with the amount of work.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.errors import ResourceError
from raydist.sections import Ray

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

LIGHT_CPUS = 1.0
"""Kept free for reading the manifest: a plan whose actors hold every core would wait for ever."""

ENCODER_CPUS = 0.5
"""Logical cores of an encoder. On a CPU-only machine it computes on all cores; the system shares them with decoders."""

SMALLEST_SHARE = 0.05
"""Logical cores under which a decoder is not worth starting."""

_QUIET = {
    # All of Ray's ports on loopback when it runs on this machine alone; by default they listen on the network.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # A worker that is slow to start on a busy machine is given up after 60 s, and the next one finds it busier still.
    "RAY_worker_register_timeout_seconds": "300",
}

_SILENT = {
    # Ray's C++ core writes to the driver's stderr whatever Python's logging says.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Warnings of the raylet are printed to the driver's stdout, where data goes; this is a pattern of what to drop.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}
"""Unless `--debug` asks for it all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the cluster offers to this run."""

    cpus: float
    gpus: float
    nodes: int


@contextmanager
def session(section: Ray) -> Iterator[Resources]:
    """Connect to the cluster, or start Ray on this machine, and leave it as it was found.

    Raises:
        ResourceError: if the named cluster does not answer.
    """
    address = section.address or os.environ.get("RAY_ADDRESS", "")
    wanted = ({} if address else _QUIET) | ({} if os.environ.get("RAYDIST_DEBUG") else _SILENT)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    with _interrupts_kept():
        import ray  # after the environment is set, which Ray reads when it is imported

    found = ray.is_initialized()
    try:
        if not found:
            with _interrupts_kept():
                _start(section, address)
        # What workers print, Ray prints to `sys.stdout`, where data goes.
        with redirect_stdout(sys.stderr):
            offered: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's own gap
            nodes = len([node for node in ray.nodes() if node["Alive"]])  # type: ignore[no-untyped-call]  # as above
            yield Resources(cpus=offered.get("CPU", 0.0), gpus=offered.get("GPU", 0.0), nodes=nodes)
    finally:
        if not found:
            ray.shutdown()


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Hold a Ctrl-C back until the end; a second one counts at once.

    Amid imports and forks Python runs hooks whose exceptions it ignores: an interrupt that is raised there is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def note(number: int, _: object) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt


def _start(section: Ray, address: str) -> None:
    import ray

    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": bool(os.environ.get("RAYDIST_DEBUG"))}
    if address:
        try:
            with _silence():
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"no Ray cluster answers at {address!r} ({error}): start one with `ray start --head`, "
                "or leave out ray.address and RAY_ADDRESS to use this machine alone"
            ) from error
        return
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = section.cpus or available
    extra: dict[str, Any] = {"_temp_dir": section.temp_dir} if section.temp_dir else {}
    # One core more than there are, for the light tasks that wait for the disk: real ones are for decoding and encoding.
    try:
        with _silence():
            ray.init(address="local", num_cpus=cores + int(LIGHT_CPUS), include_dashboard=False, **extra, **quiet)
    except Exception as error:  # Ray raises no narrower type where a node does not come up in its 30 seconds
        raise ResourceError(
            f"Ray did not start on this machine ({error}): is it overloaded, out of memory, or `ray.temp_dir` too long "
            "for a socket? Run this again; --debug shows what Ray says"
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what Ray's C++ core and Lance's fork hook say at the start off the terminal; exceptions pass."""
    if os.environ.get("RAYDIST_DEBUG"):
        yield
        return
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for stream, _ in kept:
                os.dup2(nowhere.fileno(), stream)
            yield
        finally:
            for stream, copy in kept:
                os.dup2(copy, stream)
                os.close(copy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many processes a run uses and what each takes of the cluster."""

    workers: int
    worker_cpus: float
    encoders: int = 0
    encoder_gpus: float = 0.0


def plan(
    resources: Resources,
    *,
    workers: int,
    encoders: int | None = None,
    gpus: bool = False,
    encoder_cpus: float = ENCODER_CPUS,
) -> Plan:
    """Fit processes into the cluster. A count of 0 means as many as fit; `encoders=None` means none.

    Raises:
        ResourceError: if the cluster cannot run it; such a plan would wait for ever.
    """
    if encoders == 0:
        encoders = int(resources.gpus) if gpus else max(1, min(resources.nodes, int(resources.cpus // 2)))
    encoder_count = encoders or 0
    if gpus and encoder_count > resources.gpus:
        raise ResourceError(
            f"{encoder_count} encoders need a GPU each, the cluster has {resources.gpus:g}: "
            "lower embed.encoders, or set embed.device=cpu"
        )
    worker_count = workers or max(1, int(resources.cpus - LIGHT_CPUS))
    share = (resources.cpus - LIGHT_CPUS - encoder_cpus * encoder_count) / worker_count
    if share < SMALLEST_SHARE:
        needed = LIGHT_CPUS + encoder_cpus * encoder_count + SMALLEST_SHARE * worker_count
        raise ResourceError(
            f"the cluster has {resources.cpus:g} CPUs; {worker_count} workers and {encoder_count} encoders need at "
            f"least {needed:g}: add CPUs, or lower their numbers"
        )
    # Rounded down: Ray counts in ten-thousandths, and a sum above the total would never be scheduled.
    return Plan(
        workers=worker_count,
        worker_cpus=int(min(1.0, share) * 1000) / 1000,
        encoders=encoder_count,
        encoder_gpus=1.0 if gpus else 0.0,
    )


class Manifest:
    """Units of work on disk, in Parquet files of a bounded size; a row is what one task gets."""

    def __init__(self, folder: Path, rows_per_file: int = 4096) -> None:
        self.folder = folder
        self.rows = 0
        self._rows_per_file = rows_per_file

    def write(self, tables: Iterable[pa.Table]) -> Manifest:
        """Write all units; tables may be of any size."""
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True)
        number = 0
        for table in tables:
            for start in range(0, table.num_rows, self._rows_per_file):
                part = table.slice(start, self._rows_per_file)
                pq.write_table(part, self.folder / f"part-{number:06d}.parquet")
                self.rows += part.num_rows
                number += 1
        return self

    @staticmethod
    def sweep(runs: Path, others: Callable[[], Sequence[object]]) -> None:
        """Delete what runs that were killed left behind, unless `others` are at work.

        In this order: a run that wrote one of the folders and is alive has had its lease before, so it is noticed.
        """
        left = list(runs.glob("*/manifest"))
        if left and not others():
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)

    def units(self) -> Iterator[pa.Table]:
        """The units one by one, for so few that Ray is not worth its start."""
        import pyarrow.parquet as pq

        for path in sorted(self.folder.glob("part-*.parquet")):
            table = pq.read_table(path)
            yield from (table.slice(row, 1) for row in range(table.num_rows))

    def dataset(self) -> ray.data.Dataset:
        """The units as a lazily read dataset of one unit a block."""
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it is configured when it is imported, just now
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # The newer reader lists files with workers of its own: ten more processes for a manifest of one file, and now
        # and then a traceback from one of its threads on stderr.
        context.use_datasource_v2 = False
        files = sorted(str(path) for path in self.folder.glob("part-*.parquet"))
        return ray.data.read_parquet(files, num_cpus=0.1).repartition(target_num_rows_per_block=1)

    def remove(self) -> None:
        """Delete the files; the run is over."""
        for path in self.folder.glob("part-*.parquet"):
            path.unlink(missing_ok=True)
        if self.folder.is_dir():
            self.folder.rmdir()


def references(dataset: ray.data.Dataset) -> Iterator[tuple[Any, int]]:
    """Run the dataset and yield a reference to each block, with its rows, as it is done."""
    for bundle in dataset.iter_internal_ref_bundles():
        for block in bundle.blocks:
            yield block.ref, block.metadata.num_rows or 0


def blocks(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """Run the dataset and yield its blocks as they are done."""
    import ray

    for reference, _ in references(dataset):
        yield ray.get(reference)
