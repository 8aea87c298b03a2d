"""bench domain: does LoRA teach `tiny` the demo's domain, and what does it cost? Through the real stages.

    python tests/benchmarks/domain.py --out FOLDER                       # five seeds, measured on test
    python tests/benchmarks/domain.py --out FOLDER --seeds 0 --split val --learning-rate 1e-3    # to choose by

Each seed draws other films, deals them in another order and begins with another adapter. `new` is the split of the
domain, `old` clips of the demo's first half: those it measures itself with, or, with `--split val`, other ones of
combinations that `tiny` never saw. A JSON line a seed, then the verdicts over all.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from conditions import commit, cpu_name

from raydist import caption, eval, runtime, scan
from raydist.config import Config, load
from raydist.demo import films, tuning
from raydist.demo.films import Counts
from raydist.progress import talk
from raydist.store.runs import run_folder

OLD = 240
VAL = 300
"""Films of val to choose settings by: more than the demo watches its training with."""


def measured(config: Config, split: str, adapter: str) -> dict[str, Any]:
    """Base against adapter on a split of an archive."""
    changed = {
        "embed": config.embed.model_copy(update={"adapter": adapter}),
        "eval": config.eval.model_copy(update={"split": split}),
    }
    found = eval.run(config.model_copy(update=changed)).details
    ways = {role: found[role]["text_to_video"] for role in ("base", "adapter")}
    difference = found["difference"]["text_to_video"]
    return {
        "clips": found["clips"],
        "base": ways["base"]["r1"],
        "adapter": ways["adapter"]["r1"],
        "r5": [ways["base"]["r5"], ways["adapter"]["r5"]],
        "difference": difference["interval"]["r1"],
        "chance": found["chance"]["text_to_video"]["r1"],
    }


def known(out: Path, split: str) -> Config:
    """An archive of clips that `tiny` knows the kind of, and was not trained on."""
    config = configured(out / f"old-{split}")
    place = out / f"old-{split}" / "demo"
    first, past = (OLD, 2 * OLD) if split == "val" else (0, OLD)
    chosen = [replace(film, split="test") for film in films.choose(place / "videos", past)[first:]]
    films.draw(chosen)
    films.write_captions(chosen, place / "captions.csv")
    told = str(place / "captions.csv")
    scan.run(config, scan.Request(inputs=(str(place / "videos"),), as_name="demo", splits=told))
    caption.run(config, caption.Request(file=told))
    return config


def configured(archive: Path) -> Config:
    """Settings of an archive for `tiny`."""
    return load(options={"archive": str(archive)}, changes=("embed.model=tiny",), environment={}).config


def seeds(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A result for each seed."""
    old = known(options.out, options.split)
    counts = Counts(train=options.train, plain=options.plain)
    if options.split == "val":
        counts = replace(counts, val=VAL, test=1)
    recipe = {**tuning.RECIPE, "learning_rate": options.learning_rate, "epochs": options.epochs}
    for seed in options.seeds:
        name = f"seed{seed}-{options.split}-{counts.train}-{counts.plain}-{options.learning_rate}-{options.epochs}"
        config = configured(options.out / name)
        config = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
        place = options.out / name / "demo"
        place.mkdir(parents=True, exist_ok=True)
        tuning.bring(config, place, counts, talk.print, seed=1000 + seed)
        folder = tuning.fit(config, talk.print, recipe)
        report = json.loads((run_folder(str(options.out / name), tuning.NAME) / "report.json").read_text("utf-8"))
        yield {
            "seed": seed,
            "train_s": report["seconds"],
            "new": measured(config, options.split, folder),
            "old": measured(old, "test", folder),
            "counts": asdict(counts),
        }


def verdict(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all seeds: the worst of each, for what is promised holds for every one."""
    return {
        "base_over_chance": round(min(each["new"]["base"] / each["new"]["chance"] for each in found), 2),
        "after_over_before": round(min(each["new"]["adapter"] / each["new"]["base"] for each in found), 2),
        "lowest_gain": min(each["new"]["difference"][0] for each in found),
        "old_lost": round(max(1 - each["old"]["adapter"] / each["old"]["base"] for each in found), 3),
        "old_lost_mean": round(statistics.mean(1 - each["old"]["adapter"] / each["old"]["base"] for each in found), 3),
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for archives; what is there is kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--train", type=int, default=Counts().train)
    parser.add_argument("--plain", type=int, default=Counts().plain)
    parser.add_argument("--learning-rate", type=float, default=tuning.RECIPE["learning_rate"])
    parser.add_argument("--epochs", type=int, default=tuning.RECIPE["epochs"])
    options = parser.parse_args()
    found = []
    with runtime.session(configured(options.out / "any").ray):
        for result in seeds(options):
            found.append(result)
            talk.print(json.dumps(result))
    for result in found:  # here: while Ray runs, stdout is where its workers' talk would go
        print(json.dumps(result))
    print(json.dumps({"bench": "domain", **verdict(found), "cpu": cpu_name(), "commit": commit()}))


if __name__ == "__main__":
    main()
