"""bench moments: do moments begin and end where scenes do? Answers: which factor should `search.moments.SHARE` be?

    python tests/benchmarks/moments.py --work FOLDER

Draws 16 films of ten scenes of 6 s, three takes of 2 s each, of combinations that `tiny` never saw; cuts them into
clips of 2 s; searches for each scene by its caption. Of the first hits that touch the right scene: overlap over union
with it, and how many are exactly it. Prints one JSON line a factor. What is in the folder is used again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from raydist import embed, scan, search  # noqa: E402
from raydist.config import Config, load  # noqa: E402
from raydist.demo import clip  # noqa: E402
from raydist.demo.words import Combination, caption, held_out_combinations  # noqa: E402
from raydist.search import Query, moments  # noqa: E402

FILMS, SCENES, TAKES, TAKE_S = 16, 10, 3, 2
SCENE_S = TAKES * TAKE_S


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--shares", default="0.3,0.5,0.6,0.7,0.75,0.8,0.85,0.9")
    given = parser.parse_args()
    every = held_out_combinations()
    order = np.random.default_rng(5).permutation(len(every))[: FILMS * SCENES]
    scenes = [every[int(place)] for place in order]
    config = _archive(given.work, scenes)
    for share in map(float, given.shares.split(",")):
        moments.SHARE = share
        print(json.dumps({"bench": "moments", "share": share, **_measured(config, scenes)}))


def _archive(work: Path, scenes: list[Combination]) -> Config:
    (work / "v").mkdir(parents=True, exist_ok=True)
    for film in range(FILMS):
        file = work / "v" / f"{film:02}.mp4"
        if not file.exists():
            own = scenes[film * SCENES : (film + 1) * SCENES]
            takes = [clip.prepare(scene, take) for scene in own for take in range(TAKES)]
            clip.encode([take.draw(number) for take in takes for number in range(TAKE_S * clip.FPS)], file)
    changes = (f"scan.clip_seconds={TAKE_S}", "scan.min_clip_seconds=1", "search.top=1")
    options = {"archive": str(work / "archive"), "embed.model": "tiny"}
    config = load(changes=changes, options=options, environment={}).config
    scan.run(config, scan.Request(inputs=(str(work / "v"),)))
    embed.run(config)
    return config


def _measured(config: Config, scenes: list[Combination]) -> dict[str, float]:
    hits = search.run(config, [Query(words=caption(scene)) for scene in scenes]).to_pylist()
    overlaps, lengths = [], []
    for place, hit in enumerate(hits):
        start, end = (place % SCENES) * SCENE_S, (place % SCENES + 1) * SCENE_S
        lengths.append(hit["end_s"] - hit["start_s"])
        shared = min(end, hit["end_s"]) - max(start, hit["start_s"])
        if hit["video_id"] == f"v/{place // SCENES:02}.mp4" and shared > 0:
            overlaps.append(shared / (max(end, hit["end_s"]) - min(start, hit["start_s"])))
    return {
        "first hits in the right scene": len(overlaps),
        "of": len(scenes),
        "overlap over union": round(float(np.mean(overlaps)), 3),
        "exact %": round(100 * float(np.mean(np.array(overlaps) > 0.99)), 1),
        "longest s": round(max(lengths), 1),
    }


if __name__ == "__main__":
    main()
