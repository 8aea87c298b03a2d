"""Keys of models: the same weights used in the same way have the same key, wherever their folder lies.

Reads   weights, once; their digest is kept in the user's cache folder by path, size and time of change
Gives   `viclip_b16_1f0c9a3e`: a readable name and 8 hexadecimal digits of all that alters a clip's vector
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

USED_AS = {"sampling": "middle_8", "decoder": "exact-1", "preprocessing": 2}
"""How clips become frames. Change a value together with the code that it names: old vectors then keep their own key."""


def cache_home() -> Path:
    """The user's folder for what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "raydist"


def weights_digest(files: Iterable[Path]) -> str:
    """One digest of the bytes of several files, in the given order."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(_file_digest(file)))
    return whole.hexdigest()


def model_key(readable: str, parts: Mapping[str, object]) -> str:
    """The readable name, safe in a table's name, and the digest of `parts`."""
    text = json.dumps({**USED_AS, **parts}, sort_keys=True)
    return f"{safe_name(readable)}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def safe_name(name: str) -> str:
    """Lower-case ASCII letters, digits and single underscores; never empty."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:48] or "model"


def _file_digest(file: Path) -> str:
    state = file.stat()
    place = f"{file.resolve()}\n{state.st_size}\n{state.st_mtime_ns}"
    remembered = cache_home() / "digests" / hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()
    with suppress(OSError, ValueError):
        known = remembered.read_text()
        if len(bytes.fromhex(known)) == hashlib.sha256().digest_size:
            return known
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    # A cache that cannot be written costs time, no more.
    with suppress(OSError):
        _write_whole(remembered, digest)
    return digest


def _write_whole(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as stream:
        stream.write(text)
    Path(stream.name).replace(file)
