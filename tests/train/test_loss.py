"""The contrastive loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, normalize

from raydist.train.loss import contrastive


def unit(rows: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_it_is_the_mean_cross_entropy_of_both_directions() -> None:
    video, text = unit(6), unit(6, seed=1)
    logits, right = video @ text.T / 0.07, torch.arange(6)
    expected = (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2
    assert contrastive(video, text, torch.tensor(0.07), torch.arange(6)) == pytest.approx(float(expected), abs=1e-7)


def test_a_clip_with_the_same_caption_is_no_negative() -> None:
    video, text = unit(4), unit(4, seed=1)
    text[3] = text[0]
    twins = contrastive(video, text, torch.tensor(0.1), torch.tensor([5, 6, 7, 5]))
    # Without the twin's clip, the first clip's rows and columns are those of a batch of three; the same for the twin.
    rows = [contrastive_row(video, text, keep, row) for keep, row in (([0, 1, 2], 0), ([3, 1, 2], 0))]
    rows += [contrastive_row(video, text, [1, 0, 2, 3], 0), contrastive_row(video, text, [2, 0, 1, 3], 0)]
    assert float(twins) == pytest.approx(sum(rows) / 4, abs=1e-7)


def contrastive_row(video: torch.Tensor, text: torch.Tensor, keep: list[int], row: int) -> float:
    logits, right = video[keep] @ text[keep].T / 0.1, torch.arange(len(keep))
    both = [cross_entropy(one, right, reduction="none")[row] for one in (logits, logits.T)]
    return float(sum(both)) / 2


def test_captions_that_are_all_equal_tell_nothing() -> None:
    video = unit(4).requires_grad_()
    loss = contrastive(video, unit(4, seed=1), torch.tensor(0.1), torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert video.grad is not None
    assert not video.grad.any()


def test_a_clip_without_frames_changes_nothing_for_the_others() -> None:
    video, text = unit(5).requires_grad_(), unit(5, seed=1)
    valid = torch.tensor([True, False, True, True, False])
    masked = contrastive(video, text, torch.tensor(0.1), torch.arange(5), valid)
    masked.backward()
    alone = contrastive(video[valid], text[valid], torch.tensor(0.1), torch.arange(3))
    assert masked.item() == pytest.approx(alone.item(), abs=1e-9)
    assert video.grad is not None
    assert not video.grad[~valid].any()


@pytest.mark.parametrize(("case", "temperature"), [("loss", 0.01), ("temp_0.07.loss", 0.07)])
def test_it_gives_the_loss_of_the_reference_code(shared: Path, case: str, temperature: float) -> None:
    expected = load_file(shared / "parity" / "tiny" / "expected.safetensors")
    video, text = (normalize(expected[name], dim=-1) for name in ("vision", "text"))
    loss = contrastive(video, text, torch.tensor(temperature), torch.arange(len(video)))
    assert float(loss) == pytest.approx(float(expected[case]), abs=2e-5)
