"""A folder of small real videos and an archive to scan it into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from videos import encode

from raydist import config as settings_of
from raydist import scan, status
from raydist.config import Config
from raydist.records import Report
from raydist.store import commit, read, schema


@dataclass(frozen=True)
class Library:
    """Videos in a folder, and an archive beside it."""

    folder: Path
    archive: Path

    def config(self, *changes: str, archive: Path | None = None) -> Config:
        return settings_of.load(None, changes, {"archive": str(archive or self.archive)}, {}).config

    def scan(self, *inputs: Path, changes: tuple[str, ...] = (), archive: Path | None = None, **request: Any) -> Report:
        """Scan the folder, or what is named; a folder of `()` needs a request of its own."""
        named = inputs or (() if request.pop("nothing", False) else (self.folder,))
        asked = scan.Request(inputs=[str(path) for path in named], **request)
        return scan.run(self.config(*changes, archive=archive), asked)

    def video(self, name: str, seconds: int = 3, seed: int = 0) -> Path:
        """A video of a frame a second."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return encode(path, count=seconds, size=(32, 32), rate=1, seed=seed, options={"preset": "ultrafast"})

    def rows(self, table: str, *columns: str) -> list[Any]:
        """The rows of a table, in order; of one column its values."""
        batches = read.scan_batches(str(self.archive), table, columns or None)
        rows = [row for batch in batches for row in batch.to_pylist()]
        if len(columns) == 1:
            return sorted(row[columns[0]] for row in rows)
        return sorted(rows, key=str)

    def states(self) -> dict[str, str]:
        return {row["path"]: row["state"] for row in self.rows("videos", "path", "state")}

    def books(self) -> dict[str, Any]:
        """What status says; its sums are checked on the way."""
        books = status.run(self.config())
        assert books["files"] == books["ok"] + books["alias"] + books["failed_files"]
        assert books["clips"] == len(set(self.rows("clips", "clip_key")))
        held = {row["video_id"] for row in self.rows("videos", "video_id", "state") if row["state"] == "ok"}
        assert set(self.rows("clips", "video_id")) <= held
        return books

    def embed_all(self, key: str = "some-00000000") -> None:
        """Give every clip a vector, without a model."""
        clips = read.rows_by_key(str(self.archive), "clips", self.rows("clips", "clip_key")).to_pylist()
        columns = schema.embeddings(2)
        rows = [
            {name: clip.get(name) for name in columns.names} | {"vector": [1.0, 0.0], "filled_frames": 0}
            for clip in clips
        ]
        commit.append(str(self.archive), f"embeddings_{key}", pa.Table.from_pylist(rows, schema=columns), columns)
