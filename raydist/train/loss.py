"""The contrastive loss of CLIP over a global batch.

Symmetric InfoNCE on unit vectors with the model's own temperature (CLIP: arXiv:2103.00020, section 2.3; InfoNCE:
arXiv:1807.03748). A caption that stands twice in a batch is no negative of its twin: the pair is left out of both
softmaxes, as is a clip that could not be read.
"""

# Shape legend: B clips of the global batch, E embedding size

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

LOWEST_TEMPERATURE = 0.01
"""CLIP clips its scale at 100 and ViCLIP its temperature at 0.01, which is the same."""


def contrastive(
    video_BE: Tensor, text_BE: Tensor, temperature: Tensor, caption_B: Tensor, valid_B: Tensor | None = None
) -> Tensor:
    """The mean loss of a batch, both directions.

    Args:
        video_BE, text_BE: unit length; row i of one belongs to row i of the other.
        temperature: similarities are divided by it.
        caption_B: int64, equal where two captions read alike to the model.
        valid_B: bool; False for a clip without frames, which then counts nothing. None: all are valid.

    Returns:
        A scalar; 0 where nothing is left to compare.
    """
    logits_BB = video_BE @ text_BE.T / temperature
    itself_BB = torch.eye(len(caption_B), dtype=torch.bool, device=caption_B.device)
    excluded_BB = (caption_B[:, None] == caption_B[None, :]) & ~itself_BB
    if valid_B is not None:
        excluded_BB = excluded_BB | ~(valid_B[:, None] & valid_B[None, :] | itself_BB)
    logits_BB = logits_BB.masked_fill(excluded_BB, float("-inf"))
    target_B = torch.arange(len(caption_B), device=logits_BB.device)
    both_B = cross_entropy(logits_BB, target_B, reduction="none") + cross_entropy(
        logits_BB.T, target_B, reduction="none"
    )
    if valid_B is None:
        return both_B.mean() / 2
    return torch.where(valid_B, both_B, 0.0).sum() / (2 * valid_B.sum().clamp(min=1))
