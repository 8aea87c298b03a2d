"""tuning: the demo's second half: films in a look and words that `tiny` does not know, and an adapter that learns them.

Reads   nothing
Writes  into the demo's archive: the films under `demo/reels` and demo/reels.csv, their captions and splits, the run
        `reels` with its adapter, vectors of `tiny` with that adapter for every clip, two evaluations
Says    R@1 on films that nothing was trained on, before and after, and what the adapter finds
Again   what is there is kept, the adapter too
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raydist import caption, embed, eval, scan, train
from raydist.config import Config
from raydist.demo import films
from raydist.demo.films import Counts, Film
from raydist.demo.hits import Say, find, measure, tell
from raydist.models import adapters
from raydist.records import Report
from raydist.store.runs import run_folder

NAME = "reels"
"""Of the films' folder and root, of the run, and so of the adapter."""

RECIPE: Mapping[str, Any] = {"learning_rate": 2e-3, "epochs": 7}
"""What differs from the defaults of [train]; chosen on the films of `val`, as were the numbers of films."""


EXAMPLES: dict[str, dict[str, str]] = {
    "a golden space blossom": {"object": "star", "colour": "yellow"},
    "a deep moon hops": {"object": "ball", "motion": "bounce"},
    "a meadow skyline shape": {"object": "fish", "colour": "green"},
}
"""What a person of that house might type -> what a clip has to show for it."""


def run(config: Config, place: Path, counts: Counts, known: Sequence[Film], say: Say) -> dict[str, Any]:
    """Draw the films, measure, train, measure again, embed everything with the adapter and search it.

    Args:
        config: `embed.model` is `tiny`, without an adapter.
        place: the demo's folder in the archive.
        known: the films of the first half, to see what became of them.

    Returns:
        films, r1_before, r1_after, r1_gain (the interval), r1_chance, known_top1 (with the adapter, a share), adapter,
        report (paths). R@1 is text to video on films to test with, in percent.
    """
    chosen = bring(config, place, counts, say)
    found = eval.run(config).details
    r1, chance = (found[name]["text_to_video"]["r1"] for name in ("base", "chance"))
    say(f"eval: on {found['clips']} of them to test with, R@1 of tiny is {r1:.1f} % (chance {chance:.1f} %)")
    adapter = fit(config, say)
    config = config.model_copy(update={"embed": config.embed.model_copy(update={"adapter": NAME})})
    measured = eval.run(config)
    outcome = figures(measured)
    low, high = outcome["r1_gain"]
    say(
        f"eval: R@1 {outcome['r1_before']:.1f} % -> {outcome['r1_after']:.1f} % with the adapter: "
        f"a gain of {low:.1f} to {high:.1f} points (95 %)"
    )
    report = embed.run(config)
    say(f"embed: {report.counts.get('rows', 0)} new vectors of tiny+{NAME} ({report.seconds:.0f} s)")
    films_of = {NAME: chosen, "demo": known}
    hits = find(config, list(EXAMPLES), films_of)
    for query, wanted in EXAMPLES.items():
        tell(say, query, wanted, hits[query])
    kept = measure(known, find(config, [film.caption for film in known], {"demo": known}))
    say(f"kept: the clips from before, searched with the adapter: top-1 {kept.top1:.1%}, top-5 {kept.top5:.1%}")
    page = run_folder(config.require_archive(), measured.run) / "report.html"
    return {**outcome, "known_top1": kept.top1, "adapter": adapter, "report": str(page)}


def figures(report: Report) -> dict[str, Any]:
    """What `run` returns of an evaluation."""
    found = report.details
    return {
        "films": found["clips"],
        "r1_before": found["base"]["text_to_video"]["r1"],
        "r1_after": found["adapter"]["text_to_video"]["r1"],
        "r1_gain": found["difference"]["text_to_video"]["interval"]["r1"],
        "r1_chance": found["chance"]["text_to_video"]["r1"],
    }


def bring(config: Config, place: Path, counts: Counts, say: Say, seed: int = films.DOMAIN_SEED) -> list[Film]:
    """Draw the films and put them into the archive, with their splits and captions."""
    began = time.monotonic()
    chosen = films.choose_domain(place / NAME, counts, seed)
    listed = place / f"{NAME}.csv"
    drawn = films.draw(chosen)
    films.write_captions(chosen, listed)
    say(
        f"draw: {drawn} new films, faded and in the words of their house, such as {chosen[0].caption!r}; "
        f"{counts.plain} of them plain, to keep what is known ({time.monotonic() - began:.0f} s)"
    )
    report = scan.run(config, scan.Request(inputs=(str(place / NAME),), as_name=NAME, splits=str(listed)))
    say(f"scan: {report.counts.get('clips', 0)} new clips, their splits told ({report.seconds:.0f} s)")
    report = caption.run(config, caption.Request(file=str(listed)))
    say(f"caption: {report.counts.get('added', 0)} captions of {listed.name} ({report.seconds:.0f} s)")
    return chosen


def fit(config: Config, say: Say, recipe: Mapping[str, Any] = RECIPE) -> str:
    """Train the adapter where it is not there yet, and return its folder."""
    location = config.require_archive()
    folder = run_folder(location, NAME) / adapters.FOLDER
    if folder.is_dir():
        say(f"train: the adapter {NAME!r} is there")
        return str(folder)
    settings = config.train.model_copy(update=recipe)
    report = train.run(config.model_copy(update={"train": settings}), train.Request(run=NAME))
    counts = report.counts
    say(
        f"train: LoRA, {counts['steps']} steps on {counts['clips']} clips, {counts['epochs']} epochs "
        f"({report.seconds:.0f} s)"
    )
    return str(folder)
