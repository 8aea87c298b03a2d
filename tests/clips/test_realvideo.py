"""Real files: lengths and frames as their manifest says, pictures as a full decode shows them."""

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
PICTURES = {
    "s117": "damaged: one of its 50 packets gives no frame, so that 49 decoded ones are counted otherwise",
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
        if int(row["n_frames"]) > 8 and Path(row["file"]).stem not in PICTURES:
            smallest.setdefault((row["codec"], row["container"]), row)
    assert len({codec for codec, _ in smallest}) >= 11
    assert differing(list(smallest.values())) == set()


@pytest.mark.slow
def test_every_file_gives_the_frames_of_a_full_decode(rows: list[dict[str, str]]) -> None:
    counted = [row for row in rows if int(row["n_frames"]) > 0]
    assert len(counted) == 146
    assert differing(counted) == set(PICTURES)


def differing(rows: list[dict[str, str]]) -> set[str]:
    """Files of which some span shows other pixels than a full decode."""
    wrong = set()
    for row in rows:
        path = Path(row["path"])
        found = probe(row["path"])
        spans = spans_of(found.duration_ms, 4)
        times = None
        if row["container"] == "avi":
            times = [int(i * 1000 / found.fps) for i in range(found.frames)]
        clips = decode_spans(row["path"], spans, size_px=None)
        if not all(same(clip, shown) for clip, shown in zip(clips, expected(path, spans, times), strict=True)):
            wrong.add(path.stem)
    return wrong
