"""What a run is trained on and watched with: pairs of the splits, checked, their frames cached, copies kept apart.

Reads     `clips`, `captions`, `videos`, `signatures`
Writes    cached frames, `signatures`, `failures`; overrides of splits where copies cross them; in the run's folder the
          pairs themselves, so that a run that goes on has what it began with, whatever the archive holds by then
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raydist.clips.decoder import Geometry
from raydist.clips.sampling import CANDIDATES
from raydist.config import Config
from raydist.errors import TrainError
from raydist.frames.build import Built, ensure
from raydist.models.encoder import ModelInfo
from raydist.sections import Train
from raydist.store.pairs import captioned_clips, stale_captions
from raydist.store.splits import SPLITS
from raydist.train import files, leaks, recipe
from raydist.train.task import LEAKED, TRAINED, WATCHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Pairs whose frames are there."""

    trained: pa.Table
    watched: pa.Table
    """Held out."""
    leaked: pa.Table
    """`clip_key` of held-out clips that are copies of others and could not be moved."""
    geometry: Geometry
    built: Built
    """Of the frame cache: all clips that were looked at, those that failed with their reasons."""
    notes: tuple[str, ...] = ()

    def write(self, folder: str) -> None:
        """Keep the pairs in the run's folder."""
        for name, table in ((TRAINED, self.trained), (WATCHED, self.watched), (LEAKED, self.leaked)):
            files.write_table(folder, name, table)

    def recipe(self) -> dict[str, Any]:
        """What of the data decides the result."""
        return {
            "clips": self.trained.num_rows,
            "held_out_clips": self.watched.num_rows,
            "data": self.fingerprint,
        }

    @property
    def failures(self) -> dict[str, int]:
        """Reason -> clips that could not be decoded."""
        return dict(Counter(self.built.failed.values()))

    @property
    def fingerprint(self) -> str:
        """Of all clips and captions, trained and watched."""
        digest = hashlib.sha256()
        for part in (self.trained, self.watched):
            for row in part.select(["clip_id", "fingerprint", "captions"]).to_pylist():
                digest.update(repr(sorted(row.items())).encode())
        return digest.hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """What an adapter's card says of the data."""
        return {
            "train_clips": self.trained.num_rows,
            "train_videos": len(pc.unique(self.trained["source_id"])),
            "val_clips": self.watched.num_rows,
            "captions": int(pc.sum(pc.list_value_length(self.trained["captions"])).as_py() or 0),
            "fingerprint": self.fingerprint,
        }

    def steps_per_epoch(self, batch: int) -> int:
        """Batches of an epoch."""
        return -(-len(self.trained) // batch)

    def smallest_batch(self, batch: int) -> int:
        """Clips of the smallest batch: they differ by one at most."""
        return len(self.trained) // self.steps_per_epoch(batch)

    def steps(self, section: Train) -> int:
        """The schedule's horizon."""
        return section.epochs * self.steps_per_epoch(section.batch)


def prepare(config: Config, info: ModelInfo, folder: str, *, retry_failed: bool = False) -> Prepared:
    """The run's pairs, with their frames in the cache: those that it began with, where it has begun.

    Raises:
        TrainError: nothing to train on, nothing held out, or captions that tell nothing apart.
        ResourceError: the frames would take more disk than `train.cache_gb`.
    """
    geometry = Geometry(frames=info.frames, sampling=info.sampling, size_px=info.size_px, resize=info.resize)
    if not recipe.has_begun(folder):
        return _anew(config, geometry, retry_failed=retry_failed)
    trained, watched, leaked = (files.read_table(folder, name) for name in (TRAINED, WATCHED, LEAKED))
    built = _cached(config, pa.concat_tables([trained, watched]), geometry, retry_failed=retry_failed)
    return Prepared(trained=trained, watched=watched, leaked=leaked, geometry=geometry, built=built)


def _anew(config: Config, geometry: Geometry, *, retry_failed: bool) -> Prepared:
    location, section = config.require_archive(), config.train
    notes: list[str] = []
    stale = stale_captions(location)
    if stale:
        notes.append(
            f"{stale:,} captions are of clips that changed and are left out: `raydist caption --keep` confirms"
        )
    every = pa.concat_tables([captioned_clips(location, split) for split in SPLITS])
    _check(location, every, SPLITS, stale)
    built = _cached(config, every, geometry, retry_failed=retry_failed)
    found = leaks.find(location, every["clip_key"].to_pylist())
    settled = leaks.settle(location, found, how=section.leaks)
    leaked = pa.table({"clip_key": pa.array(settled.clip_keys, pa.int64())})
    trained, watched = (
        built.without_failed(captioned_clips(location, split)).combine_chunks() for split in ("train", "val")
    )
    watched = watched.filter(pc.invert(pc.is_in(watched["clip_key"], value_set=leaked["clip_key"].combine_chunks())))
    # Clip keys are hashes, so the first ones of their order are a fair choice, and always the same.
    watched = watched.slice(0, section.eval_clips)
    _check(location, pa.concat_tables([trained, watched]), ("train", "val"), stale)
    return Prepared(
        trained=trained,
        watched=watched,
        leaked=leaked,
        geometry=geometry,
        built=built,
        notes=(*notes, *settled.notes),
    )


def _cached(config: Config, pairs: pa.Table, geometry: Geometry, *, retry_failed: bool) -> Built:
    """Decode what the cache lacks, with what was to be cached at all."""
    candidates = CANDIDATES if config.train.jitter else 1
    return ensure(
        config,
        pairs,
        geometry,
        encoding=config.train.cache,
        candidates=candidates,
        stage="train",
        retry_failed=retry_failed,
    )


def _check(location: str, pairs: pa.Table, splits: Sequence[str], stale: int) -> None:
    """
    Raises:
        TrainError: nothing to train on, nothing held out, or captions that tell nothing apart.
    """
    if not pairs.num_rows:
        why = f": its {stale:,} captions are of clips that changed (`raydist caption --keep` confirms them)"
        raise TrainError(
            f"no clip of the archive {location!r} has a caption{why if stale else ''}; expected clips with captions in "
            "all splits: run `raydist caption --from captions.csv` first"
        )
    counts = {split: pc.sum(pc.equal(pairs["split"], split)).as_py() or 0 for split in splits}
    empty = [split for split, count in counts.items() if not count]
    if empty:
        held = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
        raise TrainError(
            f"no captioned clips in {' and '.join(empty)} ({held}): expected some in every split, else nothing tells "
            "whether training helps. Add captions or videos, or give your own splits with `raydist scan --splits FILE`"
        )
    trained = pairs.filter(pc.equal(pairs["split"], "train"))
    texts = pc.unique(pc.utf8_lower(pc.utf8_trim_whitespace(pc.list_flatten(trained["captions"]))))
    if len(texts) < 2:
        raise TrainError(
            f"all {trained.num_rows:,} clips of the split train have one caption, {texts[0].as_py()!r}: expected "
            "different ones, for training learns what tells clips apart"
        )
