"""Leases: who writes to an archive, told by small files with a heartbeat.

Reads     `<location>/writers/*.json`
Writes    `<location>/writers/<id>.json`: verb, host, pid, since when, `asking` or `held`, and how far the work is;
          written anew every 10 s. With a run's name the same in `runs/<run>/run.json`, which stays: how it ended, or
          how far it was when its process died
Promises  of any number of exclusive leases asked for at once, one is held; a holder that died, or whose heartbeat is
          older than 60 s, holds nobody up: one on another machine is looked at until its heartbeat moves or is
          that old, so a job that is submitted again on another node need not fail. Commits do not need a lease to be
          right: it keeps two scans apart, and clean-up away from writers

An exclusive lease is asked for, then held. Whoever asks writes its file first and looks afterwards, so of two that ask
at once at least one sees the other: the one with the smaller id goes on waiting, the other withdraws and asks again.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from raydist import meter
from raydist.errors import StoreError
from raydist.progress import current, talk
from raydist.store import credentials, objects
from raydist.store.patience import Patience, patiently

FOLDER = "writers"
NOTE = "run.json"
"""In a run's folder: who made it, how far it came, how it ended."""
HEARTBEAT_S = 10.0
EXPIRES_S = 60.0

_ERROR_CHARS = 2_000
_LOOK_S = 2.0
_ASK_FOR_S = 30.0
"""How long to go on asking against others that ask: far more rounds than any number of them need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease."""

    id: str
    verb: str
    host: str
    machine: str
    """Host, boot and pid namespace: where pids mean the same."""
    pid: int
    pid_started: str
    """Tells a pid from a later process of the same number; "" where that is unknown."""
    since: str
    exclusive: bool
    state: str
    """`asking` or `held`."""
    run: str = ""
    """Name of the run; "" for work that leaves no report."""
    doing: str = ""
    """What it is counting at the moment, in words; "" where nothing is."""
    done: int = 0
    total: int = 0
    rate: float = 0.0
    """A second."""
    waits: str = ""
    """What it waits for, where nothing comes."""

    def __str__(self) -> str:
        return f"`raydist {self.verb}` on {self.host} (process {self.pid}, since {self.since})"


class Lease:
    """A writer's place in the archive, for the length of a `with` block."""

    def __init__(self, location: str, verb: str, exclusive: bool = False, run: str = "") -> None:
        """
        Args:
            verb: what is being done, for the message that another gets.
            exclusive: at most one exclusive lease of an archive is held at a time, whatever its verb.
            run: its name, where it leaves a report.
        """
        self._location = location
        self._lost = False
        self._far: dict[str, Any] = {}
        self._held = meter.Held()
        self.counts: Callable[[], Mapping[str, int]] = dict
        """What is done so far, for the note: of a run that dies without a report nothing else tells it."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.holder = Holder(
            id=uuid.uuid4().hex,
            verb=verb,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            pid_started=_started(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            exclusive=exclusive,
            state="asking" if exclusive else "held",
            run=run,
        )

    def __enter__(self) -> Lease:
        """
        Raises:
            StoreError: if the lease is exclusive and another holds it, which the message names; or the archive's store
                keeps no writers apart.
        """
        objects.require_create(self._location)
        self._held = meter.held() - self._earlier()
        if self.holder.exclusive:
            self._acquire()
        else:
            self._write("held")
        self._thread = threading.Thread(target=self._beat, name=f"lease-{self.holder.verb}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(StoreError, OSError):  # the store is away: the lease runs out by itself
            objects.delete(self._location, self._name)
        said = str(getattr(error, "cause", None) or error or "")  # what a worker raised comes with its traceback
        # Last: on a full disk there is room for it now.
        self._note(ended=_ending(error), error=credentials.scrubbed(said))

    def others(self) -> list[Holder]:
        """Everybody else who holds or asks for a lease; leases that are void are removed on the way."""
        return [holder for holder in holders(self._location, among_them=True) if holder.id != self.holder.id]

    def strangers(self) -> list[Holder]:
        """The others but for those of this very process: what it does at the same time, it does with itself."""
        own = (self.holder.machine, self.holder.pid)
        return [holder for holder in self.others() if (holder.machine, holder.pid) != own]

    def living(self, are_meant: Callable[[Holder], bool]) -> list[Holder]:
        """Those of the others that are meant and alive.

        One that was killed on another machine seems to hold its lease for a minute yet: this waits until its heartbeat
        moves, or it is gone. One on this machine tells at once.
        """
        began, beats = time.monotonic(), dict[str, float]()
        while found := [other for other in self.others() if are_meant(other)]:
            if any(other.machine == self.holder.machine for other in found):
                return found
            now = {entry.name: entry.modified_s for entry in objects.entries(self._location, FOLDER)}
            moved = [
                other
                for other in found
                if (beat := now.get(f"{FOLDER}/{other.id}.json")) and beat != beats.setdefault(other.id, beat)
            ]
            if moved or time.monotonic() - began > 2 * EXPIRES_S:
                return moved or found
            if time.monotonic() - began < _LOOK_S:
                talk.print(f"{found[0]} was at work here; looking for up to a minute whether it still is")
            time.sleep(_LOOK_S)
            if self._thread is None:
                self._write("asking")  # so that ages are told by a heartbeat of now
        return []

    def check(self) -> None:
        """Ask the store whether the lease is held; the heartbeat would notice its loss some seconds later.

        Raises:
            StoreError: if the lease was lost: this process stood still for longer than leases last.
        """
        if self.holder.exclusive and not self._lost:
            self._lost = patiently(self._is_taken, Patience())
        if self._lost:
            raise StoreError(
                f"`raydist {self.holder.verb}` stood still for more than {EXPIRES_S:.0f} s and lost its place in "
                f"{self._location!r}; run it again, it goes on where it stopped"
            )

    def _is_taken(self) -> bool:
        """Gone; or there, beside that of another who saw it expire: a heartbeat that was late wrote it anew."""
        try:
            # A look that sweeps would take this very lease away, where its heartbeat is late.
            found = holders(self._location, among_them=True, sweep=False)
            later = [other for other in found if other.exclusive and other.since > self.holder.since]
            if any(other.state == "held" for other in later):
                return True
            return objects.read(self._location, self._name) is None
        except OSError as error:  # of a network's file system, which may be itself again in a moment
            raise StoreError(f"cannot read the lease {self._name!r} in {self._location!r}: {error}") from error

    @property
    def _name(self) -> str:
        return f"{FOLDER}/{self.holder.id}.json"

    def _write(self, state: str, *, soon: bool = False) -> None:
        objects.replace(self._location, self._name, json.dumps(self._document(state)).encode(), soon=soon)
        if state == "held":
            self._note(soon=soon)

    def _document(self, state: str) -> dict[str, Any]:
        now = current()
        far = {} if now is None else asdict(now)
        return {**asdict(self.holder), **far, "state": state, "heartbeat": datetime.now(UTC).isoformat()}

    def told(self) -> None:
        """Say in the run's note at once how far it is: something was committed."""
        self._note()

    def _earlier(self) -> meter.Held:
        """What earlier drivers of this very run held of machines."""
        data = objects.read(self._location, f"runs/{self.holder.run}/{NOTE}") if self.holder.run else None
        try:
            found = json.loads(data or b"{}")
            return meter.Held(float(found.get("held_core_s", 0)), float(found.get("held_gpu_s", 0)))
        except (ValueError, TypeError, AttributeError):
            return meter.Held()  # a note that was cut off

    def _note(self, ended: str = "", error: str = "", *, soon: bool = False) -> None:
        """How far the run is, or how it ended; the last that it counted stays."""
        if not self.holder.run:
            return
        document = self._document("held")
        if document["doing"]:
            self._far = {name: document[name] for name in ("doing", "done", "total", "rate")}
        spent = meter.held() - self._held
        document |= {"held_core_s": round(spent.core_s, 3), "held_gpu_s": round(spent.gpu_s, 3)}
        document |= {**self._far, "ended": ended, "error": error[:_ERROR_CHARS], "counts": dict(self.counts())}
        with suppress(OSError, StoreError):  # a note; on a full disk the run's own error says more
            objects.replace(self._location, f"runs/{self.holder.run}/{NOTE}", json.dumps(document).encode(), soon=soon)

    def _acquire(self) -> None:
        deadline, before = time.monotonic() + _ASK_FOR_S, ""
        while True:
            self._write("asking")
            # Twice: a file that is replaced while a folder is listed can be missing from that listing.
            seen = {other.id: other for other in [*self.others(), *self.others()] if other.exclusive}
            rivals = sorted(seen.values(), key=lambda other: other.id)
            before = max([before, *(other.since for other in rivals)])
            held = [other for other in rivals if other.state == "held"]
            if held:
                held = self.living(lambda other: other.exclusive and other.state == "held")
                if not held:
                    deadline = time.monotonic() + _ASK_FOR_S
                    continue
            if not rivals:
                self.holder = replace(self.holder, since=_after(before))
                self._write("held")
                return
            if held or time.monotonic() > deadline:
                objects.delete(self._location, self._name)
                raise StoreError(
                    f"{(held or rivals)[0]} is at work on {self._location!r}, and `raydist {self.holder.verb}` must be "
                    "alone with it: wait for it, or stop it, and run this again"
                )
            if any(other.id < self.holder.id for other in rivals):
                objects.delete(self._location, self._name)
            time.sleep(random.uniform(0.01, 0.1))

    def _beat(self) -> None:
        wait = HEARTBEAT_S
        while not self._stop.wait(wait):
            # One request that hangs must not cost the lease: soon or not at all, and then soon again.
            try:
                if self.holder.exclusive and objects.read(self._location, self._name, soon=True) is None:
                    self._lost = True
                    return
                self._write("held", soon=True)
                wait = HEARTBEAT_S
            except (StoreError, OSError):
                wait = min(_LOOK_S, HEARTBEAT_S)  # the store is away, and another may take the lease meanwhile


def holders(location: str, *, among_them: bool = False, sweep: bool = True) -> list[Holder]:
    """Everybody who holds or asks for a lease; leases that are void are removed on the way.

    Args:
        sweep: remove them; a reader of an archive that it may not write leaves them.
        among_them: the caller holds one itself. The newest heartbeat is then at most a beat old, and ages are told by
            the clock of the store alone: those of two hosts may differ by more than a lease lasts.
    """
    found = []
    entries = objects.entries(location, FOLDER)
    now = max((entry.modified_s for entry in entries), default=0.0)
    if not among_them:
        now = max(now, time.time())
        if any(now - entry.modified_s > EXPIRES_S for entry in entries):
            # By this machine's clock, which may be ahead of the store's: then all would seem to be dead.
            now = max(max(entry.modified_s for entry in entries), objects.now(location))
    for entry in entries:
        data = objects.read(location, entry.name)
        holder = None if data is None else _parsed(data)
        if data is None:
            continue
        if holder is None or now - entry.modified_s > EXPIRES_S or _is_dead(holder):
            if sweep:
                objects.delete(location, entry.name)
        else:
            found.append(holder)
    return sorted(found, key=lambda holder: holder.id)


def _after(before: str) -> str:
    """Now, or where the clock of another host is ahead a second after what it wrote: of two that hold one lease the
    later has it."""
    now = datetime.now(UTC).replace(microsecond=0)
    with suppress(ValueError, TypeError):
        now = max(now, datetime.fromisoformat(before) + timedelta(seconds=1))
    return now.isoformat(timespec="seconds")


def _parsed(data: bytes) -> Holder | None:
    try:
        document = json.loads(data)
        # Another version of raydist may write more; what it does not write has a default.
        return Holder(**{field.name: document[field.name] for field in fields(Holder) if field.name in document})
    except (ValueError, TypeError):
        return None


def _ending(error: BaseException | None) -> str:
    if error is None:
        return "done"
    return "stopped" if isinstance(error, KeyboardInterrupt) else "failed"


def _is_dead(holder: Holder) -> bool:
    """Whether the process is one of this machine and has ended."""
    if holder.machine != _machine():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return holder.pid_started != _started(holder.pid)


def _machine() -> str:
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass  # no Linux: the host's name must do
    return " ".join(parts)


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
