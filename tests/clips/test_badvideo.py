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

LIMITS = Limits(cpu_s=2)
"""Short, so that the bombs end soon."""


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


def test_bad_files_end_as_their_manifest_says(shared: Path, special: Path) -> None:
    wrong: list[tuple[str, str, set[str]]] = []
    with (shared / "badvideo" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with Child(LIMITS) as child:
        for row in rows:
            started = time.monotonic()
            got = status(child, location(row, shared / "badvideo" / "files", special))
            assert time.monotonic() - started < 15 * LIMITS.cpu_s, row["file"]
            if got not in allowed(row) and not ("failed" in allowed(row) and got.startswith("failed")):
                wrong.append((row["file"], got, allowed(row)))
    assert len(wrong) <= 0.04 * len(rows), wrong
