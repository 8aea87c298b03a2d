"""What is known of jobs of a batch API: a small file each, so that a run which was killed finds them again.

Writes    `captioning/batches/<name>.json` in the archive: before the job is created, with the job's name after, and for
          the last time when its answers are kept; then it goes
Promises  a clip is in no more than one of the records that `matching` gives
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from raydist.store import objects

FOLDER = "captioning/batches"

_FORGOTTEN_S = 30 * 86_400
"""A job's answers are gone long before."""

Clip = tuple[int, str]
"""A clip's key, and the fingerprint of its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One job, made or about to be made."""

    name: str
    """The job's display name."""
    server: str
    """Whom it was asked, as `server_of` writes it."""
    origin: str
    prompt_hash: str
    told: Mapping[str, Any]
    """`generationConfig` of its requests."""
    clips: tuple[Clip, ...]
    """Those whose answers nobody has taken yet."""
    since: float
    """Seconds since the epoch, by the clock of the machine that asked."""
    job: str = ""
    """The server's name of it; empty: it is not known whether there is one."""
    file: str = ""
    """The uploaded requests."""

    def path(self) -> str:
        """Below the archive."""
        return f"{FOLDER}/{self.name}.json"

    def save(self, location: str) -> None:
        """Write it to the disk."""
        objects.replace(location, self.path(), json.dumps(asdict(self), ensure_ascii=False).encode())

    def forget(self, location: str) -> None:
        """There is no such job, or none of its answers is needed."""
        objects.delete(location, self.path())

    def taken(self, location: str, clips: Iterable[Clip]) -> bool:
        """Note that answers of these clips are kept; whether those of all clips are."""
        now = _parsed(objects.read(location, self.path())) or self  # others may have taken theirs
        rest = set(now.clips) - set(clips)
        if rest:
            replace(now, clips=tuple(sorted(rest))).save(location)
        else:
            self.forget(location)
        return not rest


def server_of(url: str) -> str:
    """A server for a record: no address, which may hold a password."""
    return hashlib.blake2b(url.encode(), digest_size=8).hexdigest()


def name_of(clips: Sequence[Clip], *parts: str) -> str:
    """The name of a job with these clips; another one for whatever else differs."""
    text = json.dumps([sorted(clips), *parts], ensure_ascii=False)
    return f"raydist-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


def matching(
    location: str, server: str, origin: str, prompt_hash: str, clips: Iterable[Clip]
) -> list[tuple[Record, set[Clip]]]:
    """Records of jobs that were asked the same of some of these clips, and which clips those are."""
    wanted = set(clips)
    found = []
    for record in sorted(_all(location), key=lambda record: (not record.job, -record.since)):
        same = (record.server, record.origin, record.prompt_hash) == (server, origin, prompt_hash)
        shared = wanted & set(record.clips) if same else set()
        if shared:
            found.append((record, shared))
            wanted -= shared
    return found


def _all(location: str) -> list[Record]:
    records = []
    for entry in objects.entries(location, FOLDER):
        record = _parsed(objects.read(location, entry.name))
        if record is None or record.since < time.time() - _FORGOTTEN_S:
            objects.delete(location, entry.name)
        else:
            records.append(record)
    return records


def _parsed(data: bytes | None) -> Record | None:
    """A record; None if it is none, which a full disk may leave."""
    try:
        said = json.loads(data or b"")
        said["clips"] = tuple((int(key), str(fingerprint)) for key, fingerprint in said["clips"])
        return Record(**said)
    except (ValueError, TypeError, KeyError):
        return None
