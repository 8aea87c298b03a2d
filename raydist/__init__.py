"""raydist: teach CLIP your archive.

    archive = raydist.open("my-archive")
    hits = archive.search("a dog jumps", top=10)

Everything heavy is imported when it is first used, so `import raydist` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raydist.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from raydist.archive import Archive
    from raydist.models.encoder import Encoder
    from raydist.train.data import VideoTextDataset

__all__ = ["VideoTextDataset", "__version__", "decode_clip", "find_duplicates", "load_encoder", "open"]


def __getattr__(name: str) -> Any:
    if name == "VideoTextDataset":  # a class, so that it can be subclassed; it imports torch
        from raydist.train.data import VideoTextDataset

        return VideoTextDataset
    raise AttributeError(f"module 'raydist' has no attribute {name!r}")


def open(location: str, changes: Sequence[str] = ()) -> Archive:  # raydist.open reads as it should
    """The archive at a location, a folder; `changes` are settings such as `embed.batch=32`."""
    from raydist.archive import Archive

    return Archive(location, changes)


def decode_clip(
    path: str,
    start_s: float = 0.0,
    end_s: float | None = None,
    frames: int = 8,
    size: int | None = 224,
    resize: str = "viclip",
    sampling: str = "exact",
) -> NDArray[np.uint8]:
    """Frames of a span of a video file: uint8 [T, H, W, 3] RGB.

    Args:
        path: a video file, or the address of one (`s3://`, `gs://`, `http(s)://`).
        start_s: seconds after the first presented frame.
        end_s: end of the half-open span; None is the end of the file.
        frames: T, the middles of equal intervals of the span.
        size: edge of the square result in pixels; None: as decoded.
        resize: `viclip` (integer bilinear squash), `clip` (bicubic, centre crop), `squash-bicubic` or
            `squash-bilinear` (SigLIP's), `fit` (no square: the longest edge at most `size`, never enlarged).
        sampling: `exact`, or `fast` for frames nearby that cost less to get to.

    Raises:
        SourceError: if the file cannot be read as a video.
        ClipError: if the span is none, or holds no frame.
        ValueError: if a count, a size or a rule is out of bounds.
    """
    from raydist.clips.decode import decode_clip as decode

    return decode(path, start_s, end_s, frames=frames, size=size, resize=resize, sampling=sampling)


def find_duplicates(vectors: NDArray[np.floating], threshold: float = 0.95) -> pa.Table:
    """All pairs of vectors whose cosine is at or above a threshold, exactly; of m equal vectors m (m - 1) / 2 pairs.

    Args:
        vectors: [N, D] float16 or float32, of any length but zero.
        threshold: a cosine above 0 and below 1.

    Returns:
        `a`, `b` (int64 row numbers, a < b) and `similarity` (float32), sorted by a, then b.

    Raises:
        UsageError: vectors of another shape or type, a vector that is zero or holds NaN or infinity, a threshold out
            of bounds.
    """
    from raydist.dedup.exact import find_duplicates as find

    return find(vectors, threshold)


def load_encoder(name: str = "", adapter: str | None = None, device: str = "cpu") -> Encoder:
    """An encoder by name, folder or hub repository, on `cpu`, `cuda` or `auto`.

    Args:
        name: empty: the model that the adapter was trained on; without one `viclip-b16`.
        adapter: folder of a LoRA adapter, which is merged into the weights.
        device: where it computes.

    Raises:
        ModelError: if the model is unknown, incomplete or not on this machine, or is not the adapter's.
    """
    from raydist.models.registry import load_encoder as load

    return load(name, adapter=adapter, device=device)
