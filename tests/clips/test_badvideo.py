"""Truncated, damaged, mislabelled and hostile files: each ends with a definite status, in a process that survives."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydist.clips.child import Child
from raydist.errors import SourceError
from raydist.records import Limits, Span

HEAVY = {
    "sps_8192x8192.264",
    "real_8192x4320.mp4",
    "index_bomb_3m.mp4",
    "edit_tiny_segments_2000.mp4",
}
"""Files that take seconds whatever reads them: left to the slow test."""


@pytest.fixture(scope="module")
def special(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("special")
    subprocess.run([sys.executable, shared / "badvideo" / "make_special.py", folder], check=True)
    return folder


def location(row: dict[str, str], files: Path, special: Path) -> str:
    if row["kind"] in ("file", "support"):
        return str(files / row["file"])
    raw = row["file"].encode()
    if row["kind"] == "badname":
        raw = re.sub(rb"%([0-9A-F]{2})", lambda digits: bytes([int(digits.group(1), 16)]), raw)
    return os.fsdecode(os.path.join(os.fsencode(special), raw))


def status(child: Child, path: str) -> str:
    """`ok`, `ok_filled` or `failed:reason` of the file's first 30 seconds."""
    try:
        length = child.probe(path).duration_ms
    except SourceError as error:
        return f"failed:{error.reason}"
    (clip,) = child.decode(path, [Span(start_ms=0, end_ms=min(30_000, length))], frames=8, size_px=224, resize="viclip")
    if clip.frames is None:
        return f"failed:{clip.reason}"
    assert clip.frames.shape == (8, 224, 224, 3)
    return "ok_filled" if clip.filled_frames else "ok"


def allowed(row: dict[str, str]) -> set[str]:
    expected = row["expected"] if row["expected"] != "failed" else f"failed:{row['expected_reason']}"
    return {expected, *row["alternatives"].split("|")} - {""}


@pytest.fixture(scope="module")
def rows(shared: Path, special: Path) -> list[dict[str, str]]:
    with (shared / "badvideo" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    return [{**row, "path": location(row, shared / "badvideo" / "files", special)} for row in found]


def disagreements(rows: list[dict[str, str]], limits: Limits) -> list[tuple[str, str, set[str]]]:
    wrong: list[tuple[str, str, set[str]]] = []
    with Child(limits) as child:
        for row in rows:
            started = time.monotonic()
            got = status(child, row["path"])
            assert time.monotonic() - started < 12 * limits.cpu_s, row["file"]
            if got not in allowed(row) and not ("failed" in allowed(row) and got.startswith("failed")):
                wrong.append((row["file"], got, allowed(row)))
    return wrong


def test_bad_files_end_as_their_manifest_says(rows: list[dict[str, str]]) -> None:
    light = [row for row in rows if row["file"] not in HEAVY]
    assert {name for name, _, _ in disagreements(light, Limits(cpu_s=5))} <= {
        # still pictures are refused by policy, before their size is looked at
        "picture.svg.mp4",
        "png_bomb_30000x30000.png.mp4",
        # FFmpeg says "out of memory" of its own limits on tables and streams
        "stts_count_huge.mp4",
        "box_nesting_trak.mp4",
    }


@pytest.mark.slow
def test_heavy_bad_files_end_as_their_manifest_says(rows: list[dict[str, str]]) -> None:
    assert disagreements([row for row in rows if row["file"] in HEAVY], Limits()) == []
