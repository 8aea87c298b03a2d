"""source: the one place that opens a source.

Reads     a local path (`str`; bytes that are not UTF-8 as surrogate escapes), or an address: `s3://`, `gs://`, `http(s)://`
Gives     a seekable binary file object, its size and time, a fingerprint, and what the content refuses to be
Promises  only regular files are opened, nothing blocks on a FIFO, and no name is taken for a protocol: decoders get
          the file object, never the name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from raydist import address
from raydist.clips.remote import Meter, open_remote
from raydist.errors import SourceError
from raydist.records import Remote

FINGERPRINT_BYTES = 64 << 10
"""How much of the head and of the tail of a file enters its fingerprint."""

PLAIN_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,kux,asf,ogg,nut,mxf,gxf,wtv,ivf,"
    "rm,dv,nsv,nuv,av1,obu,h261,h263,h264,hevc,vvc,evc,m4v,mjpeg,smjpeg,mpjpeg,vc1,vc1test,dirac,dnxhd,cavsvideo,avs2,avs3,apng,gif,"
    "yuv4mpegpipe,bink,smk,roq,flic,amv,swf,3dostr,4xm,wc3movie,vmd,film_cpk,lxf,pva,ty,mv,moflex,"
    "wav,w64,mp3,aac,ac3,eac3,dts,dtshd,flac,aiff,au,caf,amr,amrnb,amrwb,ape,tta,wv,oma,loas,latm,truehd,mlp,voc,"
    "srt,ass,webvtt"
)
"""FFmpeg demuxers that read one file and nothing else. Sound and subtitles are here so that a file of these is told
apart from one that is no medium at all. Play lists, devices, pictures and `tty` are not."""

_SNIFF_BYTES = 64 << 10
_PLAY_LISTS = (
    b"#extm3u",
    b"ffconcat version",
    b"v=0\n",
    b"v=0\r\n",
    b"rtsptext",
    b"[playlist]",
    b"[reference]",
    b"<asx",
)
_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURES = (
    b"\xff\xd8\xff",
    b"II*\0",
    b"MM\0*",
    b"8BPS",
    b"qoif",
    b"\xff\x0a",
    b"\0\0\0\x0cJXL ",
    b"\x76\x2f\x31\x01",
)
_PICTURE_BRANDS = (b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"jp2 ", b"jpx ")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStat:
    """What the file system says without opening."""

    bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An open source."""

    location: str
    bytes: int
    modified_ns: int
    file: BinaryIO
    """Seekable; closed when the `with` block ends."""
    is_remote: bool = False
    meter: Meter = field(default_factory=Meter)
    """What was asked of a server so far; a file on a disk does not count."""
    expect: Callable[[int, int], None] = lambda start, end: None
    """Say that reading will go from one place to another and no further."""
    check: Callable[[], None] = lambda: None
    """Raises a SourceError where what was read from a server is not to be trusted: a failure that a decoder may have
    passed over, or the object was replaced meanwhile. To be called before a result is given."""


def stat_source(location: str) -> SourceStat:
    """Size and time of a source, without opening it.

    Raises:
        SourceError: missing, not_a_file, unreadable or empty.
    """
    try:
        found = os.stat(location)
    except (OSError, ValueError) as error:
        raise _stat_error(location, error) from error
    return _regular(location, found)


@contextmanager
def open_source(
    location: str, remote: Remote | None = None, waits: Callable[[float], None] = lambda seconds: None
) -> Iterator[Source]:
    """Open a source for reading.

    Args:
        location: a path or an address.
        remote: how a server is asked.
        waits: told how many seconds asking a server may take, before it begins.

    Raises:
        SourceError: missing, not_a_file, unreadable or empty; of a server also forbidden and too_large; changed, at
            the end, if it is not what was opened any more. Then that is also the reason for what went wrong with it
            meanwhile.
    """
    if address.is_address(location):
        with open_remote(location, remote or Remote(), waits) as found:
            yield Source(
                location=location,
                bytes=found.bytes,
                modified_ns=found.modified_ns,
                file=found.file,
                is_remote=True,
                meter=found.meter,
                expect=found.expect,
                check=found.check,
            )
            found.check()
        return
    stat_source(location)  # before opening: open() on a device can have effects
    try:
        # O_NONBLOCK: a FIFO put in the file's place since the look above must not block.
        descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _stat_error(location, error) from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        known = _regular(location, os.fstat(descriptor))
        source = Source(location=location, bytes=known.bytes, modified_ns=known.modified_ns, file=file)
        try:
            yield source
        except SourceError:
            refuse_change(source)
            raise
        refuse_change(source)


def refuse_change(source: Source) -> None:
    """Refuse a file that was written to, cut or replaced since it was opened: frames of it may be of two files.

    Raises:
        SourceError: changed; of a server also why reading failed, where a decoder passed over it.
    """
    if source.is_remote:
        source.check()
        return
    held = os.fstat(source.file.fileno())
    how = ""
    if held.st_size != source.bytes:
        how = f"went from {source.bytes:,} to {held.st_size:,} bytes"
    elif held.st_mtime_ns != source.modified_ns:
        how = "was written to"
    else:
        with suppress(OSError):  # removed: what is held is whole
            if not os.path.samestat(held, os.stat(source.location)):
                how = "was replaced"
    if how:
        raise SourceError(
            "changed",
            f"{shown(source.location)} {how} while it was read; when nothing writes to it, run `raydist scan` again, "
            "and `raydist embed --retry-failed` for a file with the same bytes as before",
        )


def file_fingerprint(source: Source) -> str:
    """Size and blake2b of the first and last 64 KiB, as 32 hex digits; moving or touching a file changes nothing.

    Raises:
        SourceError: unreadable.
    """
    digest = hashlib.blake2b(source.bytes.to_bytes(8, "little"), digest_size=16)
    digest.update(read_at(source, 0, FINGERPRINT_BYTES))
    digest.update(read_at(source, max(0, source.bytes - FINGERPRINT_BYTES), FINGERPRINT_BYTES))
    return digest.hexdigest()


def read_at(source: Source, offset: int, length: int) -> bytes:
    """Up to `length` bytes from `offset`; leaves the file at its start.

    Raises:
        SourceError: unreadable.
    """
    try:
        source.file.seek(offset)
        data = source.file.read(length)
        source.file.seek(0)
    except OSError as error:
        raise SourceError("unreadable", f"{shown(source.location)}: {error.strerror}") from error
    return data


def refuse_formats(source: Source, pixels: int) -> None:
    """Refuse what a media library would open but what is no video: play lists, pictures, painted text.

    The content decides, not the name. A GIF or an animated PNG is a video, of however few frames; every other picture
    is not, whatever its suffix.

    Raises:
        SourceError: picture, refused_format, no_video_stream (a drawing), or too_large (a PNG of more than `pixels`,
            which nobody should open to see what it shows).
    """
    head = read_at(source, 0, _SNIFF_BYTES)
    if _is_picture(head, source.bytes):
        if head.startswith(_PNG):
            refuse_size(source, int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"), pixels)
        raise SourceError("picture", f"{shown(source.location)} is a still picture by its content, not a video")
    text = _text(head)
    if text.startswith(b"<") and b"<svg" in text:
        raise SourceError("no_video_stream", f"{shown(source.location)} is an SVG drawing, which holds no video stream")
    kind = _pointer(text) or _terminal_text(head)
    if kind:
        raise SourceError("refused_format", f"{shown(source.location)} is {kind} by its content, not a video")


def refuse_size(source: Source, width: int, height: int, pixels: int) -> None:
    """Refuse pictures beyond the limit.

    Raises:
        SourceError: too_large.
    """
    if width * height > pixels:
        raise SourceError(
            "too_large",
            f"{shown(source.location)} has pictures of {width} x {height}; the limit is {pixels:,} pixels. If the file "
            "is sound, raise decode.megapixels and decode.memory_mb",
        )


def shown(location: str) -> str:
    """A location for a message: printable, whatever bytes the name has, and without secrets."""
    if address.is_address(location):
        location = address.public(location)
    text = os.fsencode(location).decode("utf-8", "backslashreplace")
    return "'" + "".join(char if char.isprintable() else repr(char)[1:-1] for char in text) + "'"


def _text(head: bytes) -> bytes:
    return head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()


def _pointer(text: bytes) -> str:
    markup = text.startswith(b"<") and any(tag in text for tag in (b"<mpd", b"<smil"))
    return "a play list or another pointer to other files" if markup or text.startswith(_PLAY_LISTS) else ""


def _is_picture(head: bytes, size: int) -> bool:
    bitmap = head[:2] == b"BM" and int.from_bytes(head[2:6], "little") == size
    png = head.startswith(_PNG) and b"acTL" not in head
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP" and not (head[12:16] == b"VP8X" and head[20] & 2)
    brand = head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS
    return bitmap or png or webp or brand or head.startswith(_PICTURES)


def _terminal_text(head: bytes) -> str:
    # FFmpeg's tty demuxer paints text with ANSI colour codes as a video.
    if b"\x1b[" in head and b"\0" not in head:
        return "terminal text"
    return ""


def _regular(location: str, found: os.stat_result) -> SourceStat:
    if not stat.S_ISREG(found.st_mode):
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "FIFO, socket or device"
        raise SourceError("not_a_file", f"{shown(location)} is a {kind}; expected a regular file")
    if found.st_size == 0:
        raise SourceError("empty", f"{shown(location)} has no bytes")
    return SourceStat(bytes=found.st_size, modified_ns=found.st_mtime_ns)


def _stat_error(location: str, error: OSError | ValueError) -> SourceError:
    number = error.errno if isinstance(error, OSError) else errno.ENOENT
    if number == errno.ENOENT and os.path.lexists(location.replace("\0", "?")):
        return SourceError("not_a_file", f"{shown(location)} is a link to nothing")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return SourceError("missing", address.not_read(location) or f"{shown(location)} does not exist")
    if number in (errno.ELOOP, errno.ENXIO):
        return SourceError("not_a_file", f"{shown(location)}: {error}; expected a regular file")
    return SourceError("unreadable", f"{shown(location)}: {os.strerror(number or errno.EIO)}")
