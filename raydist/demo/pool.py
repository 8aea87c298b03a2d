"""pool: clips as a model sees them, made without touching the disk: drawn, encoded, decoded, sampled, resized.

Training must see what `raydist embed` will see, compression included, so the way is the same: H.264, the middles of
equal intervals, the models' own resize rule.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import av
import numpy as np
from numpy.typing import NDArray

from raydist.clips.resize import resize_frames
from raydist.clips.sampling import middle_ranks
from raydist.demo import clip
from raydist.demo.words import Combination

# Shape legend: N clips, T frames a clip, H height, W width, C = 3 colours

FRAMES = 8


def see(shown: Combination, seed: int, size_px: int, faded: bool = False) -> NDArray[np.uint8]:
    """What a ViCLIP of this input size sees of a clip, faded or not: uint8 [8, size_px, size_px, 3]."""
    drawing = clip.prepare(shown, seed, faded=faded)
    wanted = middle_ranks(drawing.frames, FRAMES)
    # Only these frames are encoded, which is four times faster; the marks of compression are the same.
    file = io.BytesIO()
    clip.encode((drawing.draw(number) for number in wanted), file)
    file.seek(0)
    with av.open(file, "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return resize_frames(np.stack(decoded), size_px, "viclip")


def see_all(
    clips: Sequence[tuple[Combination, int]], size_px: int, processes: int, *, faded: bool = False
) -> NDArray[np.uint8]:
    """`see` for many (combination, seed): uint8 [N, 8, size_px, size_px, 3], in the order given."""
    frames_NTHWC = np.empty((len(clips), FRAMES, size_px, size_px, 3), np.uint8)
    shown, seeds = zip(*clips, strict=True)
    # Spawned, because a forked child would inherit torch's threads.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:
        seen = workers.map(see, shown, seeds, repeat(size_px), repeat(faded), chunksize=16)
        for place, frames_THWC in enumerate(seen):
            frames_NTHWC[place] = frames_THWC
    return frames_NTHWC
