"""The order of training: every clip once an epoch, another order each epoch, the same after a resume."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from raydist.train.data import Order

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=300, unique=True)
BATCH = st.integers(1, 400)
SEED = st.integers(0, 2**40)
EPOCH = st.integers(0, 10_000)


def epoch_of(order: Order, epoch: int) -> NDArray[np.int64]:
    return np.concatenate([order.batch(epoch, step) for step in range(order.steps_per_epoch)])


@given(keys=KEYS, batch=BATCH, seed=SEED, epoch=EPOCH)
def test_every_clip_comes_once_an_epoch_in_batches_of_nearly_one_size(
    keys: list[int], batch: int, seed: int, epoch: int
) -> None:
    order = Order(keys, batch, seed)
    sizes = {len(order.batch(epoch, step)) for step in range(order.steps_per_epoch)}
    assert sorted(epoch_of(order, epoch)) == list(range(len(keys)))
    assert order.steps_per_epoch == -(-len(keys) // batch)
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


@given(keys=KEYS, batch=BATCH, seed=SEED, epochs=st.lists(EPOCH, min_size=1, max_size=4))
def test_a_resumed_run_draws_what_the_first_one_drew(keys: list[int], batch: int, seed: int, epochs: list[int]) -> None:
    counts = [1 + key % 5 for key in keys]
    first = Order(keys, batch, seed, counts)
    for epoch in epochs:  # in any order, and whatever was asked before
        again = Order(keys, batch, seed, counts)
        for step in reversed(range(again.steps_per_epoch)):
            clips = first.batch(epoch, step)
            np.testing.assert_array_equal(clips, again.batch(epoch, step))
            np.testing.assert_array_equal(first.captions(epoch, clips), again.captions(epoch, clips))
            np.testing.assert_array_equal(first.jitter(epoch, clips, 8, 3), again.jitter(epoch, clips, 8, 3))
            np.testing.assert_array_equal(first.flips(epoch, clips), again.flips(epoch, clips))


@given(keys=KEYS, seed=SEED, epoch=EPOCH, workers=st.integers(1, 7))
def test_workers_that_share_a_batch_draw_what_one_would(keys: list[int], seed: int, epoch: int, workers: int) -> None:
    counts = [1 + key % 5 for key in keys]
    order = Order(keys, 64, seed, counts)
    clips = order.batch(epoch, 0)
    shares = np.array_split(clips, workers)
    own = [Order(keys, 64, seed, counts) for _ in shares]
    for draw in (
        lambda order, clips: order.captions(epoch, clips),
        lambda order, clips: order.jitter(epoch, clips, 8, 3),
        lambda order, clips: order.flips(epoch, clips),
    ):
        parts = [draw(one, share) for one, share in zip(own, shares, strict=True)]
        np.testing.assert_array_equal(np.concatenate(parts), draw(order, clips))


@given(seed=SEED, epoch=EPOCH)
def test_epochs_and_seeds_differ(seed: int, epoch: int) -> None:
    order = Order(range(100), 10, seed)
    once = epoch_of(order, epoch)
    assert (epoch_of(order, epoch + 1) != once).any()
    assert (epoch_of(Order(range(100), 10, seed + 1), epoch) != once).any()


@given(keys=KEYS, seed=SEED, epoch=EPOCH, gone=st.integers(0, 299))
def test_what_is_drawn_for_a_clip_does_not_depend_on_the_others(
    keys: list[int], seed: int, epoch: int, gone: int
) -> None:
    left = [key for place, key in enumerate(keys) if place != gone]
    if left:
        kept = [keys[place] for place in epoch_of(Order(keys, 16, seed), epoch) if place != gone]
        assert [left[place] for place in epoch_of(Order(left, 16, seed), epoch)] == kept


def test_places_captions_candidates_and_mirrors_are_drawn_evenly() -> None:
    keys, epochs = np.arange(40) * 7919 - 1000, 500
    order = Order(keys, 40, 3, [4] * 40)
    places = np.stack([np.argsort(order.batch(epoch, 0)) for epoch in range(epochs)])
    assert abs(places.mean(axis=0) - 19.5).max() < 4 * 11.6 / epochs**0.5
    clips = np.arange(40)
    captions = Counter(int(one) for epoch in range(epochs) for one in order.captions(epoch, clips))
    assert set(captions) == {0, 1, 2, 3}
    assert max(abs(count - 5000) for count in captions.values()) < 4 * 61
    frames = np.stack([order.jitter(epoch, clips, 8, 3) for epoch in range(epochs)])
    assert np.abs(frames.mean(axis=(0, 1)) - 1).max() < 4 * 0.82 / 20_000**0.5
    assert abs(np.corrcoef(frames[:, :, 0].ravel(), frames[:, :, 1].ravel())[0, 1]) < 0.03
    assert abs(np.mean([order.flips(epoch, clips) for epoch in range(epochs)]) - 0.5) < 4 * 0.5 / 20_000**0.5


@pytest.mark.parametrize(("keys", "batch", "counts"), [([], 4, None), ([1, 1], 4, None), ([1], 0, None), ([1], 4, [0])])
def test_an_order_of_nothing_is_refused(keys: list[int], batch: int, counts: list[int] | None) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        Order(keys, batch, 0, counts)


def test_a_step_that_the_epoch_lacks_is_refused() -> None:
    with pytest.raises(IndexError, match="step 3 of an epoch of 3"):
        Order(range(9), 4, 0).batch(0, 3)
