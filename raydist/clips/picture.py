"""picture: a decoded frame to pixels as a person sees them, its hash, and a model's size."""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from raydist.clips.resize import resize_frame
from raydist.clips.signature import frame_hash

# Full chroma: without it swscale halves the colours' resolution sideways on the way to RGB.
_FLAGS = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a clip."""

    pixels: NDArray[np.uint8]
    """[H, W, 3] RGB, upright, at the size asked for."""
    hash: int
    corrupt: bool


class Converter:
    """Frames to pictures; keeps swscale's tables between frames of one kind."""

    def __init__(self, size_px: int | None, resize: str) -> None:
        self._size_px = size_px
        self._resize = resize
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Picture | None:
        """The picture, or None where swscale cannot read the frame's format."""
        try:
            rgb_HWC = self._rgb(frame)
        except MemoryError:
            raise
        except (FFmpegError, ValueError):
            return None
        turns = rotation(frame) // 90
        if turns:
            rgb_HWC = np.ascontiguousarray(np.rot90(rgb_HWC, turns))
        return Picture(resize_frame(rgb_HWC, self._size_px, self._resize), frame_hash(rgb_HWC), bool(frame.is_corrupt))

    def _rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        try:
            rgb = self._scaler.reformat(frame, format="rgb24", interpolation=_FLAGS, threads=1)
        except MemoryError:
            raise
        except FFmpegError:
            # A colour space that swscale does not know (reserved numbers in the header): take the most common one.
            rgb = self._scaler.reformat(
                frame, format="rgb24", interpolation=_FLAGS, threads=1, src_colorspace=Colorspace.ITU601
            )
        return np.asarray(rgb.to_ndarray(), dtype=np.uint8)


def rotation(frame: VideoFrame) -> int:
    """Degrees to turn a frame counter-clockwise for display: 0, 90, 180 or 270. Mirroring is not applied."""
    try:
        degrees = frame.rotation
    except ValueError:  # a matrix of zeros has no angle
        return 0
    return round(degrees / 90) * 90 % 360
