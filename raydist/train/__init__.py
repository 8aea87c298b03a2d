"""train: clips and their captions -> a LoRA adapter of CLIP or ViCLIP.

Reads   `clips` and `captions` of the splits train and val; the base model's weights
Writes  `runs/<name>/`: the adapter in PEFT's format with a card, checkpoints, TensorBoard's files, the journal;
        cached frames, `signatures` and `failures` on the way
Again   the same command goes on from the last checkpoint after any crash; its losses are those of an unbroken run
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydist.config import Config
    from raydist.records import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one call asks for, beside the settings."""

    run: str = "lora"
    """Name of the run, and of its adapter."""
    retry_failed: bool = False
    """Try clips again that could not be decoded earlier."""


def run(config: Config, request: Request | None = None) -> Report:
    """Train an adapter for `embed.model` on the archive's captioned clips, or go on with a run that was stopped.

    Raises:
        ArchiveError: no archive.
        ModelError: the model is unknown or not on this machine.
        TrainError: too little to train on or to measure with, or a loss that is no number.
        ConfigError: the run was begun with another recipe.
        UsageError: the run is finished, or its name is none.
        ResourceError: the cluster cannot run the plan, or frames would take more disk than `train.cache_gb`.
    """
    # Here and not above: `raydist --help` reads this package's names, and must not wait for torch.
    from raydist.train.driver import run as run_stage

    return run_stage(config, request or Request())
