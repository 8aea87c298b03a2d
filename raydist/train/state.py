"""What a run must remember to go on exactly: one file in a checkpoint's folder, without pickled objects."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE = "state.pt"


@dataclass(slots=True, kw_only=True)
class State:
    """Everything beside the base model and the data; the data's order is a function of the step."""

    step: int = 0
    """Steps that are done."""
    adapter: dict[str, Tensor] = field(default_factory=dict)
    temperature: float = 0.0
    optimizer: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    """What held-out clips said before the first step."""
    best: dict[str, Any] = field(default_factory=dict)
    """What they said at the best step; with `step` and `epoch`, the one that it fell into."""
    best_adapter: dict[str, Tensor] = field(default_factory=dict)
    best_temperature: float = 0.0
    stopped: str = ""
    """Why the run is over; empty while it is not."""
    culprits: list[str] = field(default_factory=list)
    """Clip ids of the batch whose loss was no number."""
    unread: list[str] = field(default_factory=list)
    """Clip ids that could not be read in some step, which went on without them."""
    seconds: float = 0.0
    """Training time, without the time that a resume took."""

    def save(self, folder: Path) -> None:
        """Write the file into a folder that exists."""
        torch.save({part.name: getattr(self, part.name) for part in fields(self)}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> State:
        """Read what `save` wrote; tensors on the CPU."""
        return cls(**torch.load(folder / FILE, map_location="cpu", weights_only=True))
