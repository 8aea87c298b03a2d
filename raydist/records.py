"""The records that travel between the parts. Units stand in the names; times are whole milliseconds of the file.

A time counts from the first presented frame of the file (not from container pts) and spans are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the settings import this module, and `raydist --help` should not wait for numpy
    import numpy as np
    from numpy.typing import NDArray

REASONS: dict[str, str] = {
    "missing": "the file does not exist",
    "not_a_file": "a directory, FIFO, socket, device or broken link",
    "unreadable": "no permission, or the disk or server gave an error",
    "forbidden": "the server wants other credentials",
    "empty": "the file has no bytes",
    "not_a_video": "no known container",
    "picture": "a still picture; a scan skips it",
    "refused_format": "a play list, text or another format that raydist does not open",
    "no_video_stream": "a container without a video stream",
    "encrypted": "the stream is encrypted",
    "no_frames": "a video stream of which no frame can be decoded",
    "too_large": "pictures, an index, a length or memory beyond the limits",
    "timeout": "more CPU or wall-clock time than the limits allow",
    "crashed": "the decoder died on it",
    "changed": "the file is not the one that was scanned or opened; scan again",
    "id_collision": "two files or clips would have one id",
    "not_finite": "the model gave NaN or infinity",
    "refused": "the provider declined to caption it",
    "no_caption": "the provider's answer holds no caption",
    "bad_answer": "the provider's answer could not be read, each time",
    "provider": "the provider's server failed, each time",
    "too_big": "the clip is larger than the provider takes, however small it is made",
}
"""Why a file or a clip failed, in one word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A half-open stretch [start_ms, end_ms) of one file."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What looking at a file told, without decoding all of it."""

    bytes: int
    file_fingerprint: str
    """Size and blake2b of the first and last 64 KiB."""
    duration_ms: int
    """From the start of the first presented frame to the end of the last one that packets support."""
    frames: int
    """Presented frames; -1 where only head and tail of a large file were read."""
    width: int
    """Coded, before rotation."""
    height: int
    rotation: int
    """Degrees to turn counter-clockwise for display: 0, 90, 180 or 270."""
    fps: float
    codec: str
    container: str
    bit_rate: int
    has_audio: bool
    start_offset_s: float
    """Container time of the first presented frame; players count from here."""
    gaps_ms: tuple[tuple[int, int], ...] = ()
    """Stretches [start, end) of more than a second in which no frame begins; none where packets were not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedClip:
    """Frames of one span, or the reason why there are none. Exactly one of `frames` and `reason` is set."""

    span: Span
    frames: NDArray[np.uint8] | None
    """[T, H, W, 3] RGB."""
    frame_times_ms: tuple[int, ...] = ()
    """Time in the file of each of the T frames (a filled frame has the time of the frame it repeats)."""
    offsets_ms: tuple[int, ...] = ()
    """How far each of the T frames is from where the exact rule puts it: more than 0 with fast sampling or for a filled
    frame."""
    filled_frames: int = 0
    """How many of the T are a repeated frame."""
    corrupt_frames: int = 0
    """How many of the T the decoder marked as damaged: a hint, not a verdict."""
    frame_hashes: tuple[int, ...] = ()
    """64-bit perceptual hash of each of the T frames, before any model's resize; unsigned."""
    cpu_s: float = 0.0
    bytes_read: int = 0
    """Fetched from a server for this clip, the file's index included in the first; 0 for a file on a disk."""
    reason: str = ""
    detail: str = ""


CUT_RATE = 5
"""Pictures a second of a cut that is encoded anew: enough for any motion that a caption tells of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One span as a video file of its own, or the reason why there is none. Exactly one of `data` and `reason` is set.

    It begins with the span's first frame, which has the time 0.
    """

    span: Span
    data: bytes = b""
    """mp4, without sound."""
    width_px: int = 0
    height_px: int = 0
    copied: bool = False
    """Its packets are those of the file; else it was encoded anew."""
    cpu_s: float = 0.0
    bytes_read: int = 0
    """Fetched from a server for this span."""
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """How files on servers are read. Credentials are not in it: they come from the usual places."""

    endpoint: str = ""
    """URL of an S3-compatible server; empty: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else Amazon's."""
    region: str = ""
    anonymous: bool = False
    connect_s: float = 10.0
    read_s: float = 30.0
    tries: int = 6
    whole_bytes: int = 1 << 30
    """A file of a server that knows no ranges is downloaded up to this size."""
    whole_s: float = 900.0
    """What such a download may take, its tries included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request to a decoding child may use."""

    cpu_s: float = 30.0
    """CPU seconds a clip; wall-clock time is limited at five times that, for a hang."""
    memory_bytes: int = 896 << 20
    """Address space of the child beyond what it has when it starts; with that it stays below 1 GiB."""
    pixels: int = 8192 * 8192
    """Pixels of one picture."""
    threads: int = 1
    """Threads for pictures of `LARGE_PIXELS` and more; smaller ones are decoded side by side instead."""
    hwaccel: str = ""
    """FFmpeg's name of the hardware that decodes what it can, such as `cuda`; empty: none."""
    remote: Remote = field(default_factory=Remote)
    """How the file is read where it is on a server."""


LARGE_PIXELS = 8_000_000
"""4K: one such file can keep a core busy for long while the others have nothing left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a stage did, for people, for JSON and for the file under `runs/`."""

    stage: str
    run: str
    seconds: float
    counts: dict[str, int]
    """What was counted, in the order in which it reads well: files, clips, rows, failed, ..."""
    failures: dict[str, int] = field(default_factory=dict)
    """Reason -> how many, of this run."""
    shares: dict[str, float] = field(default_factory=dict)
    """Step -> its busy share of the time it was given, 0 to 1."""
    bound_by: str = ""
    """The step that bounds the run."""
    clips_per_s: float = 0.0
    notes: tuple[str, ...] = ()
    """What a person should know or do next."""
    details: dict[str, Any] = field(default_factory=dict)
