"""What must not come back: salted hashes, so that the archive does not keep the names of what it forgot.

Reads     `forgotten`, and the salt beside it
Writes    the same: a hash of a video's id, of the ends of the id, of its content's fingerprint, and of its name as a
          source of pre-cut clips
Promises  once a video is forgotten it stays so, under its old name and under any other while its bytes are the same

Whoever has the archive has the salt too, and can try names that he guesses; he cannot read them off.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b

import pyarrow as pa

from raydist.store import commit, objects, read, schema

SALT = "forgotten.salt"
_TABLE = "forgotten"


class Forgotten:
    """What an archive must not take in again, as it is known now."""

    def __init__(self, location: str) -> None:
        self._salt = objects.read(location, SALT) or b""
        self._hashes: set[str] = set()
        if self._salt:
            for batch in read.scan_batches(location, _TABLE, ["hash"]):
                self._hashes.update(batch["hash"].to_pylist())

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def has_video(self, video_id: str) -> bool:
        """Whether a video of this id was forgotten."""
        return bool(self._hashes) and _hash(self._salt, "video", video_id) in self._hashes

    def means(self, path: str) -> bool:
        """Whether a path that ends in an id, or the end of an id, is that of a video that was forgotten."""
        return bool(self._hashes) and (
            _hash(self._salt, "end", path) in self._hashes or any(self.has_video(end) for end in [path, *_ends(path)])
        )

    def has_content(self, file_fingerprint: str | None) -> bool:
        """Whether a file of these bytes was forgotten."""
        return bool(self._hashes and file_fingerprint) and (
            _hash(self._salt, "content", file_fingerprint or "") in self._hashes
        )

    def has_source(self, source_id: str) -> bool:
        """Whether the video that a clip was cut from was forgotten."""
        return bool(self._hashes) and _hash(self._salt, "source", source_id) in self._hashes


def remember(
    location: str, *, videos: Iterable[str], names: Iterable[str], contents: Iterable[str], sources: Iterable[str]
) -> None:
    """Add hashes; those that are there stay as they are. Of `names`, the ends are known too."""
    if objects.read(location, SALT) is None:
        objects.create(location, SALT, secrets.token_bytes(32))
    salt = objects.read(location, SALT) or b""
    now = datetime.now(UTC)
    ends = [end for name in names for end in (name, *_ends(name))]
    hashes = sorted(
        _hash(salt, kind, value)
        for kind, values in (("video", videos), ("end", ends), ("content", contents), ("source", sources))
        for value in set(values)
        if value
    )
    rows = pa.Table.from_pylist([{"hash": value, "at": now} for value in hashes], schema=schema.FORGOTTEN)
    commit.append(location, _TABLE, rows, schema.FORGOTTEN)


def _ends(path: str) -> list[str]:
    """What is left of a path without its first folder, without its first two, and so on."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(1, len(parts))]


def _hash(salt: bytes, kind: str, value: str) -> str:
    return blake2b(f"{kind}\0{value}".encode(errors="surrogateescape"), key=salt, digest_size=16).hexdigest()
