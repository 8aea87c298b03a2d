"""loop: the whole way from videos to hits on generated clips, through the same calls as everybody's.

Reads   nothing
Writes  into the archive's folder: the archive, and under `demo/` the videos, captions.csv and sheet.html
Says    each step, example queries with their hits, the accuracy on combinations the model never saw, what to try next
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raydist import embed, runtime, scan
from raydist.clips.decode import decode_clip
from raydist.config import Config
from raydist.demo import films, tuning
from raydist.demo.films import Counts, Film
from raydist.demo.hits import TOP, Accuracy, Found, Say, find, measure, rank_of, shows, tell
from raydist.errors import UsageError
from raydist.models.registry import describe
from raydist.sheets import Hit, Row, contact_sheet
from raydist.store import models

MODEL = "tiny"
SHEET_CAPTIONS = 12
"""Captions on the sheet beside the example queries: the first ones, good or bad."""

EXAMPLES: dict[str, dict[str, str]] = {
    "a red star": {"object": "star", "colour": "red"},
    "something yellow bouncing": {"colour": "yellow", "motion": "bounce"},
    "fish under water": {"object": "fish", "scene": "underwater"},
    "a yellow shape over the city at night": {"colour": "yellow", "scene": "city"},
    "heart getting bigger": {"object": "heart", "motion": "grow"},
    "flying in circles at sunset": {"motion": "circle", "scene": "sunset"},
    "snow": {"scene": "snow"},
}
"""What a person might type -> what a clip has to show for it."""


def run(config: Config, *, clips: int, say: Say) -> dict[str, Any]:
    """Draw clips, scan, embed and search them; teach the model others; leave everything behind.

    Args:
        config: `archive` is where; the model is always `tiny`.
        clips: how many videos; the films of the second half are in proportion.
        say: called with each line for the person who looks on.

    Returns:
        archive, videos, sheet (paths), clips, top1, top5, chance1, chance5 (shares), what `tuning.run` found, seconds.

    Raises:
        UsageError: a number of clips that cannot be had, or an archive that is not the demo's own.
    """
    began = time.monotonic()
    home = Path(config.require_archive())
    place = home / "demo"
    _refuse_other_archives(home, place)
    config = config.model_copy(update={"embed": config.embed.model_copy(update={"model": MODEL, "adapter": ""})})
    chosen = films.choose(place / "videos", clips)
    # Ray starts once and not for each stage.
    with runtime.session(config.ray):
        accuracy, sheet = _first_half(config, place, chosen, say)
        tuned = tuning.run(config, place, Counts.for_clips(clips), chosen, say)
    for line in [f"look:  {_near(sheet)} in a browser", *_next(home, Path(tuned["report"]))]:
        say(line)
    return {
        "archive": str(home),
        "videos": str(place / "videos"),
        "sheet": str(sheet),
        "clips": clips,
        "top1": accuracy.top1,
        "top5": accuracy.top5,
        "chance1": 1 / clips,
        "chance5": min(1.0, TOP / clips),
        **tuned,
        "seconds": round(time.monotonic() - began, 1),
    }


def _first_half(config: Config, place: Path, chosen: list[Film], say: Say) -> tuple[Accuracy, Path]:
    """What the model can do as it is, and the sheet of its hits."""
    began, clips = time.monotonic(), len(chosen)
    drawn = films.draw(chosen)
    films.write_captions(chosen, place / "captions.csv")
    say(f"draw: {drawn} new videos of 2 to 3 s, H.264, in {_near(place / 'videos')} ({time.monotonic() - began:.0f} s)")
    report = scan.run(config, scan.Request(inputs=(str(place / "videos"),), as_name="demo"))
    say(f"scan: {report.counts.get('clips', 0)} new clips ({report.seconds:.0f} s)")
    report = embed.run(config)
    say(f"embed: {report.counts.get('rows', 0)} new vectors of {MODEL} ({report.seconds:.0f} s)")
    examples = [query for query, wanted in EXAMPLES.items() if any(shows(film.shown, wanted) for film in chosen)]
    found = find(config, [*examples, *(film.caption for film in chosen)], {"demo": chosen})
    for query in examples:
        tell(say, query, EXAMPLES[query], found[query])
    accuracy = measure(chosen, found)
    say(
        f"accuracy on {clips} clips of combinations that the model never saw: "
        f"top-1 {accuracy.top1:.1%} (chance {1 / clips:.1%}), "
        f"top-5 {accuracy.top5:.1%} (chance {min(1.0, TOP / clips):.1%})"
    )
    sheet = place / "sheet.html"
    sheet.write_text(_sheet(chosen, examples, found, accuracy), encoding="utf-8")
    return accuracy, sheet


def _sheet(
    chosen: Sequence[Film], examples: Sequence[str], found: Mapping[str, Sequence[Found]], accuracy: Accuracy
) -> str:
    rows = []
    for query in examples:
        hits, wanted = found[query], EXAMPLES[query]
        fitting = sum(shows(film.shown, wanted) for film in chosen)
        note = f"{fitting} clips show this" if fitting != 1 else "1 clip shows this"
        rows.append(Row(query=query, note=note, hits=[_hit(hit, shows(hit.film.shown, wanted)) for hit in hits]))
    for film in chosen[:SHEET_CAPTIONS]:
        hits, rank = found[film.caption], rank_of(film, found[film.caption])
        note = f"its clip is hit {rank}" if rank else f"its clip is not among the first {TOP}"
        rows.append(Row(query=film.caption, note=note, hits=[_hit(hit, hit.film == film) for hit in hits]))
    return contact_sheet(
        "raydist demo",
        rows,
        lead=(
            "Words in, moments out: hits of the bundled tiny model on generated clips. First what a person might type, "
            f"then the captions of the first {min(SHEET_CAPTIONS, len(chosen))} clips, as they come. No combination of "
            "object, colour, motion and scene was in its training. Point at a clip to play it."
        ),
        facts=(
            (f"{accuracy.clips}", "unseen clips"),
            (f"{accuracy.top1:.1%}", f"right clip first (chance {1 / accuracy.clips:.1%})"),
            (f"{accuracy.top5:.1%}", f"right clip in the first {TOP} (chance {min(1.0, TOP / accuracy.clips):.1%})"),
        ),
    )


def _hit(found: Found, right: bool) -> Hit:
    return Hit(
        clip_id=found.clip_id,
        score=found.score,
        start_s=found.start_s,
        end_s=found.end_s,
        frames=decode_clip(found.film.file, found.start_s, found.end_s, frames=8, size=None),
        caption=found.film.caption,
        right=right,
        path=str(found.film.file),
    )


def _refuse_other_archives(home: Path, place: Path) -> None:
    if home.exists() and any(home.iterdir()) and not place.is_dir():
        raise UsageError(
            f"{str(home)!r} is not empty and no demo's: expected a new folder, such as `--archive demo-archive`"
        )
    key = describe(MODEL).model_key
    if any(model.name == MODEL and model.model_key != key for model in models.stored(str(home))):
        raise UsageError(
            f"{str(home)!r} was left by another version of the demo, whose `{MODEL}` had other weights: "
            "delete that folder, or name another one with --archive"
        )


def _near(path: Path) -> str:
    """The path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _next(home: Path, report: Path) -> list[str]:
    archive = _near(home)
    raydist = "raydist" if shutil.which("raydist") else _near(Path(sys.executable).parent / "raydist")
    return [
        f"       {_near(report)}: what got better with the adapter, and what worse",
        f"       tensorboard --logdir {archive}/runs/{tuning.NAME}",
        f'next:  {raydist} search --archive {archive} --model {MODEL} "a purple ring rising over the sea"',
        f'       {raydist} search --archive {archive} --adapter {tuning.NAME} "a violet skyline donut climbs"',
        f"       {raydist} status --archive {archive}",
        f"yours: {raydist} scan --archive my-archive ~/Videos",
        f"       {raydist} embed --archive my-archive --model viclip-b16",
        f'       {raydist} search --archive my-archive "a dog jumps into the water"',
        f"       {raydist} caption --archive my-archive --from captions.csv, then train, eval, embed --adapter",
    ]
