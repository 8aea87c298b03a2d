"""caption --review: what a person should look at before training on the captions of an archive.

Reads     current captions, their clips; vectors of the archive's model where there are some; frames of what is shown
Writes    `runs/<run>/captions.html` (or another file), a report with the lists in its details
Promises  no caption is changed; the clips that are shown are the same the next time
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from raydist import choice
from raydist.caption import repeated, sheet, suspects
from raydist.caption.present import Present, present, vectors_of
from raydist.caption.repeated import Repeated
from raydist.caption.suspects import Doubts, Moved, Suspect
from raydist.config import Config
from raydist.errors import ArchiveError, ModelError, RaydistError, StoreError, UsageError
from raydist.models.recall import recall
from raydist.models.registry import load_encoder
from raydist.records import Report
from raydist.store import lease, models, settings
from raydist.store.location import join
from raydist.store.models import Stored
from raydist.store.runs import FOLDER, new_run, publish, run_folder, save
from raydist.store.schema import embeddings_table
from raydist.store.shown import refuse_address, shown

SAMPLE = 60
LISTED = 1_000
"""Entries of each list in the report."""
_PAGE = "captions.html"
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What the vectors tell, or why they tell nothing."""

    doubts: Doubts | None = None
    model: str = ""
    notes: tuple[str, ...] = ()


def run(config: Config, out: str | None, *, sample: int = SAMPLE) -> Report:
    """Look through the captions of an archive.

    Args:
        out: the page to write; None: in the folder of the run.
        sample: clips to show that are drawn at random, and doubtful ones at most.

    Raises:
        ArchiveError: no archive, or no captions in it.
        ModelError, StoreError: a model was named, and the archive has no vectors of it or its weights are not here.
        UsageError: the page cannot be written there.
    """
    started = time.monotonic()
    location = config.require_archive()
    settings.open_existing(location)
    file = _file(out)
    with lease.Lease(location, "caption"):
        there = present(location)
        if not there.captions.num_rows:
            raise ArchiveError(
                f"the archive {location!r} has no captions to review: run `raydist caption --from FILE` or "
                "`raydist caption --provider …` first"
            )
        group = repeated.groups(there.captions)
        shared = repeated.repeated(there, group)
        compared = _compare(config, location, there, group)
        run_name = new_run("caption")
        path = file or run_folder(location, run_name) / _PAGE
        cut = np.flatnonzero(np.array(there.captions["cut"].fill_null(False))).tolist()
        _write(path, config, there, shared, compared.doubts, cut, sample)
        where = sheet_at = str(path)
        if file is None:
            publish(location, run_name, only=(_PAGE,))
            where, sheet_at = shown(location, run_name, _PAGE), join(location, FOLDER, run_name, _PAGE)
        report = Report(
            stage="caption",
            run=run_name,
            seconds=round(time.monotonic() - started, 3),
            counts=_counts(there, shared, compared.doubts, len(cut)),
            notes=(*compared.notes, *_said(there, shared, compared.doubts, len(cut)), f"the page: {where}"),
            details={"sheet": sheet_at, "model": compared.model, **_lists(there, shared, compared.doubts, cut)},
        )
        save(report, location)
    return report


def _file(out: str | None) -> Path | None:
    """Where the page shall be, if it can be there."""
    if out is None:
        return None
    refuse_address("--sheet", out)
    file = Path(out).expanduser().absolute()
    if file.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--sheet {out!r}: expected a file that ends in .html")
    if not file.parent.is_dir():
        raise UsageError(f"--sheet {out!r}: the folder {str(file.parent)!r} does not exist")
    return file


def _compare(config: Config, location: str, there: Present, group: suspects.Groups) -> _Compared:
    """Ask the vectors. Without a model that was named, it is no failure that there are none."""
    is_named = bool(config.embed.model or config.embed.adapter)
    try:
        model = choice.to_search(location, config.embed.model, config.embed.adapter)
        adapter = models.brought(location, model.adapter)
        info = recall(model.model_key, model.name, model.location, adapter)
        if info is None:
            raise StoreError(
                f"the weights of {model.name!r} on this machine are not those of the archive's vectors: bring the same "
                "weights here, or run `raydist embed` with these"
            )
        encoder = load_encoder(info.location, info.adapter or None, device=config.embed.device)
    except (ArchiveError, ModelError, StoreError) as error:
        if is_named:
            raise
        return _Compared(notes=(_why_not(location, error),))
    table = embeddings_table(model.model_key)
    found = suspects.doubts(there, group, partial(vectors_of, there, location, table), encoder.encode_text)
    if found is None:
        least = f"fewer than {suspects.LEAST} captioned clips have vectors of {model.name}"
        return _Compared(model=model.name, notes=(f"{least}, too few to find suspects: run `raydist embed`",))
    return _Compared(doubts=found, model=model.name, notes=tuple(_of_vectors(there, found, model)))


def _why_not(location: str, error: RaydistError) -> str:
    if not models.stored(location):
        return "no vectors yet: `raydist embed` first, and captions that do not fit their clips are found too"
    return f"suspects were not looked for: {error} (here: `--set embed.model=NAME`, `--set embed.adapter=NAME`)"


def _of_vectors(there: Present, found: Doubts, model: Stored) -> list[str]:
    notes = []
    lacking = there.captions.num_rows - found.compared
    if lacking:
        notes.append(f"{lacking:,} captions are of clips without a vector of {model.name}: run `raydist embed`")
    if found.is_weak:
        notes.append(
            f"{model.name} tells these captions hardly from random ones (half of them fit {found.better:.0%} or more "
            "of random clips better than their own): most are of other clips, or the model does not know what they "
            "speak of. So no single ones are listed"
        )
    return notes


def _counts(there: Present, shared: Repeated, found: Doubts | None, cut: int) -> dict[str, int]:
    counts = {"captions": there.captions.num_rows, "clips": len(np.unique(there.clip_of))}
    if found is not None:
        counts |= {"suspects": len(found.suspects), "shifted_videos": len(found.moved)}
    return counts | {"repeated": shared.count} | ({"cut": cut} if cut else {})


def _said(there: Present, shared: Repeated, found: Doubts | None, cut: int) -> list[str]:
    """What a person should know."""
    notes = [moved_text(each) for each in found.moved[:5]] if found else []
    if found and len(found.moved) > 5:
        notes.append(f"and {len(found.moved) - 5:,} more videos whose captions fit other clips")
    if found and found.suspects:
        notes.append(f"{len(found.suspects):,} captions do not seem to be of their clips: first on the page")
    if shared.count:
        clips = len(np.unique(there.clip_of))
        notes.append(
            f"{shared.count:,} captions are of several clips ({shared.exact:,} letter for letter); {shared.clips:,} of "
            f"{clips:,} clips ({shared.clips / clips:.0%}) have none of their own alone"
        )
    if shared.videos:
        name, clips, caption = shared.videos[0]
        notes.append(
            f"{len(shared.videos):,} videos have one caption for all of their clips, such as {name} ({clips:,} clips): "
            f"{sheet.short(caption)!r}"
        )
    if cut:
        notes.append(f"{cut:,} captions were cut to fit the encoder")
    return notes


def moved_text(moved: Moved) -> str:
    """`captions of a.mp4 fit the clip one later (14 of 16)`."""
    count = {1: "one", 2: "two", 3: "three"}.get(abs(moved.step), str(abs(moved.step)))
    where = f"{count} {'later' if moved.step > 0 else 'earlier'}"
    return f"captions of {moved.video_id} fit the clip {where} ({moved.fit:,} of {moved.compared:,})"


def _lists(there: Present, shared: Repeated, found: Doubts | None, cut: list[int]) -> dict[str, Any]:
    lists: dict[str, Any] = {}
    if found is not None:
        lists["suspects"] = [_suspect(there, each) for each in found.suspects[:LISTED]]
        lists["shifted"] = [{**asdict(each), "says": moved_text(each)} for each in found.moved[:LISTED]]
    lists["repeated"] = [asdict(each) for each in shared.repeats]
    lists["one_caption"] = [
        {"video_id": name, "clips": clips, "caption": caption} for name, clips, caption in shared.videos[:LISTED]
    ]
    lists["cut"] = [_named(there, row) for row in cut[:LISTED]]
    return lists


def _named(there: Present, row: int) -> dict[str, Any]:
    caption = there.captions.slice(row, 1).to_pylist()[0]
    clip_id = there.clips["clip_id"][int(there.clip_of[row])].as_py()
    return {"clip_id": clip_id, **{name: caption[name] for name in ("number", "origin", "caption")}}


def _suspect(there: Present, each: Suspect) -> dict[str, Any]:
    named = _named(there, each.caption)
    named |= {"similarity": round(each.similarity, 4), "random_clips_that_fit_better": round(each.better, 4)}
    if each.other >= 0:
        other = there.clips["clip_id"][each.other].as_py()
        named |= {"fits": other, "similarity_there": round(each.other_similarity, 4)}
    return named


def _write(
    path: Path, config: Config, there: Present, shared: Repeated, found: Doubts | None, cut: list[int], sample: int
) -> None:
    captioned = np.unique(there.clip_of)
    drawn = np.sort(np.random.default_rng(_SEED).permutation(captioned)[:sample])
    sheet.write(
        path,
        config,
        there,
        sheet.Shown(
            doubts=found,
            moved=tuple(moved_text(each) for each in found.moved) if found else (),
            repeated=shared,
            cut=cut,
            sample=tuple(drawn.tolist()),
            most=sample,
        ),
    )
