"""What is made ready to be sent of a clip is of its span: the pictures of that span, compared by pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from videos import X264, encode, full_decode, join

from raydist.caption.prepare import Preparer, Sending
from raydist.caption.tables import PREPARED
from raydist.clips.decode import probe
from raydist.clips.sampling import middle_ranks
from raydist.clips.units import units
from raydist.records import Limits, Span

FRAMES = Sending(send="frames", frames=8, frame_px=96, max_bytes=1 << 20)


@pytest.fixture(scope="module")
def long_gops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 s of H.264 in four groups of pictures of 250 frames, which do not begin where clips do."""
    folder = tmp_path_factory.mktemp("long")
    options = {**X264, "g": "250", "keyint_min": "250", "sc_threshold": "0"}
    parts = [encode(folder / f"{seed}.mp4", count=250, options=options, seed=seed) for seed in range(4)]
    return join(parts, folder / "long.mp4")


def spans_of(length_ms: int, step_ms: int) -> list[Span]:
    return [Span(start_ms=ms, end_ms=min(ms + step_ms, length_ms)) for ms in range(0, length_ms, step_ms)]


def prepare(path: Path, spans: Sequence[Span], sending: Sending = FRAMES) -> list[dict[str, Any]]:
    """The rows of one file's clips, through the actor."""
    clips = [
        {
            "clip_key": number,
            "clip_id": f"v/{path.name}#{number}",
            "video_id": f"v/{path.name}",
            "fingerprint": f"{number:032x}",
            "start_ms": span.start_ms,
            "end_ms": span.end_ms,
            "split": "train",
            "has_signature": False,
        }
        for number, span in enumerate(spans)
    ]
    files = {f"v/{path.name}": {"root": "v", "path": path.name, "file_fingerprint": ""}}
    preparer = Preparer({"v": str(path.parent)}, sending, Limits())
    rows: list[dict[str, Any]] = []
    for unit in units(clips, files).to_batches(max_chunksize=1):
        for table in preparer(unit):
            assert table.schema.equals(PREPARED)
            rows += table.to_pylist()
    assert sorted(row["clip_key"] for row in rows) == list(range(len(spans)))
    return sorted(rows, key=lambda row: row["clip_key"])


def presented(path: Path) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Every frame of a file with its time in ms after the first, as a plain reading of the whole file gives them."""
    frames = sorted(full_decode(path), key=lambda frame: frame.pts or 0)
    assert frames[0].pts is not None
    for frame in frames:
        assert frame.pts is not None
        assert frame.time_base is not None
        yield float((frame.pts - frames[0].pts) * frame.time_base * 1000), frame.to_ndarray(format="rgb24")


def distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def opened(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        return np.asarray(picture)


def test_the_pictures_of_a_clip_are_those_of_its_span_where_groups_are_long(long_gops: Path) -> None:
    spans = spans_of(probe(str(long_gops)).duration_ms, 7_300)
    rows = prepare(long_gops, spans)
    every = list(presented(long_gops))
    for span, row in zip(spans, rows, strict=True):
        inside = [place for place, (ms, _) in enumerate(every) if span.start_ms <= ms < span.end_ms]
        wanted = [inside[rank] for rank in middle_ranks(len(inside), 8)]
        assert row["reason"] == ""
        assert (row["width_px"], row["height_px"]) == (96, 64)
        assert row["duration_s"] == (span.end_ms - span.start_ms) / 1000
        for place, data in zip(wanted, row["frames"], strict=True):
            picture = opened(data)
            distances = [distance(picture, pixels) for _, pixels in every]
            assert int(np.argmin(distances)) == place
