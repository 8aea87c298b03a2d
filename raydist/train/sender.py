"""What the first worker writes while it trains, on its way into the archive.

Reads     where the archive is an object store and the run goes on: its journal and TensorBoard's files; a wish to stop
Writes    in a folder: nothing, for all is written there at once. On an object store: the journal and TensorBoard's
          files, from a working copy on this machine, before each checkpoint, now and then, and at the end; `now.json`,
          the step of the moment, for whoever looks on; at the end the adapter, whose last file makes it one
Promises  the store's journal holds every step up to its last checkpoint, so the run goes on from there on any machine;
          an upload that fails in between costs nothing, for the next one brings it all
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from raydist.errors import StoreError
from raydist.store import objects
from raydist.store.location import is_uri
from raydist.store.runs import fetch, publish, run_folder
from raydist.train import journal
from raydist.train.task import ADAPTER, NOW, STOP, TENSORBOARD, Task

_LOOK_S = 3.0
"""Between two looks for a wish to stop, and two notes of the step of the moment."""

_SEND_S = 30.0
"""Between two uploads of what grows, beside those at checkpoints; at least."""

_SHARE = 20
"""A file is sent as a whole, and TensorBoard's grow: uploads take one part in so many of the time."""

_GROWING = (journal.FILE, f"{TENSORBOARD}/*")


class Sender:
    """Where the first worker writes, and how that reaches the archive."""

    def __init__(self, task: Task) -> None:
        self._location, self._run, self._place = task.location, task.run, task.folder
        self._far = is_uri(task.location)
        self.folder: Path = run_folder(task.location, task.run)
        """To write into, on this machine."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._stop_seen = False
        self._now: Mapping[str, Any] | None = None
        if self._far:
            # What an earlier start left on this machine may be older than what the store has, or never have got there.
            shutil.rmtree(self.folder, ignore_errors=True)
            fetch(self._location, self._run, only=_GROWING)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._work, name="sender", daemon=True)
        if self._far:
            self._thread.start()

    def asked_to_stop(self) -> bool:
        """Whether somebody wants the run saved and ended."""
        return self._stop_seen if self._far else (self.folder / STOP).exists()

    def note(self, **figures: Any) -> None:
        """The figures of the step that is done."""
        self._now = figures

    def send(self) -> None:
        """Bring what has grown into the archive; the files are flushed.

        Raises:
            StoreError: the store does not take it.
        """
        if self._far:
            with self._lock:
                publish(self._location, self._run, only=_GROWING)

    def send_adapter(self, mark: str) -> None:
        """Bring the adapter into the archive.

        Args:
            mark: the file without which it is none; it comes last.
        """
        if not self._far:
            return
        others = [f"{ADAPTER}/{file.name}" for file in (self.folder / ADAPTER).iterdir() if file.name != mark]
        for names in (others, [f"{ADAPTER}/{mark}"]):
            publish(self._location, self._run, only=tuple(names))

    def close(self) -> None:
        """End the thread, and send what was written last: of a run that failed, it is what tells why."""
        self._closed.set()
        if self._far:
            self._thread.join()
            with suppress(StoreError, OSError):
                self.send()

    def _work(self) -> None:
        due, told = time.monotonic() + _SEND_S, None
        while not self._closed.wait(_LOOK_S):
            with suppress(StoreError, OSError):  # away for a moment: a checkpoint says if it stays so
                self._stop_seen = self._stop_seen or objects.read(self._place, STOP) is not None
                if self._now is not told:
                    told = self._now
                    objects.replace(self._place, NOW, json.dumps(told).encode())
                if (began := time.monotonic()) >= due:
                    self.send()
                    ended = time.monotonic()
                    due = ended + max(_SEND_S, _SHARE * (ended - began))
