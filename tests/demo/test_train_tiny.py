"""The pieces of the training script that could be wrong without a sound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raydist.demo import train_tiny
from raydist.demo.paraphrases import Named
from raydist.demo.train_tiny import SHAPE, Recipe
from raydist.demo.words import Combination, is_held_out, training_combinations
from raydist.models.tokenizer import Tokenizer
from raydist.models.viclip import ViCLIP

RED_STAR = Combination(object="star", colour="red", motion="rise", scene="hills")
RED_BALL = Combination(object="ball", colour="red", motion="rise", scene="snow")


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, SHAPE.image_px, SHAPE.image_px, 3), np.uint8)


def test_looking_at_all_patches_is_encoding_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = ViCLIP(replace(SHAPE, vocabulary=8)).eval()
    clips = torch.from_numpy(frames(3))

    # Neither brighter nor darker; which patch comes first does not matter.
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape if len(shape) > 1 else shape[0], 0.5))
    with torch.no_grad():
        looked = train_tiny.look(model, clips, kept=1.0)
        encoded = model.encode_video(train_tiny.normalise(clips))
    assert torch.allclose(looked, encoded, atol=1e-5)


def test_patches_that_move_are_looked_at_first() -> None:
    patches = torch.full((2, 16, 8, 64, 3), 90, dtype=torch.uint8)
    patches[0, 5, :4] = 250
    chosen = train_tiny.liveliest(patches, 24)
    assert chosen.shape == (2, 24)
    assert all(len(set(row)) == 24 for row in chosen.tolist())
    assert len({place for place in chosen[0].tolist() if place // 8 == 5}) >= 6


def test_a_caption_that_is_true_of_another_clip_is_no_negative_of_it() -> None:
    captions = [
        Named(text="red", object=None, colour="red", motion=None, scene=None),
        Named(text="a red ball in the snow", object="ball", colour="red", motion=None, scene="snow"),
    ]
    true = train_tiny.truth(captions, [RED_STAR, RED_BALL])
    assert true.tolist() == [[False, False], [True, False]]


def test_pairs_that_are_true_do_not_enter_the_loss() -> None:
    video = torch.eye(3)
    text = torch.eye(3)[[0, 0, 2]]
    true = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    none = torch.zeros(3, 3, dtype=torch.bool)
    temp = torch.tensor(0.1)
    masked, plain = (train_tiny.contrastive(video, text, temp, which) for which in (true, none))
    assert masked < plain


def test_shifting_keeps_pixels_and_moves_all_frames_of_a_clip_alike() -> None:
    clips = frames(6)
    clips[:] = clips[:, :1]
    shifted = train_tiny.shift(clips, np.random.default_rng(1))
    assert shifted.shape == clips.shape
    assert (shifted == shifted[:, :1]).all()
    assert any((shifted[k] != clips[k]).any() for k in range(6))


def test_the_rate_warms_up_and_ends_at_nothing() -> None:
    assert train_tiny.rate(0.0, 0.1) == 0.0
    assert train_tiny.rate(0.1, 0.1) == 1.0
    assert train_tiny.rate(1.0, 0.1) == pytest.approx(0.0, abs=1e-9)


def test_training_twice_gives_the_same_weights_and_leaves_unused_words_at_zero() -> None:
    shown = training_combinations()[:12]
    assert not any(is_held_out(each) for each in shown)
    recipe, tokenizer = Recipe(steps=2, batch=4), Tokenizer(SHAPE.context)
    first, second = (train_tiny.train(frames(12), shown, tokenizer, recipe).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    table = first["text_encoder.token_embedding.weight"]
    assert 20 < int((table != 0).any(dim=1).sum()) < 200


def test_the_final_measurement_draws_each_combination_once() -> None:
    drawn = train_tiny.draw_held_out(240, seed=1)
    assert len(set(drawn)) == 240
    assert all(is_held_out(each) for each in drawn)
