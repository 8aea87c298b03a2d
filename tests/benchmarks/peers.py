"""peers: 8 frames of a file at 224 x 224, by raydist and by the libraries that people decode with.

Reads     a file, opened from its path every time: opening and indexing are part of the price
Gives     a `Contender` each, as far as its library is installed, with every sensible way of using it
Promises  one thread each; the same frames, those of `middle_ranks`, asked for as the library counts them
"""

# Shape legend: T frames, H height, W width, C = 3 colours

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from raydist.clips.decode import decode_spans
from raydist.clips.sampling import middle_ranks
from raydist.records import Span

FRAMES = 8
SIZE = 224
_WHOLE = Span(start_ms=0, end_ms=30_000)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a contender made of a file."""

    pixels: NDArray[np.uint8]
    """[T, H, W, C] RGB."""
    times_ms: tuple[int, ...] | None = None
    """Of the frames, whole milliseconds after the first, if the library tells."""


Read: TypeAlias = Callable[[Path], Taken]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of sampling, under the name of its column."""

    name: str
    ways: dict[str, Read]
    """By name; the benchmark tries all and takes the cheapest."""
    errors: tuple[type[Exception], ...] = (RuntimeError, ValueError, OSError)
    """What the library raises on a file that it cannot read."""


def contenders(say: Callable[[str], None]) -> list[Contender]:
    """Raydist, then every peer that can be imported; `say` gets a line for each that cannot."""
    found = [Contender("raydist EXACT", {"": partial(_raydist, {})})]
    found.append(Contender("raydist FAST", {"": partial(_raydist, {"sampling": "fast"})}))
    for make in (_torchcodec, _decord, _opencv):
        name = make.__name__.strip("_")
        try:
            found += make()
        except (ImportError, OSError, RuntimeError) as error:  # the last two: a library of the library is missing
            say(f"{name} is left out: {str(error).strip().splitlines()[0]}")
    found.append(Contender("PyAV loop", {"": _pyav}))
    return found


def versions() -> dict[str, str]:
    """Of everything that takes part."""
    libraries = {"pyav": "av", "torch": "torch", "torchcodec": "torchcodec", "decord": "decord"}
    libraries["opencv"] = "opencv-python-headless"
    known = {"ffmpeg of pyav": av.ffmpeg_version_info}
    for name, package in libraries.items():
        if package.partition("-")[0] in sys.modules or (name == "opencv" and "cv2" in sys.modules):
            known[name] = version(package)
    core = sys.modules.get("torchcodec._core")
    if core is not None:
        known["ffmpeg of torchcodec"] = core.get_ffmpeg_library_versions()["ffmpeg_version"]
    return known


def _raydist(sampling: dict[str, Any], path: Path) -> Taken:
    (clip,) = decode_spans(str(path), [_WHOLE], frames=FRAMES, size_px=SIZE, hashes=False, **sampling)
    if clip.frames is None:
        raise RuntimeError(f"{path.name}: {clip.reason} {clip.detail}")
    return Taken(clip.frames, clip.frame_times_ms)


def _pyav(path: Path) -> Taken:
    """What most people write: decode everything, keep some."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        # Some containers know their number of frames; the others are counted by their packets first.
        count = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        if not stream.frames:
            container.seek(0)
        wanted = set(middle_ranks(count, FRAMES))
        pictures = [
            frame.reformat(SIZE, SIZE, "rgb24", interpolation=Interpolation.BILINEAR, threads=1).to_ndarray()
            for rank, frame in enumerate(container.decode(stream))
            if rank in wanted
        ]
    return Taken(np.stack(pictures))


def _torchcodec() -> Iterator[Contender]:
    torch = import_module("torch")
    decoders = import_module("torchcodec.decoders")
    resize = import_module("torchcodec.transforms").Resize
    torch.set_num_threads(1)

    def within(mode: str, path: Path) -> Taken:
        decoder = decoders.VideoDecoder(
            path, seek_mode=mode, num_ffmpeg_threads=1, dimension_order="NHWC", transforms=[resize((SIZE, SIZE))]
        )
        return taken(decoder, lambda frames_THWC: frames_THWC)

    def behind(mode: str, path: Path) -> Taken:
        # Frames in NCHW of channels-last memory: what torch's resize of bytes is fastest with.
        decoder = decoders.VideoDecoder(path, seek_mode=mode, num_ffmpeg_threads=1, dimension_order="NCHW")
        return taken(
            decoder,
            lambda frames_TCHW: torch.nn.functional.interpolate(
                frames_TCHW, (SIZE, SIZE), mode="bilinear", align_corners=False
            ).permute(0, 2, 3, 1),
        )

    def taken(decoder: Any, scale: Callable[[Any], Any]) -> Taken:
        batch = decoder.get_frames_at(indices=middle_ranks(len(decoder), FRAMES))
        start_s = decoder.metadata.begin_stream_seconds or 0.0
        times_ms = tuple(int((pts_s - start_s) * 1000 + 1e-6) for pts_s in batch.pts_seconds.tolist())
        return Taken(scale(batch.data).numpy(), times_ms)

    for mode in ("exact", "approximate"):
        ways = {"resized by its transform": partial(within, mode), "resized by torch": partial(behind, mode)}
        yield Contender(f"torchcodec {mode}", ways)


def _decord() -> Iterator[Contender]:
    decord = import_module("decord")

    def scaled(path: Path) -> Taken:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), width=SIZE, height=SIZE, num_threads=1)
        return Taken(reader.get_batch(middle_ranks(len(reader), FRAMES)).asnumpy())

    yield Contender("decord", {"": scaled}, (RuntimeError, ValueError, OSError, decord.DECORDError))


def _opencv() -> Iterator[Contender]:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # it says a line a frame where it cannot decode
    cv2 = import_module("cv2")
    cv2.setNumThreads(1)

    def opened(path: Path) -> Any:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened():
            raise RuntimeError(f"{path.name}: OpenCV cannot open it")
        return capture

    def shown(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        small = cv2.resize(frame_HWC, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def jumping(path: Path) -> Taken:
        capture = opened(path)
        pictures = []
        for rank in middle_ranks(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), FRAMES):
            capture.set(cv2.CAP_PROP_POS_FRAMES, rank)
            pictures.append(frame_of(path, *capture.read()))
        return Taken(np.stack(pictures))

    def walking(path: Path) -> Taken:
        capture = opened(path)
        ranks = middle_ranks(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), FRAMES)
        pictures = []
        for rank in range(ranks[-1] + 1):
            capture.grab()
            if rank in ranks:
                pictures.append(frame_of(path, *capture.retrieve()))
        return Taken(np.stack(pictures))

    def frame_of(path: Path, good: bool, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not good:
            raise RuntimeError(f"{path.name}: OpenCV gives no frame")
        return shown(frame_HWC)

    yield Contender("OpenCV", {"seeks": jumping, "grabs all": walking})


def link_ffmpeg(folder: Path) -> str | None:
    """Give PyAV's own FFmpeg the file names that torchcodec looks for.

    So both decode with the same FFmpeg, and none need be installed. Takes effect in a process that starts with the
    folder in LD_LIBRARY_PATH.

    Returns:
        The folder with the links; None where PyAV was not installed with libraries of its own.
    """
    own = Path(av.__file__).parent.parent / "av.libs"
    if not own.is_dir():
        return None
    links = folder / f"ffmpeg-{av.__version__}"
    links.mkdir(parents=True, exist_ok=True)
    for library in own.iterdir():
        plain = re.sub(r"^(lib(?:av|sw)[a-z]+)-[0-9a-f]+\.so\.(\d+)\..*", r"\1.so.\2", library.name)
        for name in {library.name, plain}:
            link = links / name
            if not link.exists():
                link.unlink(missing_ok=True)  # it may point at an environment that is gone
                os.symlink(library, link)
    return str(links)
