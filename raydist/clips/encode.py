"""encode: pictures with their times to a small mp4."""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

_QUALITIES = (26, 32, 38, 44, 51)
"""Of x264 (its constant rate factor): the next where a clip is larger than it may be."""
LONGEST_S = 86_400
"""A picture stays for a day at most: mp4 counts the ticks of one in 32 bits."""
_TICK = Fraction(1, 1000)


def small_mp4(
    pictures: Sequence[NDArray[np.uint8]], times_ms: Sequence[int], end_ms: int, rate: int, max_bytes: int
) -> bytes | None:
    """H.264 in mp4, the first picture at 0; None where it cannot be made as small as it has to be.

    Args:
        pictures: uint8 [H, W, C] RGB, of one size with even edges.
        times_ms: of each, rising.
        end_ms: until then the last picture stays.
        rate: pictures a second, about.
        max_bytes: of the result.
    """
    ends_ms = [*times_ms[1:], max(end_ms, times_ms[-1] + 1)]
    stays_ms = [min(end - start, 1000 * LONGEST_S) for start, end in zip(times_ms, ends_ms, strict=True)]
    frames = [_frame(picture, time_ms - times_ms[0]) for picture, time_ms in zip(pictures, times_ms, strict=True)]
    for quality in _QUALITIES:
        data = _mp4(frames, stays_ms, rate, quality)
        if len(data) <= max_bytes:
            return data
    return None


def even(picture_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture with even edges, as H.264 wants them: without the last row or column, or with one twice."""
    height, width = picture_HWC.shape[:2]
    if height > 1 and width > 1:
        return np.ascontiguousarray(picture_HWC[: height & ~1, : width & ~1])
    return np.pad(picture_HWC, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _frame(picture_HWC: NDArray[np.uint8], time_ms: int) -> VideoFrame:
    coloured = VideoFrame.from_ndarray(picture_HWC, format="rgb24")
    frame = coloured.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, threads=1)
    frame.pts, frame.time_base = time_ms, _TICK
    return frame


def _mp4(frames: Sequence[VideoFrame], stays_ms: Sequence[int], rate: int, quality: int) -> bytes:
    file = io.BytesIO()
    # Without B-frames packets come in the order of their times, and the file needs no edit list to begin at 0.
    options = {"preset": "veryfast", "crf": str(quality), "bf": "0", "threads": "1"}
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        encoder = stream.codec_context
        encoder.time_base = _TICK
        encoder.thread_count = 1
        encoder.colorspace, encoder.color_range = Colorspace.SMPTE170M, ColorRange.MPEG
        encoder.color_primaries, encoder.color_trc = ColorPrimaries.SMPTE170M, ColorTrc.SMPTE170M
        stays = iter(stays_ms)
        for frame in (*frames, None):
            for packet in stream.encode(frame):
                packet.duration = next(stays)
                container.mux(packet)
    return file.getvalue()
