"""What stages count for dashboards: clips that have a row, and those that failed, by reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from archives import rows, scanned, videos

from raydist import gauges
from raydist.caption.ledger import Ledger
from raydist.caption.tables import ANSWERED

Counted = dict[tuple[str, ...], float]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """(name, stage, outcome or reason) -> count."""
    found: Counted = {}

    def add(name: str, amount: float, **tags: str) -> None:
        key = (name, *tags.values())
        if amount:
            found[key] = found.get(key, 0) + amount

    monkeypatch.setattr(gauges, "add", add)
    return found


def of(clip: dict[str, Any], **answer: Any) -> dict[str, Any]:
    """A row of `ANSWERED`."""
    usual: dict[str, Any] = {field.name: 0 for field in ANSWERED if not pa.types.is_nested(field.type)}
    given = {name: clip[name] for name in ("clip_key", "clip_id", "video_id", "fingerprint")}
    usual |= {"reason": "", "detail": "", "left": False, "captions": [], "cut": [], "origin": "m", "prompt_hash": "h"}
    return {**usual, **given, **answer}


def test_scan_and_caption_count_what_they_did_and_what_failed(tmp_path: Path, counted: Counted) -> None:
    videos(tmp_path / "videos", 1, seconds=4)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video at all")
    scanned(tmp_path / "archive", tmp_path / "videos")
    (reason,) = {name[2] for name in counted if name[0] == "raydist_failures"}
    assert counted == {
        ("raydist_clips", "scan", "row"): 4,
        ("raydist_clips", "scan", "failed"): 1,
        ("raydist_failures", "scan", reason): 1,
    }
    counted.clear()
    clips = rows(tmp_path / "archive", "clips")
    ledger = Ledger(str(tmp_path / "archive"), "m", "h")
    ledger.add([of(clip, captions=["a dog"], cut=[False]) for clip in clips[:2]])
    ledger.add([of(clips[2], reason="refused"), of(clips[3], captions=["a cat"], cut=[False], prompt_hash="earlier")])
    ledger.commit()
    ledger.commit()
    assert counted == {
        ("raydist_clips", "caption", "row"): 2,
        ("raydist_clips", "caption", "failed"): 1,
        ("raydist_failures", "caption", "refused"): 1,
    }
