"""fuzz: damaged variants of small videos, through a decoding process; where that gives nothing, through a plain one.

    python tests/clips/fuzz.py --count 500 --seed 1 [--real ../shared/realvideo] [--only 17 --keep variant.mp4]

Variants   bits flipped, pieces cut off, taken out, doubled, zeroed, swapped or taken from another file, in the headers,
           in what they describe, or anywhere; a seed and a number always give the same one
Promises   of every variant: each span gives one result, with frames or a reason; nothing hangs; one process stays; and
           where plain decoding (packet by packet, errors passed over) shows a frame, so does the first clip
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from videos import VP9, X264, X265, encode

from raydist.clips.child import Child
from raydist.clips.source import PLAIN_FORMATS
from raydist.errors import SourceError
from raydist.records import REASONS, Limits, Span

REFUSALS = {"too_large", "refused_format", "picture", "encrypted"}
"""What we do not decode although others would."""
LIMITS = Limits(cpu_s=10)
AV1 = {"preset": "12", "crf": "50", "svtav1-params": "lp=1"}
_HEADER = 2048
_LARGEST_REAL = 400_000


@dataclass
class Findings:
    """What a run found."""

    seed: int
    problems: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


def generated(folder: Path) -> list[Path]:
    """Videos of several codecs and containers, drawn and encoded."""
    small = {"count": 60, "size": (96, 64)}
    made = [
        encode(folder / "h264.mp4", **small, options={**X264, "g": "20"}),  # type: ignore[arg-type]
        encode(folder / "h264.ts", **small),  # type: ignore[arg-type]
        encode(folder / "h264.flv", **small),  # type: ignore[arg-type]
        encode(folder / "h264.264", **small),  # type: ignore[arg-type]
        encode(folder / "hevc.mkv", **small, codec="libx265", options=X265),  # type: ignore[arg-type]
        encode(folder / "hevc.mp4", **small, codec="libx265", options=X265),  # type: ignore[arg-type]
        encode(folder / "vp9.webm", **small, codec="libvpx-vp9", options=VP9),  # type: ignore[arg-type]
        encode(folder / "vp8.webm", **small, codec="libvpx", options={"b": "100k", "g": "20", "threads": "1"}),  # type: ignore[arg-type]
        encode(folder / "av1.mp4", **small, codec="libsvtav1", options=AV1),  # type: ignore[arg-type]
        encode(folder / "mpeg4.avi", **small, codec="mpeg4", options={"bf": "2", "g": "20"}),  # type: ignore[arg-type]
        encode(folder / "mpeg2.mpg", **small, codec="mpeg2video", options={"bf": "2", "g": "12"}),  # type: ignore[arg-type]
        encode(folder / "mjpeg.mov", count=20, codec="mjpeg", options={}),
        encode(folder / "gif.gif", count=20, codec="gif", options={}),
    ]
    return sorted(made)


def real(folder: Path, count: int = 10) -> list[Path]:
    """Ten real videos: the smallest of as many kinds as there are."""
    kinds: dict[tuple[int, str], Path] = {}
    for path in sorted((folder / "files").iterdir(), key=lambda path: path.stat().st_size):
        if path.stat().st_size < _LARGEST_REAL and path.suffix not in (".mp3", ".m4a", ".ogg", ".wav", ".flac"):
            number = sum(suffix == path.suffix for _, suffix in kinds)
            kinds[number, path.suffix] = path
    return [kinds[kind] for kind in sorted(kinds)[:count]]


def variants(bases: list[Path], seed: int, count: int) -> Iterator[tuple[int, str, bytes]]:
    """Number, what was done to what, and the bytes of each variant."""
    contents = [base.read_bytes() for base in bases]
    for number in range(count):
        dice = random.Random(f"{seed}:{number}")
        which = number % len(bases)
        data = bytearray(contents[which])
        done = [_damage(data, dice, contents) for _ in range(dice.choice([1, 1, 1, 2, 4]))]
        yield number, f"{bases[which].name}: {', '.join(done)}", bytes(data)


def _damage(data: bytearray, dice: random.Random, others: list[bytes]) -> str:
    low, high = _region(len(data), dice)
    size = max(1, high - low)
    kind = dice.choice(["flip", "flip", "flip", "noise", "cut", "take out", "double", "zero", "swap", "splice"])
    place = low + dice.randrange(size)
    length = min(size, int(2 ** dice.uniform(0, 14)))
    piece = data[place : place + length]
    if kind == "flip":
        length = max(1, int(size * 10 ** dice.uniform(-5, -1.5)))
        for _ in range(length):
            data[min(len(data) - 1, low + dice.randrange(size))] ^= 1 << dice.randrange(8)
    elif kind == "noise":
        data[place : place + length] = dice.randbytes(len(piece))
    elif kind == "cut":
        if dice.random() < 0.8:
            del data[place:]
        else:
            del data[:place]
    elif kind == "take out":
        del data[place : place + length]
    elif kind == "double":
        data[place:place] = piece
    elif kind == "zero":
        data[place : place + length] = bytes(len(piece))
    elif kind == "swap":
        other = dice.randrange(len(data))
        data[other : other + len(piece)], data[place : place + length] = piece, data[other : other + len(piece)]
    else:
        other_data = dice.choice(others)
        start = dice.randrange(len(other_data))
        data[place : place + length] = other_data[start : start + length]
    if not data:
        data.append(0)
    return f"{kind} {length} at {place} of {low}..{high}"


def _region(size: int, dice: random.Random) -> tuple[int, int]:
    """The headers, in front or at the end, the video data between, or all."""
    header = min(_HEADER, size // 3)
    return dice.choice([(0, header), (size - header, size), (header, size - header), (0, size)])


class Plain:
    """Plain decoding in a process of its own, which may crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def frames(self, path: Path) -> int:
        """Frames of the first video stream, at most one; 0 where it crashes or needs too long."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--plain"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(os.fsencode(path) + b"\n")
        ready, _, _ = select.select([self._process.stdout], [], [], 60)
        answer = self._process.stdout.readline() if ready else b""
        if not answer:
            self.close()
        return int(answer or 0)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None


def serve_plainly() -> None:
    """The process of `Plain`."""
    import av
    from av.error import FFmpegError

    av.logging.set_level(None)
    for line in sys.stdin.buffer:
        found = 0
        try:
            with (
                open(line.rstrip(b"\n"), "rb") as file,
                av.open(
                    file, container_options={"format_whitelist": PLAIN_FORMATS}, metadata_errors="replace"
                ) as container,
            ):
                stream = next(s for s in container.streams.video if not s.disposition & 1024)
                stream.codec_context.thread_count = 1
                stream.codec_context.thread_type = "NONE"
                found = next(_frames(container, stream), 0)
        except (FFmpegError, StopIteration, AttributeError, MemoryError):
            pass
        sys.stdout.write(f"{found}\n")
        sys.stdout.flush()


def _frames(container, stream) -> Iterator[int]:  # type: ignore[no-untyped-def]
    from av.error import FFmpegError

    packets = container.demux(stream)
    errors = 0
    while errors < 100:
        try:
            packet = next(packets, None)
        except FFmpegError:
            errors += 1
            packets = container.demux(stream)
            continue
        if packet is None:
            return
        try:
            if stream.codec_context.decode(packet if packet.size else None):
                yield 1
        except (FFmpegError, ValueError):
            continue


def examine(child: Child, plain: Plain, path: Path, sampling: str) -> tuple[str, str]:
    """Status of one file, and what is wrong about it; empty: nothing."""
    started = time.monotonic()
    try:
        probe = child.probe(str(path))
    except SourceError as error:
        status, detail, clips = error.reason, error.detail, []
    else:
        length = probe.duration_ms
        spans = [
            Span(start_ms=0, end_ms=min(30_000, length)),
            Span(start_ms=length // 2, end_ms=length // 2 + 1000),
            Span(start_ms=max(0, length - 1000), end_ms=length),
        ]
        clips = list(child.decode(str(path), spans, frames=8, size_px=32, resize="viclip", sampling=sampling))
        if [clip.span for clip in clips] != spans:
            return "lost", f"{len(clips)} results for {len(spans)} spans"
        for clip in clips:
            if (clip.frames is None) != bool(clip.reason) or clip.reason not in {"", *REASONS}:
                return "lost", f"a result with {clip.frames} and {clip.reason!r}"
        status = clips[0].reason or ("filled" if clips[0].filled_frames else "ok")
        detail = clips[0].detail
    failed = not clips or clips[0].frames is None
    if time.monotonic() - started > 30 * LIMITS.cpu_s:
        return status, f"took {time.monotonic() - started:.0f} s"
    if failed and status not in REFUSALS and plain.frames(path):
        return status, f"{status} ({detail}) where plain decoding shows a frame"
    return status, ""


def run(bases: list[Path], seed: int, count: int, folder: Path, only: int | None = None) -> Findings:
    """Examine variants; every problem names what gives it again, and its file stays in the folder."""
    found = Findings(seed)
    plain = Plain()
    before = len(psutil.Process().children(recursive=True))
    with Child(LIMITS) as child:
        for number, what, data in variants(bases, seed, count):
            if only is not None and number != only:
                continue
            path = folder / f"{seed}-{number}{Path(what.split(':')[0]).suffix}"
            path.write_bytes(data)
            status, wrong = examine(child, plain, path, "fast" if number % 3 == 2 else "exact")
            found.statuses[status] += 1
            processes = len(psutil.Process().children(recursive=True))
            if processes > before + 2:
                wrong = f"{processes} processes; {wrong}"
            if wrong:
                found.problems.append(f"seed {seed}, number {number}, {what}: {wrong}; see {path}")
            elif only is None:
                path.unlink()
    plain.close()
    return found


def main() -> None:
    """Examine variants and print one JSON object."""
    options = argparse.ArgumentParser()
    options.add_argument("--plain", action="store_true", help="be the process that decodes plainly")
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--real", type=Path)
    options.add_argument("--only", type=int)
    options.add_argument("--keep", type=Path, help="where to put the variant named by --only")
    given = options.parse_args()
    if given.plain:
        serve_plainly()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = generated(folder) + (real(given.real) if given.real else [])
        started = time.monotonic()
        work = folder / "work"
        work.mkdir()
        found = run(bases, given.seed, given.count, work, given.only)
        if given.keep:
            given.keep.write_bytes(next(work.iterdir()).read_bytes())
    figures = {"seed": given.seed, "seconds": round(time.monotonic() - started, 1), "statuses": found.statuses}
    sys.stdout.write(json.dumps({**figures, "problems": found.problems}, indent=1) + "\n")


if __name__ == "__main__":
    main()
