"""bench long_file: CPU seconds a clip of a long file against the same content in short files.

Answers: does a clip's cost grow with the length of its file? Asked for: at most 1.5 times.

    python tests/benchmarks/long_file.py --parts 120 --distinct 8 --repeat 3

Encodes `distinct` short videos, remuxes `parts` of them (in turn) into one long file without encoding again, and
decodes both through the decoding process, in units as `embed` makes them. Files are warm; one process, one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "clips")]

from videos import encode, join  # noqa: E402  # the tests' own encoder

from raydist.clips.child import Child  # noqa: E402
from raydist.clips.units import CLIPS_A_UNIT  # noqa: E402
from raydist.records import Span  # noqa: E402

GOP_250 = {"preset": "veryfast", "crf": "28", "bf": "2", "g": "250", "threads": "1"}


def main() -> None:
    """Measure and print one JSON line."""
    options = argparse.ArgumentParser()
    options.add_argument("--parts", type=int, default=120, help="short files; an hour of 30-s ones")
    options.add_argument("--distinct", type=int, default=8, help="of which so many are encoded")
    options.add_argument("--seconds", type=int, default=30, help="length of a part and of a clip")
    options.add_argument("--size", default="320x240")
    options.add_argument("--unit", type=int, default=CLIPS_A_UNIT, help="clips of a file decoded together")
    options.add_argument("--repeat", type=int, default=3)
    given = options.parse_args()
    width, height = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        order = shuffled_shots(Path(folder), given.parts, given.distinct, given.seconds, (width, height))
        long_file = join(order, Path(folder) / "long.mp4")
        span_ms = given.seconds * 1000
        spans = [Span(start_ms=start * span_ms, end_ms=(start + 1) * span_ms) for start in range(given.parts)]
        long_units = [(long_file, spans[first : first + given.unit]) for first in range(0, given.parts, given.unit)]
        short_units = [(shot, spans[:1]) for shot in order]
        with Child() as child:
            pairs = [(_cpu_s(child, long_units), _cpu_s(child, short_units)) for _ in range(given.repeat + 1)][1:]
    long_s, short_s = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    figures = {
        "bench": "long_file",
        "clips": given.parts,
        "clip_s": given.seconds,
        "size": given.size,
        "codec": "h264, GOP 250",
        "unit_clips": given.unit,
        "repeat": given.repeat,
        "cpu_ms_a_clip_long": round(1000 * long_s / given.parts, 1),
        "cpu_ms_a_clip_short": round(1000 * short_s / given.parts, 1),
        "ratio": round(median(pair[0] / pair[1] for pair in pairs), 3),
        "ratios": [round(pair[0] / pair[1], 3) for pair in pairs],
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    print(json.dumps(figures))


def shuffled_shots(folder: Path, parts: int, distinct: int, seconds: int, size: tuple[int, int]) -> list[Path]:
    """`parts` files in a row, of `distinct` ones that are encoded here."""
    shots = [
        encode(folder / f"part-{number}.mp4", count=seconds * 25, size=size, options=GOP_250, seed=number)
        for number in range(distinct)
    ]
    return [shots[random.Random(0).randrange(distinct)] for _ in range(parts)]


def _cpu_s(child: Child, units: list[tuple[Path, list[Span]]]) -> float:
    """CPU seconds of decoding all units; every span must give frames."""
    total = 0.0
    for path, spans in units:
        for clip in child.decode(str(path), spans, frames=8, size_px=224, resize="viclip"):
            if clip.frames is None:
                raise SystemExit(f"{path.name} {clip.span}: {clip.reason} {clip.detail}")
            total += clip.cpu_s
    return total


if __name__ == "__main__":
    main()
