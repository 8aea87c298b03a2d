"""Files that point at other files or at servers: whatever they say, no file but the named one is opened, and no server
is asked. Seen from outside: by the kernel's notices of opened files, by a listening socket, and by strace where it is.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import pytest
from videos import encode

from raydist.clips.child import Child
from raydist.errors import SourceError
from raydist.records import Span

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sees opened files through Linux's inotify")

_IN_OPEN = 0x20
_LOOK = """
    import sys
    from raydist.clips.decode import decode_spans, probe
    from raydist.errors import SourceError
    from raydist.records import Span

    def look(path):
        try:
            probe(path)
        except SourceError:
            pass
        try:
            list(decode_spans(path, [Span(start_ms=0, end_ms=30_000)]))
        except SourceError:
            pass

    look(sys.argv[1])  # whatever is loaded on first use
    open("/dev/null").close()  # from here on
    for path in sys.argv[2:]:
        look(path)
"""


class Notices:
    """Names of the files of one folder that any process opened."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._libc.inotify_add_watch(self._queue, os.fsencode(folder), _IN_OPEN) > 0

    def opened(self) -> set[str]:
        """Since the last call."""
        names = set()
        with suppress(BlockingIOError):
            while data := os.read(self._queue, 1 << 16):
                while data:
                    _, _, _, size = struct.unpack_from("iIII", data)
                    names.add(os.fsdecode(data[16 : 16 + size].rstrip(b"\0")))
                    data = data[16 + size :]
        return names

    def close(self) -> None:
        """Stop watching."""
        os.close(self._queue)


@contextmanager
def watching(folder: Path) -> Iterator[Notices]:
    notices = Notices(folder)
    try:
        yield notices
    finally:
        notices.close()


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        size = struct.unpack_from(">I", data)[0]
        yield data[4:8], data[8:size]
        data = data[size:]


def alias(target: Path) -> bytes:
    """A QuickTime alias record, as a data reference that holds the absolute path of another file."""
    name, path = os.fsencode(target.name), os.fsencode(target)
    record = bytes(10) + b"\x01x".ljust(28, b"\0") + bytes(12) + (bytes([len(name)]) + name).ljust(64, b"\0")
    record += bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    record += struct.pack(">HH", 2, len(path)) + path + b"\0" * (len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    return struct.pack(">II", 0, 1) + box(b"alis", bytes(4), record.ljust(200, b"\0"))


def elsewhere(data: bytes, reference: bytes) -> bytes:
    """Boxes of an mp4 with its data reference replaced, and without its data."""
    inner = (b"moov", b"trak", b"mdia", b"minf", b"dinf")
    out = b""
    for kind, content in boxes(data):
        if kind == b"dref":
            out += box(kind, reference)
        elif kind in inner:
            out += box(kind, elsewhere(content, reference))
        elif kind not in (b"mdat", b"free"):
            out += box(kind, content)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("elsewhere")
    encode(made / "target.mp4", count=30)
    encode(made / "target.ts", count=30)
    return made


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def pointers(folder: Path, port: int) -> dict[str, bytes]:
    """Name -> content of files that point at the target, or at a server."""
    target, url = folder / "target.ts", f"http://127.0.0.1:{port}/a.ts"
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
    moov = (folder / "target.mp4").read_bytes()
    self_contained = struct.pack(">II", 0, 1)
    texts = {
        "concat.ffconcat": "ffconcat version 1.0\nfile target.ts\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{target}'\n",
        "hls.m3u8": hls.format("target.ts"),
        "hls.mp4": hls.format(target),
        "hls-file.mp4": hls.format(f"file://{target}"),
        "hls-url.mp4": hls.format(url),
        "hls-key.mp4": hls.format("target.ts").replace("#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF'),
        "dash.mp4": f'<?xml version="1.0"?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>',
        "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "redirect.mov": f"RTSPtextrtsp://127.0.0.1:{port}/a",
        "smil.mp4": f'<smil><body><video src="{url}"/></body></smil>',
        "late.mp4": "\n" * 5000 + hls.format(target),
    }
    return {
        **{name: text.encode() for name, text in texts.items()},
        "alias.mov": elsewhere(moov, alias(folder / "target.mp4")),
        "url.mov": elsewhere(moov, self_contained + box(b"url ", bytes(4), f"file://{target}".encode() + b"\0")),
        "url-server.mov": elsewhere(moov, self_contained + box(b"url ", bytes(4), url.encode() + b"\0")),
    }


def asked(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_only_the_named_file_is_opened_and_no_server_is_asked(folder: Path, server: socket.socket) -> None:
    with Child() as child:
        child.probe(str(folder / "target.ts"))
        for name, content in pointers(folder, server.getsockname()[1]).items():
            path = folder / name
            path.write_bytes(content)
            with watching(folder) as notices:
                with pytest.raises(SourceError) as caught:
                    child.probe(str(path))
                clips = list(
                    child.decode(str(path), [Span(start_ms=0, end_ms=2000)], frames=8, size_px=32, resize="viclip")
                )
                assert notices.opened() == {name}
            assert caught.value.reason in ("refused_format", "not_a_video", "no_frames"), name
            assert [clip.frames for clip in clips] == [None], name
            assert not asked(server), name


def test_the_traps_are_real(folder: Path, server: socket.socket) -> None:
    """What FFmpeg does with them when nobody forbids it: else the test above would show nothing."""
    made = pointers(folder, server.getsockname()[1])
    for name, options in (
        ("concat.ffconcat", {}),
        ("hls.m3u8", {}),
        ("alias.mov", {"enable_drefs": "1", "use_absolute_path": "1"}),
    ):
        path = folder / name
        path.write_bytes(made[name])
        with watching(folder) as notices:
            with av.open(str(path), options=options) as container:
                frames = sum(1 for _ in container.decode(video=0))
            assert len(notices.opened()) == 2, name
        assert frames == 30, name


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_calls_of_decoding_name_no_other_file(folder: Path, server: socket.socket, tmp_path: Path) -> None:
    paths = []
    for name, content in pointers(folder, server.getsockname()[1]).items():
        (folder / name).write_bytes(content)
        paths.append(str(folder / name))
    log = tmp_path / "log"
    command = ["strace", "-f", "-qq", "-e", "trace=open,openat,openat2,socket,connect,execve", "-o", str(log)]
    traced = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(_LOOK), str(folder / "target.mp4"), *paths], check=False
    )
    if traced.returncode and "ptrace" in log.read_text():
        pytest.skip("this machine forbids tracing")
    assert traced.returncode == 0
    calls = log.read_text().split('"/dev/null"', 1)[1]
    assert not re.search(r"\b(socket|connect|execve)\(", calls)
    assert set(re.findall(r'open\w*\([^"]*"(.*?)"', calls)) == set(paths)
