"""bench decode: CPU a clip of raydist's two ways of sampling against the libraries that people decode with.

Answers: what do 8 frames of a 30-second clip at 224 x 224 cost on one core, and are they the right frames?

    pip install -e '.[bench]' -c constraints.txt
    python tests/benchmarks/decode.py --cache /var/tmp/shots --rounds 5 > rows.jsonl

Encodes a 30-second file a row (minutes, once: `--cache` keeps them), then reads each with every contender in turn,
round by round, in one process on one core, one thread each. What is timed is the process's CPU, from the path to the
resized frames: opening and indexing are in it, the page cache is warm. Peers resize with the fastest way they have.
Ratios are of the least over the rounds. Prints one JSON line a row on stdout and a table on stderr.

Peers that are not installed are left out with a word. torchcodec needs FFmpeg's shared libraries: by default it gets
PyAV's own, through links in the cache, so that both decode with one FFmpeg; `--ffmpeg system` takes the installed one
(`apt install ffmpeg`).
"""

# Shape legend: T frames, H height, W width, C = 3 colours

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from conditions import commit, cpu_name  # noqa: E402
from peers import FRAMES, SIZE, Contender, Read, Taken, contenders, link_ffmpeg, versions  # noqa: E402
from shots import SHOTS, Shot, make  # noqa: E402

from raydist.clips.picture import Converter  # noqa: E402
from raydist.clips.sampling import middle_ranks  # noqa: E402

NEAR = 2
"""A peer's frame is the right one if it is more like it than like the so many frames before and behind."""
RIVALS = {"raydist EXACT": "torchcodec exact", "raydist FAST": "torchcodec approximate"}


def main() -> None:
    """Measure; one JSON line a row, then a table."""
    options = argparse.ArgumentParser()
    options.add_argument("--cache", type=Path, help="folder that keeps the encoded files; default: a temporary one")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--rows", default="", help="only rows whose name contains this")
    options.add_argument("--only", default="", help="only contenders whose name contains one of these, by commas")
    options.add_argument("--ffmpeg", choices=("pyav", "system"), default="pyav", help="what torchcodec decodes with")
    options.add_argument("--core", type=int, default=-1, help="the core to stay on; default: the last one")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.cache or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if given.ffmpeg == "pyav":
            _with_ffmpeg_of_pyav(folder)
        _run(given, folder)


def _with_ffmpeg_of_pyav(folder: Path) -> None:
    """Start again with PyAV's libraries where the loader looks: it reads the variable only when a process starts."""
    links = link_ffmpeg(folder)
    paths = os.environ.get("LD_LIBRARY_PATH", "")
    if links and links not in paths.split(os.pathsep):
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (links, paths)))
        os.execv(sys.executable, [sys.executable, *sys.argv])


def _run(given: argparse.Namespace, folder: Path) -> None:
    shots = [shot for shot in SHOTS if given.rows in shot.name]
    files = [make(shot, folder) for shot in shots]  # before the pinning: encoders may use all cores
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[given.core] if given.core < 0 else given.core})
    names = given.only.split(",")
    everyone = [one for one in contenders(_say) if any(name in one.name for name in names)]
    conditions = {"rounds": given.rounds, "cpu": cpu_name(), "commit": commit(), **versions()}
    rows = []
    for shot, file in zip(shots, files, strict=True):
        row = {"bench": "decode", **_row(shot, file, everyone, given.rounds), "conditions": conditions}
        print(json.dumps(row), flush=True)
        rows.append(row)
    _say(_table(rows, [one.name for one in everyone]))
    _say(f"{conditions}")


@dataclass
class _Lane:
    """One contender on one file."""

    contender: Contender
    way: str
    read: Read
    taken: Taken
    cpu_ms: list[float] = field(default_factory=list)


def _row(shot: Shot, file: Path, everyone: Sequence[Contender], rounds: int) -> dict[str, Any]:
    """All figures of one file."""
    lanes: list[_Lane] = []
    figures: dict[str, Any] = {}
    for contender in everyone:
        try:
            lanes.append(_lane(contender, file))
        except contender.errors as error:
            figures[contender.name] = {"fails": str(error).strip().splitlines()[0]}
    for turn in range(rounds):
        for place in range(len(lanes)):
            lane = lanes[(place + turn) % len(lanes)]  # nobody always follows the same one
            _, cpu_ms = _timed(lane.read, file)
            lane.cpu_ms.append(cpu_ms)
    truth = _Truth(file, [lane.taken for lane in lanes])
    for lane in lanes:
        figures[lane.contender.name] = {
            "cpu_ms_min": round(min(lane.cpu_ms), 1),
            "cpu_ms_median": round(median(lane.cpu_ms), 1),
            **({"way": lane.way} if lane.way else {}),
            **truth.compare(lane.taken),
        }
    return {
        "row": shot.name,
        "mbit_s": round(file.stat().st_size * 8 / 1e6 / truth.seconds, 2),
        "frames": truth.count,
        "key_frames": truth.keys,
        "contenders": figures,
        "ratios": _ratios(shot, lanes),
    }


def _lane(contender: Contender, file: Path) -> _Lane:
    """The cheapest way of a contender, each warmed and tried: the first time loads code and tables."""
    trials = []
    failed: Exception | None = None
    for way, read in contender.ways.items():
        try:
            taken, cpu_ms = _timed(read, file)
            if len(contender.ways) > 1:
                _, cpu_ms = _timed(read, file)
            trials.append((cpu_ms, way, read, taken))
        except contender.errors as error:
            failed = error
    if not trials:
        assert failed is not None, f"{contender.name} has no way of reading"
        raise failed
    _, way, read, taken = min(trials, key=lambda trial: trial[0])
    return _Lane(contender, way, read, taken)


def _timed(read: Read, file: Path) -> tuple[Taken, float]:
    """What was taken, and the CPU of all this process's threads meanwhile in ms."""
    started = time.process_time()
    taken = read(file)
    return taken, 1000 * (time.process_time() - started)


def _ratios(shot: Shot, lanes: Sequence[_Lane]) -> dict[str, Any]:
    """Of raydist's CPU to a rival's, each at its least: what else the machine does only ever adds to it."""
    by_name = {lane.contender.name: lane for lane in lanes}
    ratios: dict[str, Any] = {}
    for name, goal in (("raydist EXACT", shot.exact_goal), ("raydist FAST", shot.fast_goal)):
        if name not in by_name:
            continue
        against = {
            peer: round(min(by_name[name].cpu_ms) / min(lane.cpu_ms), 3)
            for peer, lane in by_name.items()
            if not peer.startswith("raydist")
        }
        if against:
            dearest = max(against, key=lambda peer: against[peer])
            ratios[name] = {
                "goal": goal,
                "torchcodec": against.get(RIVALS[name]),
                "best_peer": {dearest: against[dearest]},
            }
    return ratios


class _Truth:
    """A file as the plainest reading gives it: from the start, one thread, every frame, no seeking."""

    def __init__(self, file: Path, takens: Sequence[Taken]) -> None:
        """Decode it once and keep what the takens are compared with."""
        with av.open(str(file)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            self.count, self.keys = len(packets), sum(packet.is_keyframe for packet in packets)
        told = {ms for taken in takens for ms in taken.times_ms or ()}
        self.ranks = middle_ranks(self.count, FRAMES)
        near = {rank + off for rank in self.ranks for off in range(-NEAR, NEAR + 1)}
        convert = Converter(SIZE, "viclip")
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        self._times_ms: list[int] = []
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            first = None
            for rank, frame in enumerate(container.decode(stream)):
                assert frame.pts is not None, f"{file.name} has frames without times"
                first = frame.pts if first is None else first
                self._times_ms.append(int((frame.pts - first) * 1000 * frame.time_base))
                if rank in near or self._times_ms[-1] in told:
                    picture = convert(frame)
                    assert picture is not None, f"{file.name}: {frame.format.name} cannot be converted"
                    self._pixels[rank] = picture.pixels
        assert len(self._times_ms) == self.count, f"{file.name}: {self.count} packets, {len(self._times_ms)} frames"
        self.seconds = self._times_ms[-1] / 1000 * self.count / (self.count - 1)

    def compare(self, taken: Taken) -> dict[str, Any]:
        """How far the frames are the exact ones, in time and in levels of 255."""
        right = [self._times_ms[rank] for rank in self.ranks]
        figures: dict[str, Any] = {"right_frames": sum(map(self._is_nearest, self.ranks, taken.pixels))}
        if taken.times_ms is not None:
            off_s = [abs(told - ms) / 1000 for told, ms in zip(taken.times_ms, right, strict=True)]
            figures |= {"off_s_mean": round(sum(off_s) / FRAMES, 3), "off_s_max": max(off_s)}
            shown = [self._times_ms.index(ms) if ms in self._times_ms else -1 for ms in taken.times_ms]
        else:
            shown = self.ranks
        pairs = [(self._pixels.get(rank), got) for rank, got in zip(shown, taken.pixels, strict=True)]
        apart = [_apart(kept, got) for kept, got in pairs if kept is not None]
        figures["bit_identical"] = sum(level == 0 for level in apart)
        figures["levels_apart"] = round(sum(apart) / len(apart), 2) if apart else None
        return figures

    def _is_nearest(self, rank: int, got_HWC: NDArray[np.uint8]) -> bool:
        near = {off: self._pixels.get(rank + off) for off in range(-NEAR, NEAR + 1)}
        levels = {off: _apart(kept, got_HWC) for off, kept in near.items() if kept is not None}
        return min(levels, key=lambda off: levels[off]) == 0


def _apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Markdown: CPU ms a clip (least / median), the ratios with their goals, and the frames that are not right."""
    heads = ["file", "Mbit/s", "key frames", *names, "EXACT / torchcodec exact", "FAST / torchcodec approximate"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in rows:
        cells = [row["row"], str(row["mbit_s"]), f"{row['key_frames']} of {row['frames']}"]
        cells += [_cell(row["contenders"].get(name, {})) for name in names]
        cells += [_ratio(row["ratios"].get(name)) for name in RIVALS]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(figures: dict[str, Any]) -> str:
    if "cpu_ms_median" not in figures:
        return "fails" if figures else "-"
    note = ""
    if figures.get("off_s_mean"):  # fast sampling means to show other frames, and says how far they are
        note = f" ({figures['off_s_mean']:.2f} s off)"
    elif figures["right_frames"] < FRAMES:
        note = f" ({FRAMES - figures['right_frames']} wrong)"
    return f"{figures['cpu_ms_min']:.0f} / {figures['cpu_ms_median']:.0f}{note}"


def _ratio(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    ((peer, worst),) = figures["best_peer"].items()
    held = f"{figures['torchcodec']:.2f} of {figures['goal']:.2f}" if figures["torchcodec"] else "-"
    return f"{held}; {worst:.2f} of {peer}" if worst != figures["torchcodec"] else held


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
