"""asked: archives whose clips a provider on loopback is asked about, and what is true of them in the end.

python tests/caption/asked.py --clips 1000 --api gemini        # faults of every kind; prints a JSON line
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE.parent / "clips"), str(HERE)]

from archives import configure, rows, scanned, videos  # noqa: E402
from llm_server import LLMServer, caption_of  # noqa: E402

from raydist import caption  # noqa: E402
from raydist.caption.prepare import Preparer, Sending  # noqa: E402
from raydist.clips.units import units  # noqa: E402
from raydist.config import Config  # noqa: E402
from raydist.records import Report  # noqa: E402
from raydist.store import read, roots  # noqa: E402

KEYS = {"gemini": "GEMINI_API_KEY", "openai": "OPENAI_API_KEY"}
MODELS = {"gemini": "gemini-2.5-flash", "openai": "gpt-4o"}
KEY = "test-key-that-nobody-may-see-7f3a"

FAULTS = {
    "rate": 0.04, "server": 0.03, "unavailable": 0.02, "timeout": 0.01, "reset": 0.02, "broken": 0.01, "refusal": 0.01,
    "slow": 0.01, "long": 0.02, "boilerplate": 0.03, "empty": 0.005,
}  # fmt: skip


@dataclass
class Asked:
    """An archive, and a server that is asked about its clips."""

    archive: Path
    server: LLMServer
    api: str

    def config(self, *changes: str) -> Config:
        """Settings that point at the server."""
        url = self.server.url + ("/v1" if self.api == "openai" else "")
        given = [
            f"caption.provider={self.api}",
            f"caption.model={MODELS[self.api]}",
            f"caption.base_url={url}",
            "caption.timeout_s=5",
            "caption.decoders=1",
            *changes,
        ]
        return configure(self.archive, "", *given)

    def run(self, *changes: str, **request: Any) -> Report:
        """Caption what has no caption."""
        return caption.run(self.config(*changes), caption.Request(**request))

    def captions(self) -> dict[str, list[str]]:
        """Clip id -> its captions of this model, by number."""
        found: dict[str, list[str]] = {}
        for row in sorted(rows(self.archive, "captions"), key=lambda row: row["number"]):
            if row["origin"] == MODELS[self.api]:
                found.setdefault(row["clip_id"], []).append(row["caption"])
        return found

    def failed(self) -> dict[str, str]:
        """Clip id -> the reason of its failure."""
        names = {row["clip_key"]: row["clip_id"] for row in rows(self.archive, "clips")}
        return {names[row["clip_key"]]: row["reason"] for row in rows(self.archive, "failures")}

    def expected(self, number: int = 0) -> dict[str, str]:
        """Clip id -> what the server says of its pictures, were nothing to go wrong."""
        return {name: caption_of(frames, None, number) for name, frames in self.frames().items()}

    def frames(self) -> dict[str, list[bytes]]:
        """Clip id -> its pictures, made ready here as a run does it."""
        section = self.config().caption
        sending = Sending(send="frames", frames=section.frames, frame_px=section.frame_px, max_bytes=1 << 30)
        clips = sorted(rows(self.archive, "clips"), key=lambda row: (row["video_id"], row["start_ms"]))
        files = {row.pop("video_id"): row for row in rows(self.archive, "videos")}
        names = ("root", "path", "file_fingerprint")
        some = {video: {name: file[name] for name in names} for video, file in files.items()}
        found: dict[str, list[bytes]] = {}
        work = units([{**clip, "has_signature": False} for clip in clips], some)
        for table in Preparer(roots.places(str(self.archive), {}), sending, self.config().limits())(work):
            found |= {row["clip_id"]: row["frames"] for row in table.to_pylist()}
        return found

    def answered_twice(self) -> int:
        """Requests that were answered in full although the same question had been answered before."""
        good = ("", "slow", "boilerplate", "long")
        counts = Counter(one.content for one in self.server.received if one.status == 200 and one.fault in good)
        return sum(count - 1 for count in counts.values())


def archive_of(folder: Path, clips: int, a_file: int = 50) -> Path:
    """An archive of so many clips of a second."""
    files = -(-clips // a_file)
    for number in range(files):
        seconds = min(a_file, clips - number * a_file)
        videos(folder / "videos", 1, seconds, first=number)
    scanned(folder / "archive", folder / "videos")
    return folder / "archive"


def outcome(asked: Asked, expected: Mapping[str, str]) -> dict[str, Any]:
    """What is in the archive in the end, and what the server saw."""
    found, failed = asked.captions(), asked.failed()
    clips = read.count_rows(str(asked.archive), "clips")
    limit_marks = {row["clip_id"] for row in rows(asked.archive, "captions") if row["cut"]}
    wrong = [
        name
        for name, texts in found.items()
        if name not in limit_marks and [text.lower() for text in texts] != [expected[name].lower()]
    ]
    return {
        "clips": clips,
        "captioned": len(found),
        "rows": read.count_rows(str(asked.archive), "captions"),
        "failed": dict(Counter(failed.values())),
        "both": len(found.keys() & failed.keys()),
        "cut": len(limit_marks),
        "of_another_clip": len(wrong),
        "requests": len(asked.server.received),
        "faults": asked.server.counts(),
        "answered_twice": asked.answered_twice(),
        "billed": asked.server.billed,
    }


def main() -> None:
    """Caption clips through a server with faults and print what came of it."""
    options = argparse.ArgumentParser()
    options.add_argument("--clips", type=int, default=1000)
    options.add_argument("--api", choices=sorted(KEYS), default="gemini")
    options.add_argument("--per-minute", type=int, default=900)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    os.environ[KEYS[given.api]] = KEY
    with tempfile.TemporaryDirectory(prefix="rc", ignore_cleanup_errors=True) as folder:
        archive = archive_of(Path(folder), given.clips)
        with LLMServer(faults=FAULTS, seed=given.seed, retry_after_s=0.5, latency_s=0.3) as server:
            asked = Asked(archive, server, given.api)
            expected = asked.expected()
            changes = (
                f"caption.requests_per_minute={given.per_minute}",
                f"ray.temp_dir={folder}",
                "caption.timeout_s=4",
            )
            told = asked.run(*changes, dry_run=True).details
            before = time.monotonic()
            report = asked.run(*changes)
            figures = outcome(asked, expected)
            figures |= {"seconds": round(time.monotonic() - before), "most_in_a_minute": server.most_in(60)}
            figures |= {"per_minute": given.per_minute, "estimated": told["cost"], "reported": report.details["cost"]}
            price = asked_price(asked)
            figures |= {"billed_cost": round(price, 6), "api": given.api}
        sys.stdout.write(json.dumps(figures) + "\n")


def asked_price(asked: Asked) -> float:
    """What the server's tokens cost."""
    from raydist.caption.prices import price_of

    price = price_of(MODELS[asked.api])
    assert price is not None
    return price.cost(*asked.server.billed)


if __name__ == "__main__":
    main()
