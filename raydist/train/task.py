"""What the driver gives each training worker: values only, so that they travel to any node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raydist.clips.decoder import Geometry
from raydist.clips.sampling import CANDIDATES
from raydist.records import Limits
from raydist.sections import Train

TRAINED = "trained.parquet"
"""In the run's folder: the pairs that it is trained on, as they were when it began. `eval` leaves those clips out."""

WATCHED = "watched.parquet"
"""The held-out pairs that its evaluations look at."""

LEAKED = "leaked.parquet"
"""`clip_key` of held-out clips that are copies of others and could not be moved: neither is measured on them."""

RECIPE = "recipe.json"
"""What decides the run's result; another start of the run must have the same."""

OUTCOME = "outcome.json"
"""How it ended."""

NOW = "now.json"
"""The step of the moment, where the archive is an object store: the journal gets there more seldom."""

STOP = "stop"
"""A file whose presence asks the workers to save and end."""

ADAPTER = "adapter"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run, for its workers."""

    location: str
    """Of the archive."""
    run: str
    folder: str
    """Of the run, in the archive: a path, or an address that workers on all nodes can open."""
    model: str
    """Name or folder of the base model, on every node."""
    section: Train
    geometry: Geometry
    places: Mapping[str, str]
    limits: Limits
    threads: int
    """Of a worker on CPUs."""
    device: str
    keeps_frames: bool = False
    """Whether each node keeps a copy of the frames that it read: where there are several, or a store far away."""
    facts: Mapping[str, Any]
    """For the adapter's card: counts and fingerprint of the data."""

    @property
    def candidates(self) -> int:
        """Frames that are cached of an interval."""
        return CANDIDATES if self.section.jitter else 1
