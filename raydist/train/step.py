"""One training step: the gradients of the loss over the global batch, on any number of workers, in any chunks.

The loss couples all clips of a batch, but only through their vectors. So each worker embeds its share, the vectors of
all shares are gathered, every worker computes the same loss and its gradient by the vectors, and takes its own rows of
that back through its towers: exactly the gradient of one process on the whole batch. Chunks do the same within a worker
(GradCache, arXiv:2101.06983): embed without gradient, then replay chunk after chunk with the vectors' gradients.

Promises  the same loss on every worker; gradients summed over workers once a step, by DDP
"""

# Shape legend: B clips of the global batch, b clips of this worker's share, T frames, H W pixels, L tokens,
# E embedding size

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from raydist.models.encoder import Encoder
from raydist.train.loss import contrastive
from raydist.train.share import Share


class Towers(nn.Module):
    """Both towers as one module, for DDP, which synchronises what passes through `forward`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model
        self._encoder = encoder

    def forward(self, frames_bTHWC: Tensor, ids_bL: Tensor) -> tuple[Tensor, Tensor]:
        video_bE = self._encoder.video(self._encoder.pixels(frames_bTHWC))
        return _unit(video_bE), _unit(self._encoder.text(ids_bL))


class Step:
    """Computes gradients; the optimizer is the caller's."""

    def __init__(self, encoder: Encoder, temperature: nn.Parameter, micro_batch: int = 0) -> None:
        """
        Args:
            encoder: with an adapter attached; in a process group of several workers it is wrapped in DDP.
            temperature: a scalar; it gets a gradient if it asks for one.
            micro_batch: clips of one forward pass with gradient; 0: the whole share.
        """
        self._towers = Towers(encoder)
        self._temperature = temperature
        self._micro_batch = micro_batch
        self._workers = distributed.get_world_size() if distributed.is_initialized() else 1
        self._rank = distributed.get_rank() if distributed.is_initialized() else 0
        self._ddp = None
        if self._workers > 1:
            devices = [encoder.device.index or 0] if encoder.device.type == "cuda" else None
            self._ddp = DistributedDataParallel(self._towers, device_ids=devices, broadcast_buffers=False)

    def gradients(self, share: Share) -> Tensor:
        """Add the gradient of the batch's loss to the parameters; the loss, detached, equal on all workers."""
        chunked = 0 < self._micro_batch < len(share.ids_bL)
        video_bE, text_bE = self.embed(share) if chunked else self._module()(share.frames_bTHWC, share.ids_bL)
        loss, video_grad_bE, text_grad_bE = self._loss(share, video_bE.detach(), text_bE.detach())
        if not bool(torch.isfinite(loss)):
            return loss  # the caller stops; nothing of it goes into the weights
        if not chunked:
            torch.autograd.backward([video_bE, text_bE], [video_grad_bE, text_grad_bE])
            return loss
        for rows, last in _chunks(len(share.ids_bL), self._micro_batch):
            with self._synchronised(last):
                video_cE, text_cE = self._module()(share.frames_bTHWC[rows], share.ids_bL[rows])
                torch.autograd.backward([video_cE, text_cE], [video_grad_bE[rows], text_grad_bE[rows]])
        return loss

    @torch.no_grad()
    def embed(self, share: Share) -> tuple[Tensor, Tensor]:
        """Unit vectors of this worker's share, without gradient, in chunks."""
        parts = [
            self._towers(share.frames_bTHWC[rows], share.ids_bL[rows])
            for rows, _ in _chunks(len(share.ids_bL), self._micro_batch or len(share.ids_bL))
        ]
        return torch.cat([video for video, _ in parts]), torch.cat([text for _, text in parts])

    def _module(self) -> nn.Module:
        return self._ddp if self._ddp is not None else self._towers

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """DDP exchanges gradients with the last chunk's backward pass only."""
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()

    def _loss(self, share: Share, video_bE: Tensor, text_bE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss over all shares, and its gradient by this worker's vectors, scaled for DDP's mean over workers."""
        video_BE = gather(video_bE, share.sizes).requires_grad_()
        text_BE = gather(text_bE, share.sizes).requires_grad_()
        caption_B, valid_B = gather(share.caption_b, share.sizes), gather(share.valid_b, share.sizes)
        loss = contrastive(video_BE, text_BE, self._temperature.to(video_BE.dtype), caption_B, valid_B)
        wanted = [video_BE, text_BE, *([self._temperature] if self._temperature.requires_grad else [])]
        video_grad, text_grad, *temperature_grad = torch.autograd.grad(loss, wanted)
        if temperature_grad:
            self._temperature.grad = temperature_grad[0]  # of the whole batch, the same on every worker
        start = sum(share.sizes[: self._rank])
        own = slice(start, start + share.sizes[self._rank])
        return loss.detach(), video_grad[own] * self._workers, text_grad[own] * self._workers


def gather(rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Rows of all workers in the order of their ranks, without gradient.

    Args:
        rows: of this worker, as many as `sizes` says.
        sizes: rows of each worker.
    """
    if len(sizes) == 1:
        return rows.detach().clone()
    kind = rows.dtype
    # Collectives want equal shapes and know no booleans.
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]), dtype=torch.uint8 if kind is torch.bool else kind)
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(kind)


def _chunks(count: int, size: int) -> Iterator[tuple[slice, bool]]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count)), start + size >= count


def _unit(vectors_bE: Tensor) -> Tensor:
    """Of length 1, at least in float32: a loss in bfloat16 would not tell similar clips apart."""
    return normalize(vectors_bE if vectors_bE.dtype == torch.float64 else vectors_bE.float(), dim=-1)
