"""bench copies: which copies of videos are found after re-encoding, crops, trims and the like, and what else is taken
for one. Answers: can `copy` be trusted, and its offset?

    python tests/benchmarks/copies.py --work FOLDER [--families 20] [--threshold 0.95] [--half figures|thresholds]

The corpus is that of `copies_corpus.py`. It goes through scan, embed (the model `tiny`) and dedup, as people use them;
what is asked of the pairs that are stored:

positive    two clips that share 5 s or more. Whether such a pair is found at all counts: candidates by vectors, by
            signatures and beside other pairs are part of the question
correct     a `copy` whose clips share something, and whose line is at most a second from the true one
look-alike  two clips that show takes of the same scenes for 5 s or more and share nothing: of two siblings, or of one
            video before a camera that stands still. None is a copy

Thresholds were set on one half of the families (`--half thresholds`), figures are those of the other, of which nothing
that is drawn is in the first. Needs the real videos beside the checkout (shared/realvideo). Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from conditions import commit, cpu_name
from copies_corpus import KINDS, Stretch, Video, make

from raydist import dedup, embed, scan
from raydist.config import Config, load
from raydist.dedup import statements
from raydist.store import read, schema

ENOUGH_S = 5.0
"""Seconds that two clips must share to be missed."""
ALIKE_S = 5.0
"""Seconds of the same scenes that make two clips look alike."""
NEAR_S = 1.0
"""Seconds that a correct line may be off."""


@dataclass(frozen=True)
class Clip:
    """A clip of the corpus."""

    clip_id: str
    video: Video
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Shared:
    """What two clips have in common: of each a line from the file's time to that of the original, and how much."""

    seconds: float
    a_from_s: float
    b_from_s: float
    slope: float
    """Seconds of b a second of a."""

    def b_at(self, a_s: float) -> float:
        return self.b_from_s + self.slope * (a_s - self.a_from_s)


def shared(a: Clip, b: Clip) -> Shared | None:
    """What the truth says of two clips; None where they have nothing in common."""
    for one in a.video.stretches:
        for other in b.video.stretches:
            if one.original == other.original:
                start = max(_original(one, a.start_s), _original(other, b.start_s))
                end = min(_original(one, a.end_s), _original(other, b.end_s))
                if end - start > 1e-6:
                    a_s, b_s = _file(one, start), _file(other, start)
                    return Shared((end - start) / one.speed, a_s, b_s, one.speed / other.speed)
    return None


def _original(stretch: Stretch, file_s: float) -> float:
    inside = min(max(file_s - stretch.file_s, 0.0), stretch.seconds)
    return stretch.from_s + stretch.speed * inside


def _file(stretch: Stretch, original_s: float) -> float:
    return stretch.file_s + (original_s - stretch.from_s) / stretch.speed


def kind_of(a: Clip, b: Clip) -> str:
    """The change that lies between two clips."""
    kinds = {a.video.kind, b.video.kind} - {"original"}
    return kinds.pop() if len(kinds) == 1 and "original" in (a.video.kind, b.video.kind) else "two changes"


def look_alikes(clips: Sequence[Clip], scenes: dict[str, Scenes]) -> Iterator[tuple[Clip, Clip]]:
    """Pairs of clips that show the same scenes for `ALIKE_S` or more, and share nothing.

    Args:
        clips: of one family.
        scenes: of each original.
    """
    for a, b in combinations(clips, 2):
        if shared(a, b) is None and _same_scenes(_shown(a, scenes), _shown(b, scenes)) >= ALIKE_S:
            yield a, b


Scenes = list[tuple[float, float, str]]


def _shown(clip: Clip, scenes: dict[str, Scenes]) -> dict[str, float]:
    """Scene -> seconds of it in a clip."""
    found: dict[str, float] = defaultdict(float)
    for stretch in clip.video.stretches:
        start, end = _original(stretch, clip.start_s), _original(stretch, clip.end_s)
        for since, until, scene in scenes[stretch.original]:
            found[scene] += max(0.0, min(until, end) - max(since, start))
    return found


def _same_scenes(ones: dict[str, float], others: dict[str, float]) -> float:
    return sum(min(seconds, others.get(scene, 0.0)) for scene, seconds in ones.items())


def clips_of(archive: Path, videos: Sequence[Video]) -> dict[str, Clip]:
    """The clips that a scan made."""
    by_name = {video.name: video for video in videos}
    found = {}
    for batch in read.scan_batches(str(archive), "clips", ["clip_id", "video_id", "start_s", "end_s"]):
        for row in batch.to_pylist():
            video = by_name[row["video_id"].rpartition("/")[2]]
            found[row["clip_id"]] = Clip(row["clip_id"], video, row["start_s"], row["end_s"])
    return found


def judged(rows: Sequence[dict[str, Any]], clips: dict[str, Clip]) -> dict[str, Any]:
    """Recall, precision and offsets of the pairs among some clips."""
    copies = {(row["a_id"], row["b_id"]): row for row in rows if row["kind"] == "copy"}
    counts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    listed = sorted(clips.values(), key=lambda clip: clip.clip_id)
    by_family: dict[int, list[Clip]] = defaultdict(list)
    for clip in listed:
        by_family[clip.video.family].append(clip)
    for family in by_family.values():
        for a, b in combinations(family, 2):
            truth = shared(a, b)
            if truth is not None and truth.seconds >= ENOUGH_S:
                counts[kind_of(a, b)]["found"].append(float((a.clip_id, b.clip_id) in copies))
    wrong = []
    for (one, other), row in copies.items():
        if one not in clips or other not in clips:
            continue
        a, b = clips[one], clips[other]
        truth = shared(a, b)
        off = abs(truth.b_at(row["a_from_s"]) - row["b_from_s"]) if truth else None
        is_right = off is not None and off <= NEAR_S
        counts[kind_of(a, b)]["right"].append(float(is_right))
        if not is_right:
            wrong.append({"a": one, "b": other, "off_s": off, "confidence": row["confidence"], "by": row["found_by"]})
        if truth is not None and truth.seconds >= ENOUGH_S and off is not None:
            counts[kind_of(a, b)]["offset_s"].append(off)
            counts[kind_of(a, b)]["start_s"].append(abs(row["a_from_s"] - truth.a_from_s))
    scenes = {clip.video.name.partition(".")[0]: clip.video.scenes for clip in listed if clip.video.kind == "original"}
    alike = [(a, b) for family in by_family.values() for a, b in look_alikes(family, scenes)]
    among = [(a, b) for a, b in alike if a.video.kind == b.video.kind == "original"]
    kinds = {kind: _figures([counts[kind]]) for kind in (*KINDS, "two changes") if kind in counts}
    trims = [kind for kind in counts if kind.startswith("trim")]
    return {
        "kinds": kinds,
        "without trims": _figures([counts[kind] for kind in counts if kind not in trims and kind != "two changes"]),
        "trims": _figures([counts[kind] for kind in trims]),
        "all": _figures(list(counts.values())),
        "look-alike pairs": len(alike),
        "of them taken for copies": sum((a.clip_id, b.clip_id) in copies for a, b in alike),
        "look-alike pairs among originals": len(among),
        "of those taken for copies": sum((a.clip_id, b.clip_id) in copies for a, b in among),
        "wrong": wrong[:40],
    }


def _figures(counts: Sequence[dict[str, list[float]]]) -> dict[str, float]:
    merged = {
        name: [value for count in counts for value in count[name]] for name in ("found", "right", "offset_s", "start_s")
    }
    offsets = merged["offset_s"]
    return {
        "pairs": len(merged["found"]),
        "recall": round(float(np.mean(merged["found"] or [np.nan])), 4),
        "precision": round(float(np.mean(merged["right"] or [np.nan])), 4),
        "offset_median_s": round(float(np.median(offsets or [np.nan])), 3),
        "offset_within_half_s": round(float(np.mean(np.array(offsets) <= 0.5)) if offsets else float("nan"), 4),
        "offset_worst_s": round(max(offsets, default=float("nan")), 3),
        "start_within_half_s": round(
            float(np.mean(np.array(merged["start_s"]) <= 0.5)) if merged["start_s"] else float("nan"), 4
        ),
    }


def statements_judged(rows: Sequence[dict[str, Any]], videos: Sequence[Video]) -> dict[str, Any]:
    """How much of what each copy shares with its original one statement says."""
    named = {video.name: video for video in videos}
    import pyarrow as pa

    told = statements.overlaps(pa.Table.from_pylist(list(rows), schema.PAIRS)).to_pylist()
    best: dict[str, float] = {video.name: 0.0 for video in videos if video.kind != "original"}
    for row in told:
        a, b = (named[row[f"{side}_video"].rpartition("/")[2]] for side in "ab")
        for copy, other, side in ((a, b, "a"), (b, a, "b")):
            if copy.name in best and other.kind == "original" and other.name == f"{copy.stretches[0].original}.mp4":
                seconds = row[f"{side}_to_s"] - row[f"{side}_from_s"]
                best[copy.name] = max(best[copy.name], seconds / copy.stretches[0].seconds)
    shares = list(best.values())
    return {"copies": len(shares), "whole_in_one_statement": round(float(np.mean(np.array(shares) >= 0.9)), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the corpus and the archive; they are kept")
    parser.add_argument("--families", type=int, default=20, help="of each half: two originals each, and their copies")
    parser.add_argument("--threshold", type=float, default=0.97, help="of the model `tiny`, which finds much alike")
    parser.add_argument("--half", choices=["figures", "thresholds"], default="figures")
    parser.add_argument("--real", type=Path, default=Path(__file__).parents[3] / "shared" / "realvideo")
    given = parser.parse_args()
    given.work = given.work / given.half
    first = given.families if given.half == "figures" else 0
    videos = make(given.work, given.real, given.families, first)
    archive = given.work / "archive"
    options = {"archive": str(archive), "embed.model": "tiny"}
    config: Config = load(changes=(f"dedup.threshold={given.threshold}",), options=options, environment={}).config
    seconds = {}
    for name, stage in (("scan", _scan), ("embed", lambda c, _: embed.run(c)), ("dedup", lambda c, _: dedup.run(c))):
        began = time.monotonic()
        stage(config, given.work)
        seconds[name] = round(time.monotonic() - began, 1)
    (model_key,) = read.model_keys(str(archive))
    rows = [row for batch in read.scan_batches(str(archive), f"duplicates_{model_key}") for row in batch.to_pylist()]
    clips = clips_of(archive, videos)
    found = judged(rows, clips)
    wrong = found.pop("wrong")
    result = {
        "bench": "copies",
        "half": given.half,
        "videos": len(videos),
        "minutes": round(sum(video.seconds for video in videos) / 60, 1),
        "clips": len(clips),
        "threshold": given.threshold,
        "seconds": seconds,
        **found,
        "statements": statements_judged(rows, videos),
        "cpu": cpu_name(),
        "commit": commit(),
    }
    print(json.dumps(result, indent=1))
    print(json.dumps(wrong, indent=1), file=sys.stderr)


def _scan(config: Config, work: Path) -> None:
    scan.run(config, scan.Request(inputs=(str(work / "videos"),)))


if __name__ == "__main__":
    main()
