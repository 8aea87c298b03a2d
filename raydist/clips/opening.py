"""opening: from a source to its video stream and a decoder for it.

Reads     a `Source`; FFmpeg gets the file object, plain formats only
Gives     the container, the first stream that is a video, and one decoder without threads; all other streams discarded
Promises  declared sizes are checked before anything is decoded; every error is a SourceError with its reason
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from raydist.clips.source import PLAIN_FORMATS, Source, refuse_size, shown
from raydist.errors import SourceError
from raydist.records import LARGE_PIXELS, Limits

av.logging.set_level(None)  # PyAV's log callback can deadlock

Opened: TypeAlias = tuple[InputContainer, VideoStream, VideoCodecContext]

_QUICK_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
_QUICK_CODECS = frozenset({"hevc", "vp8", "vp9", "av1", "h264"})
_QUICK = {"codec_whitelist": "none", "probesize": "32", "formatprobesize": str(1 << 20)}
"""No decoder for the guesses that FFmpeg makes when it opens a file: its first picture is as dear as several later."""

_ENTRY_BYTES = 64
"""For a frame, while FFmpeg builds the index of an mp4: the entry, its copy for an edit list, its times."""
_INDEX_SHARE = 16
"""An honest index takes less than this many times the bytes of its file."""


def open_stream(source: Source, limits: Limits, *, quick: bool = False) -> Opened:
    """Open the first video stream.

    Raises:
        SourceError: not_a_video, no_video_stream, encrypted, too_large or unreadable.
    """
    container = _open(source, limits, quick=quick)
    try:
        if quick and not _says_enough(container, limits):
            container.close()
            container = _open(source, limits, quick=False)
        stream = _video_stream(container, shown(source.location))
        decoder = stream.codec_context
        refuse_size(source, decoder.width, decoder.height, limits.pixels)
        _refuse_index(source, stream, limits)
    except SourceError:
        container.close()
        raise
    _set_threads(decoder, limits)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return container, stream, decoder


def _open(source: Source, limits: Limits, *, quick: bool) -> InputContainer:
    name = shown(source.location)
    source.file.seek(0)
    try:
        return av.open(
            source.file,
            "r",
            container_options={"format_whitelist": PLAIN_FORMATS} | (_QUICK if quick else {}),
            metadata_errors="replace",
            hwaccel=HWAccel(limits.hwaccel, allow_software_fallback=True) if limits.hwaccel else None,
        )
    except MemoryError as error:
        if source.bytes * _INDEX_SHARE < limits.memory_bytes:
            # FFmpeg says so of tables and streams beyond its own bounds, too.
            why = f"its header claims more than {source.bytes:,} bytes can hold"
            raise SourceError("not_a_video", f"{name} is in no order that can be read: {why}") from error
        raise SourceError("too_large", f"{name}: its index does not fit into memory") from error
    except FFmpegError as error:
        if limits.hwaccel:  # there may be no such device: without it the file tells whether it is at fault
            return _open(source, replace(limits, hwaccel=""), quick=quick)
        raise SourceError(
            "not_a_video", f"{name} is in no video format that raydist knows ({error.strerror})"
        ) from error
    except OSError as error:
        raise SourceError("unreadable", f"{name}: {error.strerror}") from error


def _refuse_index(source: Source, stream: VideoStream, limits: Limits) -> None:
    """Refuse a table of frames that did not fit: FFmpeg goes on without one, as if there were no frame."""
    need = stream.frames * _ENTRY_BYTES
    if need > limits.memory_bytes and "mp4" in stream.container.format.name and not len(stream.index_entries):
        raise SourceError(
            "too_large",
            f"{shown(source.location)} declares {stream.frames:,} frames, whose index alone may take {need:,} bytes; "
            f"the limit is {limits.memory_bytes:,}. If the file is sound, raise decode.memory_mb",
        )


def _says_enough(container: InputContainer, limits: Limits) -> bool:
    """Whether a decoder that starts on what the container says gives what one with a look at the pictures gives.

    The question is how many pictures it holds back: of H.264 only a stream that says so itself can do without a look.
    """
    if container.format.name not in _QUICK_FORMATS:
        return False
    stream = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
    decoder = stream.codec_context if stream is not None else None
    if stream is None or decoder is None or not decoder.width or not stream.average_rate:
        return False
    codec = decoder.codec.canonical_name
    if codec != "h264":
        return codec in _QUICK_CODECS
    _set_threads(decoder, limits)
    try:
        decoder.open(strict=False)
    except FFmpegError:
        return False
    return bool(decoder.extradata) and decoder.reorder_depth > 0


def _set_threads(decoder: VideoCodecContext, limits: Limits) -> None:
    """None but for large pictures: threads lose frames of damaged files, and clips are decoded side by side anyway."""
    if decoder.is_open:
        return
    is_large = limits.threads > 1 and decoder.width * decoder.height >= LARGE_PIXELS
    decoder.thread_count = limits.threads if is_large else 1
    decoder.thread_type = "FRAME" if is_large else "NONE"


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise SourceError("no_video_stream", f"{name} has a video stream in a codec that this FFmpeg does not know")
        if stream.codec_context.codec_tag in ("encv", "drmi"):
            raise SourceError("encrypted", f"{name} is encrypted ({stream.codec_context.codec_tag})")
        return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise SourceError("no_video_stream", f"{name} ({container.format.name}) has no video stream; it holds {kinds}")
