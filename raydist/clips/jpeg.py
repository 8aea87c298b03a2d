"""jpeg: one frame as a JPEG file, as providers of captions and trainers take it."""

# Shape legend: H height, W width, C = 3 colours

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 85
"""Where a picture of video, which lost its finest detail already, is not to be told from the frame."""


def jpeg(frame_HWC: NDArray[np.uint8], quality: int = QUALITY) -> bytes:
    """A frame as the bytes of a JPEG file.

    Args:
        frame_HWC: uint8 [H, W, 3] RGB.
        quality: 1 to 95, of libjpeg's scale.
    """
    file = io.BytesIO()
    Image.fromarray(frame_HWC).save(file, "JPEG", quality=quality)
    return file.getvalue()
