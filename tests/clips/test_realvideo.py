"""Real files: lengths and frames as their manifest says, one file of each codec compared with a full decode."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from reference import expected, same, spans_of

from raydist.clips.decode import decode_spans
from raydist.clips.probe import probe
from raydist.errors import SourceError

FRAMES = {
    "s117": "damaged: the manifest's decoder stopped at the first error",
    "s146": "its first two B-frames refer to frames before the file: packets without a picture",
}
LENGTHS = {
    "s082": "the last packet says that its frame lasts two gaps",
    "s117": "damaged, see above",
    "s145": "the last picture of this GIF is shown longer than the others",
}


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[dict[str, str]]:
    with (shared / "realvideo" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [{**row, "path": str(shared / "realvideo" / row["file"])} for row in csv.DictReader(file)]


def test_every_file_is_as_long_as_its_manifest_says(rows: list[dict[str, str]]) -> None:
    wrong = []
    for row in rows:
        name = Path(row["file"]).stem
        try:
            found = probe(row["path"])
        except SourceError as error:
            if row["n_frames"] != "0" or error.reason != "no_video_stream":
                wrong.append((name, error.reason))
            continue
        if found.frames != int(row["n_frames"]) and name not in FRAMES:
            wrong.append((name, f"{found.frames} frames, not {row['n_frames']}"))
        if abs(found.duration_ms / 1000 - float(row["duration_s"])) > 0.011 and name not in LENGTHS:
            wrong.append((name, f"{found.duration_ms} ms, not {row['duration_s']} s"))
        if (found.width, found.height, found.codec) != (int(row["width"]), int(row["height"]), row["codec"]):
            wrong.append((name, f"{found.width} x {found.height} {found.codec}"))
        if row["rotation"] and found.rotation != int(float(row["rotation"])) % 360:
            wrong.append((name, f"turned by {found.rotation}, not {row['rotation']}"))
        if found.has_audio != (row["has_audio"] == "1"):
            wrong.append((name, "sound"))
    assert wrong == []


def test_one_file_of_each_codec_gives_the_frames_of_a_full_decode(rows: list[dict[str, str]]) -> None:
    smallest: dict[tuple[str, str], dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: int(row["bytes"])):
        if int(row["n_frames"]) > 8 and Path(row["file"]).stem not in FRAMES:
            smallest.setdefault((row["codec"], row["container"]), row)
    assert len({codec for codec, _ in smallest}) >= 11
    wrong = []
    for kind, row in smallest.items():
        spans = spans_of(probe(row["path"]).duration_ms, 3)
        clips = decode_spans(row["path"], spans, size_px=None)
        times = None
        if row["container"] == "avi":
            found = probe(row["path"])
            times = [int(i * 1000 / found.fps) for i in range(found.frames)]
        shown = expected(Path(row["path"]), spans, times)
        if not all(same(clip, frames) for clip, frames in zip(clips, shown, strict=True)):
            wrong.append((*kind, row["file"]))
    assert wrong == []
