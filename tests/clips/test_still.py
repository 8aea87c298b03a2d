"""Picture files show what a viewer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raydist.clips.still import read_still


def test_greys_of_16_bits_keep_their_shades(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert np.array_equal(read_still(str(tmp_path / "ramp.png"))[0, :, 1], np.arange(256))


def test_see_through_parts_are_white(tmp_path: Path) -> None:
    pixels = np.full((4, 6, 4), (200, 10, 90, 255), dtype=np.uint8)
    pixels[:, 2:4, 3], pixels[:, 4:, 3] = 0, 51
    Image.fromarray(pixels).save(tmp_path / "logo.png")
    assert read_still(str(tmp_path / "logo.png"))[0, ::2].tolist() == [[200, 10, 90], [255, 255, 255], [244, 206, 222]]


def test_see_through_parts_of_a_palette_are_white(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 10, 90])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "logo.gif", transparency=1)
    shown = read_still(str(tmp_path / "logo.gif"))
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[3, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 24, 3), dtype=np.uint8)
    upright[:8, :8] = 255
    # What a camera stores so that this orientation turns it back (Exif 2.3, tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(read_still(str(tmp_path / "photo.png")), upright)
