"""Copies across splits: which clips count as copies, what is moved, what stays and is left out, and that it is said."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from archives import encode, rows, scanned
from PIL import Image

from raydist.clips import naming, near
from raydist.clips.child import Child
from raydist.clips.signature import HASH_VERSION, frame_hash
from raydist.demo import clip as drawn
from raydist.demo.words import Combination
from raydist.records import Limits, Span
from raydist.store import commit, schema, splits
from raydist.store.splits import SPLITS
from raydist.train import leaks

SMALL = {"preset": "veryfast", "crf": "38", "threads": "1"}


@dataclass
class Library:
    """A folder of videos of a second each, whose names say which split they are dealt to."""

    top: Path

    @property
    def archive(self) -> Path:
        return self.top / "archive"

    @property
    def location(self) -> str:
        return str(self.archive)

    def add(self, split: str, seed: int, *, copy: bool = False, seconds: int = 1) -> str:
        """A video of that split; a copy is of another size and quality."""
        folder = self.top / "v"
        folder.mkdir(exist_ok=True)
        taken = {path.name for path in folder.iterdir()}
        name = next(
            name
            for name in (f"{number:04}.mp4" for number in range(10_000))
            if name not in taken and naming.deal(naming.source_id(f"v/{name}")) == split
        )
        options = {"size": (160, 112), "options": SMALL} if copy else {"size": (192, 128)}
        source = self.top / f"{seed}.npy"
        if not source.exists():
            np.save(source, picture(seed, 10 * seconds))
        encode_pictures(folder / name, np.load(source), **options)
        return f"v/{name}"

    def make(self) -> None:
        """Scan, and write the signatures of all clips, as whoever decodes them does."""
        scanned(self.archive, self.top / "v")
        self.sign()

    def sign(self) -> None:
        found = []
        with Child(Limits()) as child:
            for clip in rows(self.archive, "clips"):
                file = self.top / clip["video_id"]
                span = Span(start_ms=clip["start_ms"], end_ms=clip["end_ms"])
                (decoded,) = child.decode(str(file), [span], frames=8, size_px=32, resize="viclip")
                found.append(
                    {
                        "clip_key": clip["clip_key"],
                        "fingerprint": clip["fingerprint"],
                        "frame_hashes": list(decoded.frame_hashes),
                        "frame_times_s": [],
                        "hash_version": HASH_VERSION,
                        "at": datetime.now(UTC),
                    }
                )
        table = pa.Table.from_pylist(found, schema=schema.SIGNATURES)
        commit.append(self.location, "signatures", table, schema.SIGNATURES)

    def dealt(self) -> dict[str, str]:
        return {row["video_id"]: row["split"] for row in rows(self.archive, "clips")}

    def settle(self, how: str = "move") -> leaks.Settled:
        return leaks.settle(self.location, leaks.find(self.location), how)


def picture(seed: int, count: int) -> np.ndarray:
    """Frames [T, H, W, 3] of soft shapes that drift: no two seeds alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    field = np.asarray(Image.fromarray(coarse).resize((384, 256), Image.Resampling.BICUBIC))
    return np.stack([np.roll(field, (5 * number, 9 * number), (0, 1))[:128, :192] for number in range(count)])


def encode_pictures(
    path: Path, frames: np.ndarray, *, size: tuple[int, int], options: dict[str, str] | None = None
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options=options or {"preset": "veryfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for frame in frames:
            scaled = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
            container.mux(stream.encode(av.VideoFrame.from_image(scaled)))
        container.mux(stream.encode())


@pytest.fixture
def library(tmp_path: Path) -> Library:
    made = Library(tmp_path)
    for number, split in enumerate((*SPLITS, *SPLITS)):
        made.add(split, seed=number)
    return made


def noted(settled: leaks.Settled, *words: str) -> bool:
    return any(all(word in note for word in words) for note in settled.notes)


def test_where_no_two_clips_are_alike_nothing_is_done_and_it_is_said(library: Library) -> None:
    library.make()
    before = rows(library.archive, "videos")
    settled = library.settle()
    assert settled.notes == ("leaks: none, no two of the 6 clips are copies in different splits",)
    assert (settled.moved, settled.clip_keys) == ({}, ())
    assert rows(library.archive, "videos") == before


def test_a_copy_in_another_size_and_quality_is_moved_to_train_and_stays_there(library: Library) -> None:
    copy = library.add("test", seed=0, copy=True)
    library.make()
    assert library.dealt()[copy] == "test"
    settled = library.settle()
    assert settled.moved == {copy: "train"}
    assert library.dealt()[copy] == "train"
    assert settled.clip_keys == ()
    assert noted(settled, "1 videos with 1 clips were moved", "1 to train", f"{copy} from test to train")
    assert library.settle().notes[0].startswith("leaks: none")
    scanned(library.archive, library.top / "v")
    assert {row["video_id"]: row["split_override"] for row in rows(library.archive, "videos")}[copy] == "train"


def test_copies_in_val_and_test_go_to_val(library: Library) -> None:
    copy = library.add("test", seed=1, copy=True)
    library.make()
    assert library.settle().moved == {copy: "val"}


def test_a_report_moves_nothing(library: Library) -> None:
    copy = library.add("test", seed=0, copy=True)
    library.make()
    settled = library.settle("report")
    assert (settled.moved, library.dealt()[copy]) == ({}, "test")
    assert noted(settled, "1 pairs", copy)
    assert noted(settled, "nothing was moved")
    with pytest.raises(ValueError, match="'mvoe', expected 'move' or 'report'"):
        library.settle("mvoe")


def test_copies_follow_the_split_that_a_person_told(library: Library) -> None:
    copy = library.add("test", seed=0, copy=True)
    library.make()
    splits.override(library.location, {copy: "test"})
    settled = library.settle()
    (original,) = settled.moved
    assert (settled.moved[original], library.dealt()[original]) == ("test", "test")


def test_where_a_person_told_two_splits_the_held_out_copy_is_left_out(library: Library) -> None:
    copy = library.add("test", seed=0, copy=True)
    library.make()
    splits.override(library.location, library.dealt())
    settled = library.settle()
    (key,) = [row["clip_key"] for row in rows(library.archive, "clips") if row["video_id"] == copy]
    assert (settled.moved, settled.clip_keys) == ({}, (key,))
    assert noted(settled, "videos that were told different splits (1 pairs)")
    assert noted(settled, "1 held-out clips", copy)


def test_no_split_is_emptied(tmp_path: Path) -> None:
    library = Library(tmp_path)
    for split in ("train", "val", "test"):
        library.add(split, seed=1, copy=split == "test")
    library.make()
    settled = library.settle()
    assert sorted(library.dealt().values()) == ["test", "train", "val"]
    assert settled.clip_keys == ()
    assert noted(settled, "nothing would be left in")
    assert noted(settled, "every clip of test and val is a copy", "say nothing about unseen videos")


def test_parts_of_one_still_video_cannot_be_moved_and_are_left_out(library: Library) -> None:
    name = library.add("train", seed=9, seconds=10)
    still = np.repeat(picture(9, 1), 100, axis=0)
    encode_pictures(library.top / name, still, size=(192, 128))
    library.make()
    (parts,) = [{row["split"] for row in rows(library.archive, "clips") if row["video_id"] == name}]
    assert parts == {"train", "gap", "val", "test"}
    settled = library.settle()
    assert settled.moved == {}
    assert len(settled.clip_keys) == 2
    assert noted(settled, "parts of one video")


def test_flat_pictures_are_no_copies_of_each_other(library: Library) -> None:
    for split in ("train", "test"):
        name = library.add(split, seed=20)
        encode_pictures(library.top / name, np.full((10, 128, 192, 3), 17, np.uint8), size=(192, 128))
    library.make()
    assert library.settle().notes[0].startswith("leaks: none")


def test_clips_without_a_signature_are_counted(library: Library) -> None:
    scanned(library.archive, library.top / "v")
    assert library.settle().notes == (
        "leaks: none, no two of the 0 clips are copies in different splits",
        "leaks: 6 clips have no signature and were not compared",
    )


def test_signatures_of_an_earlier_content_do_not_count(library: Library) -> None:
    copy = library.add("test", seed=0, copy=True)
    library.make()
    encode(library.top / copy, count=10, rate=10, seed=77)
    shutil.copytree(library.archive / "signatures.lance", library.top / "kept")
    scanned(library.archive, library.top / "v")
    shutil.rmtree(library.archive / "signatures.lance", ignore_errors=True)
    shutil.copytree(library.top / "kept", library.archive / "signatures.lance")
    found = leaks.find(library.location)
    assert (len(found.pairs), found.without) == (0, 1)


def test_a_move_that_died_between_its_commits_is_finished_by_the_next_check(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = library.add("test", seed=0, copy=True)
    library.make()
    with monkeypatch.context() as patch:
        patch.setattr(splits, "_replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            library.settle()
    assert library.dealt()[copy] == "test"
    library.settle()
    assert library.dealt()[copy] == "train"


def test_only_the_clips_that_were_asked_for_are_compared(library: Library) -> None:
    copy = library.add("test", seed=0, copy=True)
    library.make()
    keys = [row["clip_key"] for row in rows(library.archive, "clips") if row["video_id"] != copy]
    assert not len(leaks.find(library.location, keys).pairs)


def test_an_empty_archive_has_no_leaks(tmp_path: Path) -> None:
    assert not len(leaks.find(str(tmp_path)).pairs)


def hashes(shown: Combination, seed: int) -> list[int]:
    drawing = drawn.prepare(shown, seed)
    return [frame_hash(np.asarray(drawing.draw(int((2 * k + 1) * drawing.frames / 16)))) for k in range(8)]


def test_drawn_clips_that_share_their_kind_of_scene_are_no_copies() -> None:
    shown = [
        Combination(object=thing, colour=colour, motion=motion, scene="floor")
        for thing in ("ring", "crescent", "ball")
        for colour in ("blue", "red", "green")
        for motion in ("right", "left", "circle", "grow")
    ]
    every = np.array([hashes(one, 7) for one in shown], np.uint64)
    pairs, _ = near.copies(every, np.arange(len(every)))
    assert not len(pairs)


def test_the_search_finds_every_pair_that_comparing_all_finds() -> None:
    random = np.random.default_rng(3)
    every = random.integers(1, 1 << 60, (400, 8), dtype=np.uint64)
    for row in range(200, 400):
        flips = np.zeros(8, np.uint64)
        for _ in range(int(random.integers(0, 7))):
            flips ^= np.uint64(1) << random.integers(0, 64, 8).astype(np.uint64)
        every[row] = every[int(random.integers(0, 200))][random.permutation(8)] ^ flips
    every[:, 7] = np.where(random.random(400) < 0.3, 0, every[:, 7])
    sides = random.integers(0, 3, 400)
    low, high = np.triu_indices(400, 1)
    wanted = near.are_copies(every[low], every[high]) & (sides[low] != sides[high])
    pairs, common = near.copies(every, sides)
    assert common == 0
    assert pairs.tolist() == np.stack([low, high], axis=1)[wanted].tolist()
    assert wanted.sum() > 50


def test_order_and_repeated_frames_do_not_matter() -> None:
    one = np.array([[11, 11, 11, 22 << 20, 33 << 40, 0, 0, 0]], np.uint64)
    other = np.array([[33 << 40, 22 << 20, 22 << 20, 11, 11, 11, 11, 11]], np.uint64)
    assert near.are_copies(one, other).all()
    less = np.array([[11, 11, 0, 0, 0, 0, 0, 0]], np.uint64)
    assert not near.are_copies(one, less).any()
    assert not near.are_copies(less, one).any()


def test_a_picture_that_very_many_clips_have_says_nothing() -> None:
    every = np.full((near.COMMON + 1, 2), 7, np.uint64)
    pairs, common = near.copies(every, np.arange(len(every)))
    assert (len(pairs), common) == (0, 1)
