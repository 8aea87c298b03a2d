"""bench folds: does fine-tuning help on a folder of captioned files? Cross-validation by video, with the CLI alone.

    python tests/benchmarks/folds.py ../shared/realvideo --model tiny --set train.learning_rate=1e-3

Reads   FOLDER/manifest.csv (columns `file`, `caption`, and `near_duplicate_group`, whose members share a fold) and the
        files below FOLDER/files
Runs    scan, caption; then for each fold scan --splits, train, eval; at last embed --adapter and search --adapter
Prints  one JSON line a fold, base and adapter with their intervals on the fold's test clips, and one of their means
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from conditions import commit, cpu_name

SPLITS = ("test", "val")
"""Fold k is tested, fold k + 1 chooses the step, the others are trained on."""


def raydist(archive: Path, *words: str) -> list[dict[str, Any]]:
    """Run a command; what it printed as JSON."""
    command = [sys.executable, "-c", "from raydist.cli import main; main()", *words, "--archive", str(archive)]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"raydist {' '.join(words)} ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def folds(rows: list[dict[str, str]], count: int) -> dict[str, int]:
    """File -> its fold; near-duplicates share one."""
    found: dict[str, int] = {}
    of_group: dict[str, int] = {}
    for row in rows:
        group = row.get("near_duplicate_group") or row["file"]
        found[row["file"]] = of_group.setdefault(group, len(of_group) % count)
    return found


def write_splits(file: Path, fold_of: dict[str, int], fold: int, count: int) -> None:
    """The list that `scan --splits` takes."""
    held = {(fold + place) % count: split for place, split in enumerate(SPLITS)}
    with file.open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(["path", "split"])
        table.writerows((Path(name).name, held.get(own, "train")) for name, own in fold_of.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    asked = parser.parse_args()
    with (asked.folder / "manifest.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["caption"]]
    changes = [word for change in asked.changes for word in ("--set", change)]
    with tempfile.TemporaryDirectory() as place:
        outcome = validate(Path(place), asked.folder, rows, asked.model, asked.folds, changes)
    means = {
        side: {way: _means(outcome, side, way) for way in ("text_to_video", "video_to_text")}
        for side in ("base", "adapter")
    }
    conditions = {"cpu": cpu_name(), "commit": commit()}
    print(json.dumps({"bench": "folds", "model": asked.model, "clips": len(rows), "means": means, **conditions}))


def _means(outcome: list[dict[str, Any]], side: str, way: str) -> dict[str, float]:
    return {
        figure: round(sum(one[side][way][figure] for one in outcome) / len(outcome), 2)
        for figure in ("r1", "r5", "r10", "median_rank")
    }


def validate(
    place: Path, source: Path, rows: list[dict[str, str]], model: str, count: int, changes: list[str]
) -> list[dict[str, Any]]:
    """All folds on one archive; the figures of `eval` for each."""
    videos, archive = place / "files", place / "archive"
    videos.mkdir()
    for row in rows:
        shutil.copy(source / "files" / Path(row["file"]).name, videos)
    raydist(archive, "scan", str(videos))
    raydist(archive, "caption", "--from", str(source / "manifest.csv"))
    fold_of = folds(rows, count)
    outcome = []
    for fold in range(count):
        write_splits(place / f"{fold}.csv", fold_of, fold, count)
        raydist(archive, "scan", "--splits", str(place / f"{fold}.csv"))
        raydist(archive, "train", "--model", model, "--run", f"fold{fold}", *changes)
        (figures,) = raydist(archive, "eval", "--model", model, "--adapter", f"fold{fold}")
        outcome.append(figures)
        print(json.dumps({"fold": fold, **figures}), flush=True)
    raydist(archive, "embed", "--model", model, "--adapter", "fold0")
    for words in ("a man is surfing", "a rabbit is eating a watermelon"):
        hits = raydist(archive, "search", words, "--adapter", "fold0", "--top", "3")
        print(json.dumps({"search": words, "hits": [(hit["clip_id"], hit["caption"]) for hit in hits]}), flush=True)
    return outcome


if __name__ == "__main__":
    main()
