"""What a person would see: files of many kinds, compared with the picture that was drawn into them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image
from videos import X264, encode, full_decode, rotate, usual_priority

from raydist.clips.decode import decode_clip, decode_spans
from raydist.clips.picture import Converter, is_mirrored, rotation
from raydist.records import Span

# Shape legend: H height, W width, C = 3 colours or 4 channels

X265 = {"preset": "ultrafast", "crf": "16", "x265-params": "log-level=none:pools=none"}
VP9 = {"cpu-used": "8", "deadline": "realtime", "crf": "16", "b": "0", "threads": "1"}
INTERLACED_X264 = {**X264, "crf": "16", "x264-params": "tff=1:interlaced=1"}
INTERLACED_MPEG2 = {"flags": "+ilme+ildct", "b": "4M"}


def drawn(width: int, height: int, brightest: int = 230) -> NDArray[np.uint8]:
    """Coloured fields [H, W, 3] that shade into each other; every corner is another one."""
    fields = np.random.default_rng(7).integers(20, brightest, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(fields).resize((width, height), Image.Resampling.BILINEAR))


def film(
    path: Path,
    frames: list[VideoFrame],
    codec: str,
    options: Mapping[str, str] | None = None,
    pixel_aspect: Fraction | None = None,
    start: int = 0,
) -> Path:
    """Encode frames; format, range and colours are those of the first."""
    with usual_priority(), av.open(str(path), "w") as container:
        first = frames[0]
        stream = container.add_stream(codec, rate=25, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, first.format.name
        context = stream.codec_context
        context.color_range, context.colorspace = first.color_range, first.colorspace
        context.color_trc, context.color_primaries = first.color_trc, first.color_primaries
        if pixel_aspect is not None:
            context.sample_aspect_ratio = pixel_aspect
        for number, frame in enumerate(frames, start):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def in_format(rgb_HWC: NDArray[np.uint8], name: str) -> VideoFrame:
    """A picture in any format, BT.601 and limited range where it is YUV."""
    frame = VideoFrame.from_ndarray(rgb_HWC, format="rgb24" if rgb_HWC.shape[2] == 3 else "rgba")
    changed = VideoReformatter().reformat(
        frame,
        format=name,
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG if name.startswith("yuvj") else None,
        interpolation="BICUBIC",
        threads=1,  # several leave strips of another picture
    )
    if "yuv" not in name:
        changed.colorspace, changed.color_range = 2, 2 if name == "gray" else 0
    return changed


def shown(path: Path, size: int | None = None, resize: str = "viclip") -> NDArray[np.int16]:
    return decode_clip(path, frames=1, size=size, resize=resize)[0].astype(np.int16)


# What, codec, suffix, format, options, mean error in levels
KINDS: dict[str, tuple[str, str, str, Mapping[str, str], float]] = {
    "interlaced h264": ("libx264", "mp4", "yuv420p", INTERLACED_X264, 2),
    "interlaced mpeg2": ("mpeg2video", "ts", "yuv420p", INTERLACED_MPEG2, 2),
    "h264 of 10 bits": ("libx264", "mp4", "yuv420p10le", {**X264, "crf": "16"}, 2),
    "h264 4:2:2 of 10 bits": ("libx264", "mkv", "yuv422p10le", {**X264, "crf": "16"}, 2),
    "h264 4:4:4": ("libx264", "mp4", "yuv444p", {**X264, "crf": "16"}, 2),
    "h264 of full range": ("libx264", "mp4", "yuvj420p", {**X264, "crf": "16"}, 2),
    "h264 grey": ("libx264", "mp4", "gray", {**X264, "crf": "16"}, 2),
    "h264 rgb": ("libx264rgb", "mkv", "rgb24", {"preset": "ultrafast", "crf": "10"}, 2),
    "hevc of 10 bits": ("libx265", "mp4", "yuv420p10le", X265, 2),
    "hevc of 12 bits": ("libx265", "mkv", "yuv422p12le", X265, 2),
    "hevc gbr": ("libx265", "mkv", "gbrp", X265, 2),
    "vp9": ("libvpx-vp9", "webm", "yuv420p", VP9, 2),
    "vp9 4:4:0": ("libvpx-vp9", "webm", "yuv440p", VP9, 2),
    "av1 of 10 bits": ("libsvtav1", "mp4", "yuv420p10le", {"preset": "12", "crf": "20", "svtav1-params": "lp=1"}, 2),
    "prores": ("prores_ks", "mov", "yuv422p10le", {}, 2),
    "dv 4:1:1": ("dvvideo", "avi", "yuv411p", {}, 2),
    "motion jpeg": ("mjpeg", "avi", "yuvj422p", {"q:v": "2"}, 2),
    "huffyuv rgb": ("huffyuv", "avi", "rgb24", {}, 0),
    "ffv1 4:1:1": ("ffv1", "mkv", "yuv411p", {}, 2),
    "ffv1 4:1:0": ("ffv1", "mkv", "yuv410p", {}, 2),
    "ffv1 gbr of 10 bits": ("ffv1", "mkv", "gbrp10le", {}, 1),
    "ffv1 grey of 16 bits": ("ffv1", "mkv", "gray16le", {}, 1),
    "ffv1 rgb of 16 bits": ("ffv1", "mkv", "rgb48le", {}, 1),
    "png of 16 bits": ("png", "mov", "rgb48be", {}, 1),
    "raw rgb of 16 bits a pixel": ("rawvideo", "nut", "rgb565le", {}, 3.5),
    "raw palette": ("rawvideo", "nut", "pal8", {}, 1),
    "qtrle": ("qtrle", "mov", "rgb24", {}, 0),
    "gif": ("gif", "gif", "rgb8", {}, 20),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_is_the_one_that_was_drawn(tmp_path: Path, kind: str) -> None:
    codec, suffix, layout, options, tolerance = KINDS[kind]
    rgb_HWC = drawn(*((720, 480) if codec == "dvvideo" else (160, 96))).copy()
    if "gray" in layout:
        rgb_HWC = np.repeat(np.asarray(Image.fromarray(rgb_HWC).convert("L"))[..., None], 3, axis=2)
    frame = palette_frame(rgb_HWC) if layout == "pal8" else in_format(rgb_HWC, layout)
    path = film(tmp_path / f"film.{suffix}", [frame] * 3, codec, options)
    if kind.startswith("interlaced"):
        assert full_decode(path)[0].interlaced_frame
    difference = np.abs(shown(path) - rgb_HWC)
    assert difference.mean() <= tolerance, f"{difference.mean():.2f} levels"


def palette_frame(rgb_HWC: NDArray[np.uint8]) -> VideoFrame:
    """At most 256 colours: those of Pillow's palette, back in the given array too."""
    picture = Image.fromarray(rgb_HWC).quantize(64)
    rgb_HWC[:] = np.asarray(picture.convert("RGB"))
    entries = np.array(picture.getpalette(), dtype=np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), 255, dtype=np.uint8)
    palette[: len(entries), :3] = entries[:, ::-1]
    frame = VideoFrame(picture.width, picture.height, "pal8")
    lines = np.zeros((picture.height, frame.planes[0].line_size), dtype=np.uint8)
    lines[:, : picture.width] = np.asarray(picture)
    frame.planes[0].update(lines.tobytes())
    frame.planes[1].update(palette.tobytes())
    return frame


@pytest.mark.parametrize("layout", ["yuv420p", "yuv422p", "yuv444p10le", "gray", "yuva420p"])
@pytest.mark.parametrize("size", [(33, 17), (161, 121), (1, 1), (2, 3), (3, 2), (1, 40)])
def test_odd_sizes_are_shown_whole(tmp_path: Path, size: tuple[int, int], layout: str) -> None:
    rgb_HWC = np.full((size[1], size[0], 3), 120, dtype=np.uint8)
    rgb_HWC[:, : size[0] // 2] = 60
    path = film(tmp_path / "film.nut", [in_format(rgb_HWC, layout)] * 2, "rawvideo")
    difference = np.abs(shown(path) - rgb_HWC)
    assert difference.max() <= 3
    assert shown(path, 32).shape == shown(path, 32, "clip").shape == (32, 32, 3)


LUMA = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593)}
TAGS = {"BT.601": 6, "BT.709": 1, "BT.2020": 9}


def yuv_frame(value_HWC: NDArray[np.float64], matrix: str, *, full: bool, layout: str = "yuv444p") -> VideoFrame:
    """R'G'B' of 0 to 1 as YUV by the standard's own formula, not swscale's."""
    red, blue = LUMA[matrix]
    luma = value_HWC @ np.array([red, 1 - red - blue, blue])
    chroma = [(value_HWC[..., 2] - luma) / (2 - 2 * blue), (value_HWC[..., 0] - luma) / (2 - 2 * red)]
    unit = 4 if layout.endswith("10le") else 1
    scales = [255, 255] if full else [219, 224]
    planes = [luma * scales[0] + (0 if full else 16), *(part * scales[1] + 128 for part in chroma)]
    frame = VideoFrame(value_HWC.shape[1], value_HWC.shape[0], layout)
    kind = np.dtype("<u2") if unit == 4 else np.dtype("u1")
    for plane, values in zip(frame.planes, planes, strict=True):
        lines = np.zeros((plane.height, plane.line_size // kind.itemsize), dtype=kind)
        lines[:, : plane.width] = np.rint(values * unit)
        plane.update(lines.tobytes())
    frame.colorspace, frame.color_range = TAGS[matrix], 2 if full else 1
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", LUMA)
def test_colours_follow_the_matrix_and_the_range_that_the_file_states(tmp_path: Path, matrix: str, full: bool) -> None:
    rgb_HWC = drawn(160, 96)
    frame = yuv_frame(rgb_HWC / 255, matrix, full=full)
    path = film(tmp_path / "film.mp4", [frame] * 2, "libx264", {"preset": "ultrafast", "crf": "1"})
    assert np.abs(shown(path) - rgb_HWC).mean() <= 1.5


def test_hd_that_states_no_matrix_is_read_as_bt601_as_ffmpeg_does(tmp_path: Path) -> None:
    rgb_HWC = drawn(1280, 720)
    frame = yuv_frame(rgb_HWC / 255, "BT.601", full=False)
    frame.colorspace, frame.color_range = 2, 0
    path = film(tmp_path / "film.mp4", [frame] * 2, "libx264", {"preset": "ultrafast", "crf": "1"})
    assert np.abs(shown(path) - rgb_HWC).mean() <= 1.5


def hdr_values(rgb_HWC: NDArray[np.uint8], transfer: ColorTrc) -> NDArray[np.float64]:
    """sRGB, its white at 203 cd/m2, as BT.2020 in PQ or HLG (ITU-R BT.2100)."""
    value = rgb_HWC / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_wide = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    nits = 203 * light @ to_wide.T
    if transfer == ColorTrc.SMPTE2084:
        power = (nits / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    luminance = (nits / 1000) @ np.array([0.2627, 0.6780, 0.0593])
    scene = nits / 1000 * luminance[..., None] ** (1 / 1.2 - 1)
    low = np.sqrt(3 * scene)
    return np.where(scene <= 1 / 12, low, 0.17883277 * np.log(np.maximum(12 * scene, 1) - 0.28466892) + 0.55991073)


@pytest.mark.parametrize(("transfer", "tolerance"), [(ColorTrc.SMPTE2084, 3), (ColorTrc.ARIB_STD_B67, 8)])
def test_hdr_looks_as_its_sdr_version(tmp_path: Path, transfer: ColorTrc, tolerance: float) -> None:
    rgb_HWC = drawn(160, 96, brightest=170)  # brighter parts are compressed, to leave room for highlights
    frame = yuv_frame(hdr_values(rgb_HWC, transfer), "BT.2020", full=False, layout="yuv444p10le")
    frame.color_trc, frame.color_primaries = transfer, 9
    path = film(tmp_path / "film.mp4", [frame] * 2, "libx265", {**X265, "crf": "4"})
    assert np.abs(shown(path) - rgb_HWC).mean() <= tolerance
    small = np.asarray(Image.fromarray(rgb_HWC).resize((48, 48), Image.Resampling.BILINEAR))
    assert np.abs(shown(path, 48) - small).mean() <= tolerance + 1


@pytest.mark.parametrize(
    ("codec", "suffix", "layout"),
    [
        ("qtrle", "mov", "argb"),
        ("png", "mov", "rgba"),
        ("prores_ks", "mov", "yuva444p10le"),
        ("ffv1", "mkv", "yuva420p"),
        ("ffvhuff", "nut", "gbrap"),
    ],
)
def test_see_through_parts_are_on_black(tmp_path: Path, codec: str, suffix: str, layout: str) -> None:
    rgb_HWC = drawn(160, 96)
    alpha_HW = np.repeat(np.array([0, 128, 255, 255], dtype=np.uint8), 40)[None].repeat(96, axis=0)
    frame = in_format(np.dstack([rgb_HWC, alpha_HW]), layout)
    path = film(tmp_path / f"film.{suffix}", [frame] * 2, codec)
    assert np.abs(shown(path) - rgb_HWC * (alpha_HW[..., None] / 255)).mean() <= 2


def test_a_fourth_channel_that_nobody_filled_hides_nothing(tmp_path: Path) -> None:
    rgb_HWC = drawn(160, 96)
    frame = in_format(np.dstack([rgb_HWC, np.zeros_like(rgb_HWC[..., 0])]), "argb")
    assert np.array_equal(shown(film(tmp_path / "film.mov", [frame] * 2, "qtrle")), rgb_HWC)


def test_see_through_parts_of_a_gif_are_white_as_a_page(tmp_path: Path) -> None:
    picture = Image.fromarray(drawn(160, 96)).quantize(16)
    pixels = np.asarray(picture).copy()
    pixels[:, :80] = 200
    first = Image.fromarray(pixels, "P")
    first.putpalette((picture.getpalette() or []) + [9] * (768 - len(picture.getpalette() or [])))
    path = tmp_path / "film.gif"
    first.save(path, save_all=True, append_images=[first.rotate(180)], transparency=200, disposal=2, duration=40)
    assert np.all(shown(path)[:, :80] == 255)


def test_webm_alpha_that_ffmpeg_leaves_aside_shows_the_colours(tmp_path: Path) -> None:
    rgb_HWC = drawn(160, 96)
    frame = in_format(np.dstack([rgb_HWC, np.full_like(rgb_HWC[..., 0], 255)]), "yuva420p")
    path = film(tmp_path / "film.webm", [frame] * 3, "libvpx-vp9", {**VP9, "auto-alt-ref": "0"})
    assert np.abs(shown(path) - rgb_HWC).mean() <= 3


ROUND = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
FLIPPED = [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]


@pytest.mark.parametrize("matrix", ROUND + FLIPPED)
def test_a_frame_is_turned_and_mirrored_as_the_file_says(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    plain = encode(tmp_path / "plain.mp4", count=3)
    before = shown(plain)
    a, b, c, d = matrix
    y, x = np.indices(before.shape[:2])
    to_x, to_y = a * x + c * y, b * x + d * y
    after = np.empty_like(before if a else before.transpose(1, 0, 2))
    after[to_y - to_y.min(), to_x - to_x.min()] = before
    turned = rotate(plain, tmp_path / "turned.mp4", matrix)
    assert is_mirrored(full_decode(turned)[0]) == (matrix in FLIPPED)
    assert np.array_equal(shown(turned), after)


def test_an_odd_angle_becomes_the_nearest_right_one(tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mp4", count=3)
    angles = {}
    for degrees in (10, 40, 50, 100):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = rotate(plain, tmp_path / "turned.mp4", (cosine, sine, -sine, cosine))
        angles[degrees] = -rotation(full_decode(turned)[0]) % 360
    assert angles == {10: 0, 40: 0, 50: 90, 100: 90}


def test_a_matrix_of_zeros_changes_nothing(tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mp4", count=3)
    assert np.array_equal(shown(rotate(plain, tmp_path / "zeros.mp4", (0, 0, 0, 0))), shown(plain))


def with_pixels(tmp_path: Path, aspect: Fraction, name: str = "wide.mp4", start: int = 0) -> Path:
    frame = in_format(drawn(96, 64), "yuv420p")
    codec, options = ("mpeg2video", {"b": "2M"}) if name.endswith("ts") else ("libx264", X264)
    return film(tmp_path / name, [frame] * 3, codec, options, aspect, start)


@pytest.mark.parametrize("name", ["wide.mp4", "wide.mkv", "wide.ts", "wide.avi"])
def test_the_clip_rule_crops_the_shape_that_a_screen_shows(tmp_path: Path, name: str) -> None:
    aspect = Fraction(16, 9) * Fraction(64, 96)  # shown as 16:9
    path = with_pixels(tmp_path, aspect, name)
    coded = Image.fromarray(shown(path).astype(np.uint8))
    wide = coded.resize((int(48 * 16 / 9), 48), Image.Resampling.BICUBIC)
    left = (wide.width - 48) // 2
    assert np.array_equal(shown(path, 48, "clip"), np.asarray(wide.crop((left, 0, left + 48, 48))))


def test_the_shape_of_pixels_turns_with_the_frame(tmp_path: Path) -> None:
    path = with_pixels(tmp_path, Fraction(2))
    turned = rotate(path, tmp_path / "turned.mp4")
    coded = Image.fromarray(shown(turned).astype(np.uint8))
    tall = coded.resize((48, 144), Image.Resampling.BICUBIC)  # 64 x 96 pixels that are twice as high as wide
    assert np.array_equal(shown(turned, 48, "clip"), np.asarray(tall.crop((0, 48, 48, 96))))


@pytest.mark.parametrize("rule", ["viclip", "squash-bicubic", "squash-bilinear"])
def test_squashing_does_not_depend_on_the_shape_of_pixels(tmp_path: Path, rule: str) -> None:
    square, wide = (with_pixels(tmp_path, Fraction(n), f"{n}.mp4") for n in (1, 2))
    assert np.array_equal(shown(square, 48, rule), shown(wide, 48, rule))
    assert np.array_equal(shown(square), shown(wide))


@pytest.mark.parametrize("aspect", [Fraction(17), Fraction(1, 17), Fraction(255, 1)])
def test_nonsense_about_pixels_is_not_heard(tmp_path: Path, aspect: Fraction) -> None:
    said, square = with_pixels(tmp_path, aspect, "said.mp4"), with_pixels(tmp_path, Fraction(1), "square.mp4")
    assert np.array_equal(shown(said, 48, "clip"), shown(square, 48, "clip"))


def test_a_broadcast_may_change_its_shape_on_the_way(tmp_path: Path) -> None:
    shapes = Fraction(8, 9), Fraction(32, 27)
    parts = [with_pixels(tmp_path, aspect, f"{n}.ts", 3 * n) for n, aspect in enumerate(shapes)]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    (clip,) = decode_spans(str(both), [Span(start_ms=0, end_ms=1000)], frames=6, size_px=48, resize="clip")
    assert clip.frames is not None
    assert np.array_equal(clip.frames[1], shown(parts[0], 48, "clip"))
    assert np.array_equal(clip.frames[4], shown(parts[1], 48, "clip"))


def test_a_format_that_swscale_does_not_read_gives_no_picture() -> None:
    assert Converter(32, "viclip")(VideoFrame(16, 16, "gray32le")) is None


@pytest.mark.parametrize(
    "layout", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "p010le", "gray"]
)
@pytest.mark.parametrize("size", [(160, 96), (162, 98), (427, 240), (33, 17), (3, 2), (1, 1)])
def test_planes_hold_the_values_of_interleaved_rgb(layout: str, size: tuple[int, int]) -> None:
    frame = VideoFrame(*size, layout)
    for plane in frame.planes:
        plane.update(np.random.default_rng(5).integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
    flags = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
    plain = VideoReformatter().reformat(frame, format="rgb24", interpolation=flags, threads=1).to_ndarray()
    picture = Converter(None, "viclip")(frame)
    assert picture is not None
    assert np.array_equal(picture.pixels, plain)
