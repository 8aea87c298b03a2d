"""A small archive to bring captions into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from archives import configure, rows

from raydist import caption
from raydist.records import Report

Listed = list[tuple[str, int, str]]

A, B = "v/a.mp4#t=0,1", "v/deep/b.mp4#t=0,1"


@dataclass(frozen=True)
class Library:
    """Two videos of one clip, one of three, below two folders."""

    top: Path
    archive: Path

    def write(self, text: str | bytes, name: str = "captions.csv") -> Path:
        file = self.top / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def bring(self, text: str | bytes, *changes: str, name: str = "captions.csv", keep: bool = False) -> Report:
        """Import a list of this text."""
        request = caption.Request(file=str(self.write(text, name)), keep=keep)
        return caption.run(configure(self.archive, "", *changes), request)

    def take(self, path: Path, *changes: str) -> Report:
        """Import what lies there."""
        return caption.run(configure(self.archive, "", *changes), caption.Request(file=str(path)))

    def held(self, origin: str = "sidecar") -> Listed:
        """The captions of the archive: clip id, number, text."""
        clips = {row["clip_key"]: row["fingerprint"] for row in rows(self.archive, "clips")}
        kept = [
            row
            for row in rows(self.archive, "captions")
            if row["origin"] == origin and clips.get(row["clip_key"]) == row["fingerprint"]
        ]
        return sorted((row["clip_id"], row["number"], row["caption"]) for row in kept)


def noted(report: Report, *words: str) -> bool:
    """Whether one note holds all of the words."""
    return any(all(word in note for word in words) for note in report.notes)
