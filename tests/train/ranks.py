"""One worker of a process group: takes steps on its share of seeded batches and saves losses and gradients.

    python tests/train/ranks.py '{"rank": 0, "workers": 2, "port": 29500, "batch": 11, "cases": [{"out": ..., ...}]}'

A process of its own, because a process group belongs to a whole process; one for all cases, because torch and peft
take seconds to import.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn

from raydist.models import lora
from raydist.models.registry import load_encoder
from raydist.train.share import share_of, shares
from raydist.train.step import Step

WORDS = ["a red star rises", "a fish", "a blue ring falls", "snow", "A Fish", "a ball over hills", "a heart grows"]
"""Two of them are one to the model."""


def main(asked: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rank, workers = asked["rank"], asked["workers"]
    if workers > 1:
        place = f"tcp://127.0.0.1:{asked['port']}"
        distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=workers)
    for case in asked["cases"]:
        found = take(case, asked["batch"], rank, workers)
        if rank == 0:
            np.savez(Path(case["out"]), **found)
    if workers > 1:
        distributed.destroy_process_group()


def take(case: dict[str, Any], batch: int, rank: int, workers: int) -> dict[str, NDArray[Any]]:
    """The losses of some steps, and the gradients of the first."""
    encoder = load_encoder(case["model"], device="cpu")
    kind = torch.float64 if case["double"] else torch.float32
    encoder.model.to(kind)
    encoder.dtype = kind
    adapter = lora.attach(encoder, rank=4, alpha=8)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in adapter.parameters():
        if "lora_B" in name:  # zeros: no gradient would reach A
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    if case.get("checkpointing"):
        encoder.checkpoint_activations()
    temperature = nn.Parameter(torch.tensor(0.07, dtype=kind))
    step = Step(encoder, temperature, case["micro_batch"])
    named = [*adapter.parameters(), ("temperature", temperature)]
    optimizer = torch.optim.AdamW([parameter for _, parameter in named], lr=1e-3)
    losses, gradients = [], {}
    for number in range(case["steps"]):
        optimizer.zero_grad()
        losses.append(float(step.gradients(_share(encoder, batch, number, rank, workers))))
        if not gradients:
            gradients = {name: p.grad.numpy().copy() for name, p in named if p.grad is not None}
        optimizer.step()
    return {"losses": np.array(losses), **gradients}


def _share(encoder: Any, batch: int, number: int, rank: int, workers: int) -> Any:
    rng = np.random.default_rng(number)
    side = encoder.info.size_px
    frames = rng.integers(0, 256, (batch, encoder.info.frames, side, side, 3), dtype=np.uint8)
    texts = [WORDS[place % len(WORDS)] for place in rng.permutation(batch)]
    valid = np.ones(batch, np.bool_)
    valid[1] = False  # one clip without frames
    sizes = shares(batch, workers)
    own = slice(sum(sizes[:rank]), sum(sizes[:rank]) + sizes[rank])
    return share_of(frames[own], valid[own], texts[own], encoder.ids, sizes, torch.device("cpu"))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
