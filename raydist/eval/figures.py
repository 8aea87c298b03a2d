"""The figures of an evaluation, from vectors: each model's, their difference, how sure, and against chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydist import metrics
from raydist.eval.held import Held, Queries
from raydist.metrics import Bounds, Places, Ranks
from raydist.models.encoder import ModelInfo

# Shape legend: N clips, M texts, S models, Q queries, E embedding size

DIRECTIONS = ("text_to_video", "video_to_text")

FEW_GROUPS = 20
"""With fewer groups of videos an interval is rough itself."""

_COLLAPSED = 0.1
"""Share of queries with equal scores from which on it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One way of searching."""

    places: Sequence[Places]
    """Of the base and, where there is one, of the adapter."""
    bounds: Sequence[Bounds]
    """The same, and of the difference."""
    p: Mapping[str, float]
    chance: metrics.Retrieval

    def order(self) -> NDArray[np.int64]:
        """Queries from the largest loss of rank to the largest gain; of a base alone, from its worst rank on."""
        base_Q, last_Q = self.places[0].ranks, self.places[-1].ranks
        # By how many times the rank grew: from 1 to 9 is worse than from 91 to 99.
        key_Q = -np.log(last_Q / base_Q) if len(self.places) > 1 else -base_Q
        return np.lexsort([np.arange(len(key_Q)), -last_Q, np.nan_to_num(key_Q)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that an evaluation found."""

    split: str
    held: Held
    pairs: pa.Table
    """The clips that were measured."""
    queries: Queries
    models: Sequence[ModelInfo]
    video_SNE: NDArray[np.float32]
    text_SME: NDArray[np.float32]
    directions: Mapping[str, Direction]
    resamples: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of these figures."""
        notes = list(self.held.notes)
        if self.held.left_out:
            notes.append(f"{self.held.left_out:,} clips of the split are left out: the adapter was trained on them")
        if self.held.leaked:
            notes.append(f"{self.held.leaked:,} clips are left out: copies of what the adapter was trained on")
        groups = self.queries.groups.count
        if groups == 1:
            notes.append(
                "no interval and no test: all clips are of one video or share captions with each other, and nothing "
                "tells how the next video would do"
            )
        elif groups < FEW_GROUPS:
            notes.append(f"only {groups} independent groups of videos: take the intervals themselves as rough")
        for name, direction in self.directions.items():
            for info, places in zip(self.models, direction.places, strict=True):
                tied = float((places.found[places.known] % 1 != 0).any(axis=1).mean())
                if tied >= _COLLAPSED:
                    notes.append(
                        f"{info.name}: {tied:.0%} of the queries {name.replace('_', ' ')} have equal scores at their "
                        "rank; are there clips alike, or does the model give one vector for all?"
                    )
        return tuple(notes)

    def as_json(self) -> dict[str, Any]:
        """Plain numbers, as `raydist eval --json` shows them."""
        roles = ("base", "adapter")[: len(self.models)]
        scores = {role: self._scores(number) for number, role in enumerate(roles)}
        found: dict[str, Any] = {
            "split": self.split,
            "clips": len(self.pairs),
            "captions": len(self.queries.texts),
            "videos": len(pc.unique(self.pairs["source_id"])),
            "groups": self.queries.groups.count,
            "left_out": self.held.left_out,
            "leaked": self.held.leaked,
            **{name: scores[roles[-1]][name] for name in DIRECTIONS},
            **scores,
        }
        if len(self.models) > 1:
            found["difference"] = {name: self._difference(direction) for name, direction in self.directions.items()}
        found["chance"] = {name: _figures(direction.chance) for name, direction in self.directions.items()}
        found["intervals"] = (
            f"{metrics.LEVEL:.0%}, expanded percentile bootstrap of {self.resamples:,} resamples of groups of videos"
        )
        return found

    def _scores(self, number: int) -> dict[str, Any]:
        info = self.models[number]
        ways = {
            name: {
                **_figures(metrics.summarise(direction.places[number])),
                "interval": _rounded(direction.bounds[number]),
                "queries": int(direction.places[number].known.sum()),
            }
            for name, direction in self.directions.items()
        }
        return {"model": info.name, "model_key": info.model_key, **ways}

    def _difference(self, direction: Direction) -> dict[str, Any]:
        base, adapter = (_figures(metrics.summarise(places)) for places in direction.places)
        before, after = (places.ranks[places.known] for places in direction.places)
        return {
            **{figure: round(adapter[figure] - base[figure], 4) for figure in metrics.FIGURES},
            "interval": _rounded(direction.bounds[2]),
            "p": {figure: round(p, 6) for figure, p in direction.p.items()} if self.queries.groups.count > 1 else None,
            "better": int((after < before).sum()),
            "same": int((after == before).sum()),
            "worse": int((after > before).sum()),
        }


def measure(
    held: Held,
    pairs: pa.Table,
    queries: Queries,
    video_SNE: NDArray[np.float32],
    text_SME: NDArray[np.float32],
    models: Sequence[ModelInfo],
    *,
    split: str,
    resamples: int,
    seed: int,
) -> Measured:
    """Rank, resample and compare; one or two models."""
    found = [
        metrics.ranks(video_NE, text_ME, queries.pairs_P2)
        for video_NE, text_ME in zip(video_SNE, text_SME, strict=True)
    ]
    clips, texts = len(pairs), len(queries.texts)
    right_N, right_M = (
        np.bincount(queries.pairs_P2[:, side], minlength=count) for side, count in ((0, clips), (1, texts))
    )
    groups = queries.groups
    ways = {
        "text_to_video": (groups.texts, metrics.chance(right_M, clips)),
        "video_to_text": (groups.videos, metrics.chance(right_N, texts)),
    }
    return Measured(
        split=split,
        held=held,
        pairs=pairs,
        queries=queries,
        models=models,
        video_SNE=video_SNE,
        text_SME=text_SME,
        directions={name: _direction(found, name, *way, resamples, seed) for name, way in ways.items()},
        resamples=resamples,
    )


def _direction(
    found: Sequence[Ranks], name: str, group_Q: NDArray[np.int64], chance: metrics.Retrieval, resamples: int, seed: int
) -> Direction:
    places: list[Places] = [getattr(ranks, name) for ranks in found]
    if len(places) == 1:
        bounds = [metrics.bootstrap(places[0], group_Q, resamples=resamples, seed=seed)]
        return Direction(places=places, bounds=bounds, p={}, chance=chance)
    compared = metrics.compare(places[0], places[1], group_Q, resamples=resamples, seed=seed)
    bounds = [compared.base, compared.adapter, compared.difference]
    return Direction(places=places, bounds=bounds, p=compared.p, chance=chance)


def _figures(found: metrics.Retrieval) -> dict[str, float]:
    return {figure: round(getattr(found, figure), 4) for figure in metrics.FIGURES}


def _rounded(bounds: Bounds) -> dict[str, list[float] | None]:
    return {figure: None if ends is None else [round(end, 4) for end in ends] for figure, ends in bounds.items()}
