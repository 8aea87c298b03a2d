"""The Ray session that a stage runs in: a cluster that is there, or Ray on this machine alone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from raydist import meter
from raydist.errors import ResourceError
from raydist.progress import talk
from raydist.runtime.cluster import offered, spilled_bytes, there
from raydist.runtime.resources import LIGHT_CPUS, Resources
from raydist.sections import Ray

_QUIET = {
    # All of Ray's ports on loopback when it runs on this machine alone; by default they listen on the network.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # A worker that is slow to start on a busy machine is given up after 60 s, and the next one finds it busier still.
    "RAY_worker_register_timeout_seconds": "300",
    # Of each task that ended Ray's head keeps 2 KB for its dashboard, of up to 100,000.
    "RAY_task_events_max_num_task_in_gcs": "1000",
}

_SILENT = {
    # Ray's C++ core writes to the driver's stderr whatever Python's logging says.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Warnings of the raylet are printed to the driver's stdout, where data goes; this is a pattern of what to drop.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
}
"""Unless `--debug` asks for it all."""

_METERED_EACH_S = 10.0


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
    with interrupts_kept():
        import ray  # after the environment is set, which Ray reads when it is imported

    found = ray.is_initialized()
    stopped = signal.getsignal(signal.SIGTERM)
    try:
        if not found:
            with interrupts_kept():
                _start(section, address)
        before = spilled_bytes() if found or address else 0
        take_stops()  # after Ray's start, which sets a handler of its own
        # What workers print, Ray prints to `sys.stdout`, where data goes.
        is_local = not address and not found
        with redirect_stdout(sys.stderr), _metered(section, local=is_local) as resources:
            yield resources
            _say_spilled(before, spilled_bytes())
    finally:
        if not found:
            ray.shutdown()
        if threading.current_thread() is threading.main_thread() and stopped is not None:
            signal.signal(signal.SIGTERM, stopped)


@contextmanager
def _metered(section: Ray, *, local: bool) -> Iterator[Resources]:
    """What is offered, and a thread that follows how the cluster grows and shrinks: a run costs what it holds."""
    resources = offered(section, local=local)
    before = meter.hold(resources.cpus - (LIGHT_CPUS if local else 0.0), resources.gpus)
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(_METERED_EACH_S):
            try:
                nodes = there()
            except Exception:  # noqa: BLE001  # the head is away: what was held last is held still
                continue
            if not ended.is_set():
                meter.hold(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))

    follower = threading.Thread(target=follow, name="meter", daemon=True)
    if not local:
        follower.start()
    try:
        yield resources
    finally:
        ended.set()
        if not local:
            follower.join(_METERED_EACH_S)  # it must not ask Ray for its nodes while that shuts down
        meter.hold(*before)


def take_stops() -> None:
    """Let SIGTERM, which a job gets that is stopped, do what Ctrl-C does: stages commit what is done and end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Hold a Ctrl-C, or a SIGTERM that does the same, back until the end; a second one counts at once.

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

    before = signal.default_int_handler
    held = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is before]
    for number in held:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in held:
            signal.signal(number, before)
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
    extra = _places(section)
    # One core more than there are, for the light tasks that wait for the disk: real ones are for decoding and encoding.
    try:
        with _silence():
            ray.init(address="local", num_cpus=cores + int(LIGHT_CPUS), include_dashboard=False, **extra, **quiet)
    except Exception as error:  # Ray raises no narrower type where a node does not come up in its 30 seconds
        raise ResourceError(
            f"Ray did not start on this machine ({error}): is it overloaded, out of memory, or `ray.temp_dir` too long "
            "for a socket? Run this again; --debug shows what Ray says"
        ) from error


def _places(section: Ray) -> dict[str, Any]:
    """Where Ray keeps its files and objects on this machine, and how much of them."""
    extra: dict[str, Any] = {"_temp_dir": section.temp_dir} if section.temp_dir else {}
    if section.object_store_gb:
        extra["object_store_memory"] = int(section.object_store_gb * 1e9)
    if section.spill_dir:
        folder = os.path.abspath(os.path.expanduser(section.spill_dir))
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"ray.spill_dir={section.spill_dir!r} cannot be made ({error.strerror}): expected a folder on a disk "
                "with room, or leave it out"
            ) from error
        extra["object_spilling_directory"] = folder
    if "spill_until" in section.model_fields_set:
        # Ray knows no limit in bytes: where the disk is so full it stops, and a run fails instead of the machine.
        os.environ.update({"RAY_local_fs_capacity_threshold": str(section.spill_until)})
    return extra


def _say_spilled(before: int, after: int) -> None:
    if after > before:
        talk.print(
            f"Ray wrote {(after - before) / 1e9:.2g} GB of objects to disk because its object store was full: more of "
            "it (ray.object_store_gb on one machine), fewer decoders or smaller batches make that less"
        )


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
