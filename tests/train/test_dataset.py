"""VideoTextDataset: captioned clips of a real archive as torch items, without Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from archives import fails_with, rows, scanned, videos
from framed import GEOMETRY, by_hand, captioned, describe, reader, settings
from torch.utils.data import DataLoader

import raydist
from raydist.clips.decode import decode_clip
from raydist.errors import ArchiveError, SourceError, UsageError
from raydist.frames.build import ensure
from raydist.store import commit, schema
from raydist.store.pairs import captioned_clips


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of three clips, with three captions each."""
    made = captioned(tmp_path_factory.mktemp("dataset"), 4)
    describe(made, captions=3)
    return made


def dataset(archive: Path, split: str = "train", **options: object) -> raydist.VideoTextDataset:
    return raydist.VideoTextDataset(archive, split, **{"size": 32, **options})  # type: ignore[arg-type]  # as given


def test_an_item_is_eight_frames_of_the_recipe_and_a_caption(archive: Path) -> None:
    data = dataset(archive)
    pairs = captioned_clips(str(archive), "train")
    assert len(data) == pairs.num_rows > 1
    frames, caption = data[1]
    assert isinstance(frames, tuple)
    assert [(tuple(frame.shape), frame.dtype) for frame in frames] == [((3, 32, 32), torch.uint8)] * 8
    expected_THWC = by_hand(archive, pairs.slice(1, 1))[0]
    np.testing.assert_array_equal(torch.stack(frames).movedim(1, -1).numpy(), expected_THWC)
    assert caption in pairs["captions"][1].as_py()
    np.testing.assert_array_equal(data[-1][0][0], data[len(data) - 1][0][0])


def test_splits_share_no_clip_and_are_those_of_the_archive(archive: Path) -> None:
    for split in ("train", "val", "test"):
        expected = captioned_clips(str(archive), split)["clip_key"].to_pylist()
        if expected:
            assert dataset(archive, split).pairs["clip_key"].to_pylist() == expected


def test_captions_are_drawn_anew_each_epoch_and_alike_by_seed(archive: Path) -> None:
    def epochs(seed: int) -> list[list[str]]:
        data = dataset(archive, seed=seed)
        drawn = []
        for epoch in range(12):
            data.set_epoch(epoch)
            drawn.append([data.caption(item) for item in range(len(data))])
        return drawn

    once = epochs(0)
    assert once == epochs(0) != epochs(1)
    per_clip = [set(own) for own in zip(*once, strict=True)]
    assert {len(own) for own in per_clip} >= {3}
    data = dataset(archive)
    data.set_epoch(5)
    assert data[0][1] == once[5][0]


def test_the_models_geometry_can_be_named(archive: Path) -> None:
    frames, _ = raydist.VideoTextDataset(archive, model="tiny")[0]
    side = raydist.load_encoder("tiny").info.size_px
    assert {tuple(frame.shape) for frame in frames} == {(3, side, side)}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_works_in_a_loader_with_workers(archive: Path, method: str) -> None:
    data = dataset(archive)
    first = data[0][0]  # opened here before the workers start
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=method)
    batches = list(loader)
    captions = [caption for _, texts in batches for caption in texts]
    assert captions == [data.caption(item) for item in range(len(data))]
    frames_NTCHW = torch.cat([torch.stack(frames, dim=1) for frames, _ in batches])
    assert torch.equal(frames_NTCHW[0], torch.stack(first))
    expected_NTHWC = by_hand(archive, captioned_clips(str(archive), "train"))
    np.testing.assert_array_equal(frames_NTCHW.movedim(2, -1).numpy(), expected_NTHWC)


@pytest.mark.ray
def test_cached_clips_come_from_the_cache_in_workers_too(cluster: None, tmp_path: Path) -> None:
    archive = captioned(tmp_path, 3)
    pairs = captioned_clips(str(archive), "train")
    ensure(settings(archive), pairs, GEOMETRY)
    expected, _ = reader(archive).read(pairs)
    (tmp_path / "v").rename(tmp_path / "gone")
    data = dataset(archive)
    _ = data[0]
    loaded = [torch.stack(frames, dim=1) for frames, _ in DataLoader(data, num_workers=2)]
    np.testing.assert_array_equal(torch.cat(loaded).movedim(2, -1).numpy(), expected)


def test_it_needs_no_ray(archive: Path) -> None:
    code = (
        "import raydist, sys; from torch.utils.data import Dataset; "
        f"data = raydist.VideoTextDataset({str(archive)!r}, size=32); data[0]; "
        "assert isinstance(data, Dataset); sys.exit('ray' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250)


def test_a_clip_that_is_known_to_fail_is_left_out_and_one_that_fails_now_says_so(tmp_path: Path) -> None:
    archive = captioned(tmp_path, 2)
    whole = dataset(archive)
    bad = whole.pairs.slice(0, 1).to_pylist()[0]
    (tmp_path / "v" / bad["path"]).unlink()
    with fails_with(SourceError, bad["clip_id"], "raydist train"):
        dataset(archive)[0]
    failure = {"clip_key": bad["clip_key"], "fingerprint": bad["fingerprint"], "stage": "train", "model_key": ""}
    table = pa.Table.from_pylist([{**failure, "reason": "missing"}], schema.FAILURES)
    commit.append(str(archive), "failures", table, schema.FAILURES)
    left = dataset(archive)
    assert (left.left_out, len(left)) == (1, len(whole) - 1)
    assert bad["clip_key"] not in left.pairs["clip_key"].to_pylist()


def test_what_is_no_item_archive_or_split_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="item 99"):
        dataset(archive)[99]
    with fails_with(UsageError, "'gap'", "train, val, test"):
        dataset(archive, "gap")
    with fails_with(ArchiveError, "no archive at"):
        dataset(tmp_path)
    scanned(tmp_path / "bare", videos(tmp_path / "v", 1))
    assert rows(tmp_path / "bare", "clips")
    with fails_with(ArchiveError, "no captioned clip", "raydist caption"):
        dataset(tmp_path / "bare")


def test_frames_are_those_of_decode_clip_for_any_size_and_rule(archive: Path) -> None:
    data = dataset(archive, size=48, resize="clip")
    row = data.pairs.slice(0, 1).to_pylist()[0]
    path = archive.parent / "v" / row["path"]
    expected = decode_clip(path, row["start_s"], row["end_s"], size=48, resize="clip")
    np.testing.assert_array_equal(torch.stack(data[0][0]).movedim(1, -1).numpy(), expected)
