"""framed: small captioned archives for tests that read frames."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from archives import configure, rows, scanned, videos
from numpy.typing import NDArray

from raydist.clips.decode import decode_clip
from raydist.clips.decoder import Geometry
from raydist.config import Config
from raydist.frames.reader import FrameReader
from raydist.store import commit, roots, schema

GEOMETRY = Geometry(frames=8, sampling="exact", size_px=32, resize="viclip")
BYTES = 8 * 32 * 32 * 3


def captioned(top: Path, files: int, seconds: float = 3) -> Path:
    """An archive of drawn videos in `top/v`, each of its clips captioned."""
    scanned(top / "archive", videos(top / "v", files, seconds))
    describe(top / "archive")
    return top / "archive"


def describe(archive: Path, captions: int = 1) -> None:
    """Give every clip captions that say which one it is."""
    at = datetime.now(UTC)
    found = [
        {name: clip[name] for name in ("clip_key", "clip_id", "fingerprint")}
        | {"number": number, "caption": f"{clip['clip_id']} by {number}", "origin": "sidecar", "at": at}
        for clip in rows(archive, "clips")
        for number in range(captions)
    ]
    commit.append(str(archive), "captions", pa.Table.from_pylist(found, schema.CAPTIONS), schema.CAPTIONS)


def settings(archive: Path, *changes: str) -> Config:
    return configure(archive, "", "embed.decoders=2", *changes)


def reader(archive: Path, *, files: Path | None = None, geometry: Geometry = GEOMETRY, **options: Any) -> FrameReader:
    """A reader of an archive's cache; `files`: of the roots of this one."""
    places = roots.places(str(files or archive), {})
    return FrameReader(str(archive), geometry, places, settings(archive).limits(), **options)


def by_hand(archive: Path, pairs: pa.Table, size: int = 32) -> NDArray[np.uint8]:
    """The recipe's frames of clips, decoded here."""
    found = [
        decode_clip(archive.parent / "v" / row["path"], row["start_s"], row["end_s"], size=size)
        for row in pairs.to_pylist()
    ]
    return np.stack(found)
