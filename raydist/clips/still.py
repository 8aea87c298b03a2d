"""Read one picture file as RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from raydist.errors import SourceError


def read_still(path: str) -> NDArray[np.uint8]:
    """The picture, turned as its metadata says, see-through parts white as on a page: uint8 [H, W, 3] RGB.

    Raises:
        SourceError: if it is missing, no picture, or larger than Pillow's limit for decompression bombs.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise SourceError("missing", f"{path!r} does not exist or is no file: expected a picture such as PNG or JPEG")
    try:
        with Image.open(file) as picture:
            return np.asarray(_rgb(ImageOps.exif_transpose(picture)))
    except UnidentifiedImageError as error:
        raise SourceError("not_a_video", f"{path!r} is no picture: expected PNG, JPEG, WebP or the like") from error
    except Image.DecompressionBombError as error:
        raise SourceError("too_large", f"{path!r}: {error}") from error
    except OSError as error:
        raise SourceError("unreadable", f"{path!r} cannot be read: {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # Pillow would cut greys of 16 bits off at 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture.convert("RGBA"))
    return page.convert("RGB")
