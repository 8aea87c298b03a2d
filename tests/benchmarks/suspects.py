"""bench suspects: which captions the review doubts, of right ones and of wrong ones. Answers: how far to trust it?

    python tests/benchmarks/suspects.py

Draws films of the demo that `tiny` has not seen and deals them to videos of 4, 8 and 16 clips, as they come or so that
those of a video are alike: of one colour and scene. Texts are made vaguer by noise, as if the model knew less of what
they speak of. Wrong captions are those of another video's clip, for one clip of ten; a moved video has each caption one
clip too early. Prints a JSON line for each noise and kind of videos.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from raydist.caption import repeated, suspects  # noqa: E402
from raydist.caption.present import Present  # noqa: E402
from raydist.clips.resize import resize_frames  # noqa: E402
from raydist.demo import clip as film  # noqa: E402
from raydist.demo.words import Combination, caption, held_out_combinations  # noqa: E402
from raydist.models.encoder import Encoder  # noqa: E402
from raydist.models.registry import load_encoder  # noqa: E402

NOISES = (0.0, 1.5, 3.0)
CLIPS = (4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=480, help="films to draw, a multiple of 16")
    count = parser.parse_args().clips
    encoder = load_encoder("tiny", device="cpu")
    every = held_out_combinations()
    shown = [every[place] for place in np.random.default_rng(0).permutation(len(every))[:count].tolist()]
    vectors = _embedded(encoder, shown)
    texts = encoder.encode_text([caption(each) for each in shown])
    alike = sorted(range(count), key=lambda place: (shown[place].scene, shown[place].colour))
    for noise in NOISES:
        for kind, order in (("mixed", list(range(count))), ("alike", alike)):
            figures = [_of_videos(clips, order, shown, vectors, _vague(texts, noise)) for clips in CLIPS]
            sums = {name: [each[name] for each in figures] for name in figures[0]}
            print(
                json.dumps({"bench": "suspects", "films": count, "noise": noise, "videos": kind, "of": CLIPS, **sums})
            )


def _embedded(encoder: Encoder, shown: Sequence[Combination]) -> NDArray[np.float32]:
    info, parts = encoder.info, []
    for start in range(0, len(shown), 32):
        frames = []
        for each in shown[start : start + 32]:
            drawing = film.prepare(each, 7)
            pictures = [np.asarray(drawing.draw(round(place))) for place in np.linspace(1, 22, info.frames)]
            frames.append(resize_frames(np.stack(pictures), info.size_px, info.resize))
        parts.append(encoder.encode_frames(np.stack(frames)))
    return np.concatenate(parts)


def _vague(texts: NDArray[np.float32], noise: float) -> NDArray[np.float32]:
    vague = texts + noise * np.random.default_rng(1).normal(size=texts.shape) / np.sqrt(texts.shape[1])
    unit: NDArray[np.float32] = (vague / np.linalg.norm(vague, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _of_videos(
    clips: int,
    order: Sequence[int],
    shown: Sequence[Combination],
    vectors: NDArray[np.float32],
    texts: NDArray[np.float32],
) -> dict[str, Any]:
    """Figures of an archive with right captions, one with some wrong ones, and one with moved videos."""
    words = [caption(shown[place]) for place in order]
    ids = [f"{place // clips:04}.mp4#t={place % clips},{place % clips + 1}" for place in range(len(order))]
    place_of = dict(zip(words, order, strict=True))

    def encode(given: Sequence[str]) -> NDArray[np.float32]:
        return texts[[place_of[text] for text in given]]

    def doubts(told: Sequence[str]) -> suspects.Doubts:
        there = _archive(ids, told)
        rows: Callable[[Sequence[int]], NDArray[np.float32]] = lambda own: vectors[[order[row] for row in own]]  # noqa: E731
        found = suspects.doubts(there, repeated.groups(there.captions), rows, encode)
        assert found is not None
        return found

    random = np.random.default_rng(2)
    right = doubts(words)
    wrong = np.sort(random.permutation(len(words))[: len(words) // 10])
    told = list(words)
    for place, other in zip(wrong, np.roll(wrong, len(wrong) // 2), strict=True):
        told[place] = words[other]
    mixed = {each.caption for each in doubts(told).suspects}
    moved = list(words)
    videos = random.permutation(len(words) // clips)[: max(1, len(words) // clips // 5)]
    for video in videos.tolist():
        own = slice(video * clips, video * clips + clips)
        moved[own] = np.roll(words[own], -1).tolist()
    shifted = {(each.video_id, each.step) for each in doubts(moved).moved}
    meant = {(f"{video:04}.mp4", 1) for video in videos.tolist()}
    return {
        "right_suspect": round(len(right.suspects) / len(words), 4),
        "right_moved": len(right.moved),
        "wrong_found": round(len(mixed & set(wrong.tolist())) / len(wrong), 3),
        "suspects_wrong": round(len(mixed & set(wrong.tolist())) / max(1, len(mixed)), 3),
        "moved_found": f"{len(shifted & meant)} of {len(meant)}",
        "moved_by_mistake": len(shifted - meant),
    }


def _archive(ids: Sequence[str], captions: Sequence[str]) -> Present:
    count = len(ids)
    return Present(
        clips=pa.table({"clip_id": list(ids), "video_id": [each.partition("#")[0] for each in ids]}),
        captions=pa.table({"caption": list(captions), "number": [0] * count, "origin": ["sidecar"] * count}),
        clip_of=np.arange(count),
    )


if __name__ == "__main__":
    main()
