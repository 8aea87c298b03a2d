"""The lines of the Python interface, as a notebook would run them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from archives import made, scanned, videos, write_viclip

import raydist
from raydist.errors import ArchiveError, UsageError

COLUMNS = ["query", "rank", "score", "clip_id", "video_id", "path", "start_s", "end_s", "caption"]


@dataclass(frozen=True)
class Made:
    """An archive that was embedded with one model."""

    folder: Path
    location: str
    model: str


@pytest.fixture(scope="module")
def once(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    top = tmp_path_factory.mktemp("python")
    folder, model = videos(top / "v", 3), write_viclip(top / "small")
    scanned(top / "archive", folder)
    made(top / "archive", model)
    return Made(folder, str(top / "archive"), str(model))


def test_an_archive_is_opened_and_searched(once: Made) -> None:
    archive = raydist.open(once.location)
    hits = archive.search("a dog jumps", top=4)
    assert isinstance(hits, pa.Table)
    assert hits.column_names == COLUMNS
    assert hits["rank"].to_pylist() == [1, 2, 3, 4]
    assert set(hits["query"].to_pylist()) == {"a dog jumps"}
    assert once.location in repr(archive)


def test_frames_of_a_span_are_decoded(once: Made) -> None:
    path, start_s, end_s = once.folder / "v000.mp4", 0.0, 1.0
    frames = raydist.decode_clip(str(path), start_s, end_s, frames=8, size=224, resize="viclip")
    assert (frames.shape, frames.dtype) == ((8, 224, 224, 3), np.uint8)
    assert raydist.decode_clip(str(path), size=None).shape == (8, 64, 96, 3)


def test_clips_and_texts_share_a_space(once: Made) -> None:
    encoder = raydist.load_encoder(once.model, adapter=None, device="cpu")
    frames = [raydist.decode_clip(str(once.folder / f"v00{number}.mp4"), 0, 1, size=32) for number in range(3)]
    video = encoder.encode_frames(np.stack(frames))
    text = encoder.encode_text(["a dog jumps"])
    assert (video.shape, video.dtype) == ((3, 32), np.float32)
    assert (text.shape, text.dtype) == ((1, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([video, text]), axis=1), 1, atol=1e-5)


def test_vectors_words_clips_and_pictures_are_queries(once: Made) -> None:
    archive = raydist.open(once.location)
    encoder = raydist.load_encoder(once.model)
    vectors = encoder.encode_text(["a dog jumps", "a cat sleeps"])
    by_words = archive.search(["a dog jumps", "a cat sleeps"], top=3)
    by_vectors = archive.search(vectors, top=3)
    assert by_vectors["query"].to_pylist() == ["vector 0"] * 3 + ["vector 1"] * 3
    assert by_vectors["clip_id"].to_pylist() == by_words["clip_id"].to_pylist()
    np.testing.assert_allclose(by_vectors["score"], by_words["score"], atol=1e-6)
    one = archive.search(vectors[0], top=3)
    assert one["clip_id"].to_pylist() == by_words["clip_id"].to_pylist()[:3]
    assert one["query"].to_pylist() == ["vector"] * 3
    assert archive.search(clip="v/v001.mp4#t=0,1", top=20, moments=False).num_rows == 8
    assert set(archive.search("x", where="video_id = 'v/v001.mp4'")["video_id"].to_pylist()) == {"v/v001.mp4"}
    assert archive.search("x", top=3, model="small") == archive.search("x", top=3)


def test_scan_embed_and_status_are_methods_too(once: Made, tmp_path: Path) -> None:
    archive = raydist.open(str(tmp_path / "archive"))
    assert archive.scan(str(videos(tmp_path / "w", 1, 2))).counts["clips"] == 1
    assert archive.status()["embeddings"] == {}
    report = archive.embed(once.model)
    assert report.counts == {"clips": 1, "rows": 1, "failed": 0}
    assert archive.embed(retry_failed=True).counts["clips"] == 0
    assert archive.status()["embeddings"] == {report.details["model_key"]: {"rows": 1, "failed": 0, "pending": 0}}


def test_mistakes_are_told_as_on_the_command_line(once: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to search for"):
        raydist.open(once.location).search()
    for wrong in ([0.5, 0.5], [np.ones(32)], b"words", 7):
        with pytest.raises(UsageError, match="NumPy array"):
            raydist.open(once.location).search(wrong)  # type: ignore[arg-type]
    with pytest.raises(ArchiveError, match="no archive"):
        raydist.open(str(tmp_path / "none")).search("words")


def test_importing_raydist_loads_nothing_heavy() -> None:
    heavy = ("torch", "ray", "lance", "av", "transformers", "numpy", "pyarrow")
    code = f"import raydist, sys; sys.exit(' '.join(name for name in {heavy} if name in sys.modules) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(raydist, name) for name in raydist.__all__)
