"""picture: a decoded frame to pixels as a person sees them, its hash, and a model's size.

Turned and mirrored as the file says, in the shape that a screen shows, see-through parts on black, HDR as SDR. Fields
of interlaced video stay woven. Without a size the pixels keep the shape in which they are coded.
"""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import SideData, SideDataContainer
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from raydist.clips.container import Video
from raydist.clips.hdr import is_hdr, to_sdr
from raydist.clips.resize import Planes, planes_of, resize_planes
from raydist.clips.signature import planes_hash

# Full chroma: without it swscale halves the colours' resolution sideways on the way to RGB.
_FLAGS = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
_WIDEST_PIXEL = 16
_SHAPELESS = frozenset({"mpegts", "mpeg", "mpegvideo", "h264", "hevc"})
"""Formats that leave the shape of pixels to the codec."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a clip."""

    pixels: NDArray[np.uint8]
    """[H, W, 3] RGB, upright, at the size asked for."""
    hash: int | None
    """None: not wanted."""
    corrupt: bool


class Converter:
    """Frames to pictures; keeps swscale's tables between frames of one kind.

    `watch` a file before its frames: PyAV's frames do not know the shape of their pixels.
    """

    def __init__(self, size_px: int | None, resize: str, *, hashes: bool = True) -> None:
        self._video: Video | None = None
        self._size_px = size_px
        self._resize = resize
        self._hashes = hashes
        self._scaler = VideoReformatter()

    def watch(self, video: Video) -> None:
        """The next frames are of this file."""
        self._video = video

    def __call__(self, frame: VideoFrame) -> Picture | None:
        """The picture, or None where swscale cannot read the frame's format."""
        try:
            planes = self._planes(frame)
        except MemoryError:
            raise
        except (FFmpegError, ValueError):
            return None
        if is_mirrored(frame):
            planes = _each(planes, lambda plane_HW: plane_HW[::-1])
        turns = rotation(frame) // 90
        if turns:
            planes = _each(planes, lambda plane_HW: np.rot90(plane_HW, turns))
        aspect = pixel_aspect(self._video) if self._video else Fraction(1)
        pixels_HWC = resize_planes(planes, self._size_px, self._resize, 1 / aspect if turns % 2 else aspect)
        if is_hdr(frame.color_trc):
            pixels_HWC = to_sdr(pixels_HWC, frame.color_trc)
        return Picture(pixels_HWC, planes_hash(planes) if self._hashes else None, bool(frame.is_corrupt))

    def _planes(self, frame: VideoFrame) -> Planes:
        # Planes take swscale less than half the time of interleaved RGB. The values are the same, but for odd heights
        # (rounded otherwise by a level) and RGB of few bits (not dithered).
        if frame.height % 2 or frame.format.is_rgb:
            (rgb,) = self._reformat(frame, "rgb24").planes
            planes = planes_of(_values(rgb, 3).reshape(frame.height, frame.width, 3))
        else:
            green, blue, red = (_values(plane) for plane in self._reformat(frame, "gbrp").planes)
            planes = (red, green, blue)
        return self._on_black(planes, frame) if _sees_through(frame) else planes

    def _on_black(self, planes: Planes, frame: VideoFrame) -> Planes:
        alpha_HW = _values(self._reformat(frame, "gbrap").planes[3])
        if alpha_HW.min(initial=255) == 255 or alpha_HW.max(initial=0) == 0:  # all 0: a byte that nobody filled
            return planes
        return _each(planes, lambda plane_HW: ((plane_HW * alpha_HW.astype(np.uint16) + 127) // 255).astype(np.uint8))

    def _reformat(self, frame: VideoFrame, name: str) -> VideoFrame:
        try:
            return self._scaler.reformat(frame, format=name, interpolation=_FLAGS, threads=1)
        except MemoryError:
            raise
        except FFmpegError:
            # A colour space that swscale does not know (reserved numbers in the header): take the most common one.
            return self._scaler.reformat(
                frame, format=name, interpolation=_FLAGS, threads=1, src_colorspace=Colorspace.ITU601
            )


def pixel_aspect(video: Video) -> Fraction:
    """Width ÷ height of a pixel on the screen; 1 where the file says nothing, or nonsense.

    The container's word counts before the decoder's. Broadcasts leave it to the codec, and may change on the way.
    """
    said = [video.stream.sample_aspect_ratio, video.decoder.sample_aspect_ratio]
    if video.container.format.name in _SHAPELESS:
        said.reverse()
    for found in said:
        if found and Fraction(1, _WIDEST_PIXEL) <= found <= _WIDEST_PIXEL:
            return Fraction(found.numerator, found.denominator)
    return Fraction(1)


def rotation(frame: VideoFrame) -> int:
    """Degrees to turn a frame counter-clockwise for display: 0, 90, 180 or 270, the nearest of them."""
    try:
        degrees = frame.rotation
    except ValueError:
        return 0
    return round(degrees / 90) * 90 % 360 if abs(degrees) <= 180 else 0  # a matrix of zeros has no angle


def is_mirrored(frame: VideoFrame) -> bool:
    """Whether a frame is to be flipped upside down before it is turned."""
    try:
        # Not `frame.side_data`: the frame would refer to itself, and stay in memory until the collector comes by.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # PyAV's stub leaves it out
    except ValueError:  # among the frame's data there is a kind that PyAV does not know
        return False
    if not isinstance(matrix, SideData):
        return False
    a, b, _, c, d = (int(number) for number in np.frombuffer(memoryview(matrix), dtype=np.int32)[:5])
    return a * d < b * c


def _sees_through(frame: VideoFrame) -> bool:
    """Whether a frame has a fourth channel that means something.

    In FFmpeg's `bgra` it does not: GIF's see-through pixels are white there, as a page is; AVI leaves the byte empty.
    """
    layout = frame.format
    return layout.has_palette or (layout.name != "bgra" and any(part.is_alpha for part in layout.components))


def _values(plane: VideoPlane, channels: int = 1) -> NDArray[np.uint8]:
    """View of [H, W * channels] without the padding of its lines."""
    lines = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return np.asarray(lines[: plane.height, : plane.width * channels])


def _each(planes: Planes, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Planes:
    red, green, blue = planes
    return change(red), change(green), change(blue)
