"""The bundled model: small, honest, and good enough to search the demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import raydist
from raydist.clips.decode import decode_clip
from raydist.demo import clip, films
from raydist.models.encoder import Encoder

FOLDER = Path(films.__file__).parent / "tiny"
CLIPS = 60


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return raydist.load_encoder("tiny")


def test_tiny_is_at_most_eight_megabytes_and_says_how_it_was_made() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8_000_000
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["vision"]["frames"] == 8
    card = (FOLDER / "README.md").read_text()
    assert "python -m raydist.demo.train_tiny" in card
    assert "top-1" in card


def test_tiny_finds_unseen_clips_by_their_captions_at_ten_times_chance(tiny: Encoder, tmp_path: Path) -> None:
    chosen = films.choose(tmp_path, CLIPS, seed=11)
    for film in chosen:
        clip.write(film.shown, film.seed, film.file)
    frames = np.stack([decode_clip(film.file, frames=8, size=tiny.info.size_px, resize="viclip") for film in chosen])
    sim = tiny.encode_text([film.caption for film in chosen]) @ tiny.encode_frames(frames).T
    rank = (sim > np.diagonal(sim)[:, None]).sum(1)
    top1, top5 = (rank < 1).mean(), (rank < 5).mean()
    assert top1 >= 10 / CLIPS
    assert top5 > top1


@pytest.mark.parametrize("query", ["red", "snow", "a star", "something blue", "under water", "desert"])
def test_tiny_understands_single_words_better_than_chance(tiny: Encoder, query: str) -> None:
    captions = ["a red ball", "falling snow", "a star", "a blue thing", "under water", "desert dunes"]
    order = ["red", "snow", "a star", "something blue", "under water", "desert"]
    sim = tiny.encode_text([query]) @ tiny.encode_text(captions).T
    assert sim[0].argmax() == order.index(query)


def test_an_unknown_word_changes_little(tiny: Encoder) -> None:
    plain, more = tiny.encode_text(["a red star over green hills", "a red star over beautiful green hills"])
    other = tiny.encode_text(["a blue fish under water among bubbles"])[0]
    assert plain @ more > 0.5 > plain @ other
