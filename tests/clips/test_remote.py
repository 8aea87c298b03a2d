"""Files on servers: read by ranges, tried again, and every failure with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from loopback import Loopback
from stores import fill
from videos import encode

from raydist import address
from raydist.clips.child import Child
from raydist.clips.decode import decode_clip, decode_spans, probe
from raydist.clips.source import file_fingerprint, open_source
from raydist.errors import SourceError
from raydist.records import DecodedClip, Limits, Remote, Span

QUICK = Remote(connect_s=2, read_s=0.5, tries=3)
SPANS = [Span(start_ms=0, end_ms=2000), Span(start_ms=2000, end_ms=4000)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"preset": "ultrafast", "crf": "12", "g": "25", "bf": "2", "threads": "1"}
    return encode(tmp_path_factory.mktemp("remote") / "a.mp4", count=100, size=(320, 192), options=options)


@pytest.fixture
def web(video: Path) -> Iterator[Loopback]:
    with Loopback({"/a.mp4": video.read_bytes()}) as server:
        yield server


@pytest.fixture(scope="module")
def moto(moto: int, video: Path) -> int:
    fill(moto, "films", {"talks/a b#1%.mp4": video, "talks/a.mp4": video, "empty.mp4": b"", "note.mp4": b"text"})
    return moto


def decode(location: str, remote: Remote = QUICK, spans: list[Span] = SPANS) -> list[DecodedClip]:
    return list(decode_spans(location, spans, limits=Limits(remote=remote)))


def reason(location: str, remote: Remote = QUICK) -> tuple[str, str]:
    with pytest.raises(SourceError) as caught:
        probe(location, Limits(remote=remote))
    return caught.value.reason, caught.value.detail


def same(clips: list[DecodedClip], video: Path) -> bool:
    local = decode(str(video))
    return all(np.array_equal(one.frames, other.frames) for one, other in zip(clips, local, strict=True))


def test_the_frames_from_a_web_server_are_those_of_the_file(web: Loopback, video: Path) -> None:
    clips = decode(f"{web.url}/a.mp4")
    assert same(clips, video)
    assert sum(clip.bytes_read for clip in clips) == web.sent
    assert 0 < web.sent <= 1.2 * video.stat().st_size
    assert decode(str(video))[0].bytes_read == 0


def test_the_frames_from_a_bucket_are_those_of_the_file(s3: Loopback, video: Path) -> None:
    assert same(decode("s3://films/talks/a b#1%.mp4"), video)
    frames = decode_clip("s3://films/talks/a.mp4", 0, 2)
    assert np.array_equal(frames, decode_clip(video, 0, 2))


def test_a_probe_and_the_fingerprint_are_those_of_the_file(web: Loopback, s3: Loopback, video: Path) -> None:
    local = probe(str(video))
    assert probe(f"{web.url}/a.mp4") == local == probe("s3://films/talks/a.mp4")
    fingerprints = set()
    for location in (str(video), f"{web.url}/a.mp4", "s3://films/talks/a.mp4"):
        with open_source(location) as source:
            fingerprints.add(file_fingerprint(source))
    assert fingerprints == {local.file_fingerprint}


@pytest.mark.parametrize("fault", ["status", "reset", "half", "stall"])
def test_what_passes_is_tried_again(web: Loopback, s3: Loopback, video: Path, fault: str) -> None:
    for server, location in ((web, f"{web.url}/a.mp4"), (s3, "s3://films/talks/a.mp4")):
        for turn in range(3):  # when it is opened, at its head, later
            server.heal()
            seen = iter(range(100))
            server.fail(fault, 1, where=lambda asked, seen=seen, turn=turn: next(seen) >= turn)
            remote = Remote(connect_s=2, read_s=0.5, tries=3) if fault != "stall" else Remote(read_s=1, tries=2)
            assert same(decode(location, remote), video), (location, turn)


def test_a_server_that_stays_away_costs_its_tries_and_says_what_it_said(web: Loopback, s3: Loopback) -> None:
    for server, location in ((web, f"{web.url}/a.mp4"), (s3, "s3://films/talks/a.mp4")):
        server.fail("status", 1000, status=503, where=lambda asked, server=server: len(server.asked) > 1)
        why, detail = reason(location, Remote(read_s=2, tries=2))
        assert (why, "503" in detail, "2 tries" in detail) == ("unreadable", True, True)
        assert len(server.asked) == 3


def test_a_stall_ends_by_the_time_out(web: Loopback) -> None:
    web.fail("stall", 100)
    assert reason(f"{web.url}/a.mp4", Remote(read_s=0.3, tries=2))[0] == "unreadable"
    assert len(web.asked) == 2


def test_a_body_that_drips_ends_too(web: Loopback) -> None:
    web.fail("drip", 100)
    why, detail = reason(f"{web.url}/a.mp4", Remote(connect_s=0.2, read_s=0.3, tries=1))
    assert (why, "0.3 s" in detail) == ("unreadable", True)


def test_the_pause_that_a_server_asks_for_is_made(web: Loopback, video: Path) -> None:
    waited: list[float] = []
    web.fail("status", 1, status=429, headers={"Retry-After": "1"})
    limits = Limits(remote=QUICK)
    clips = list(decode_spans(f"{web.url}/a.mp4", SPANS, limits=limits, waits=waited.append))
    assert same(clips, video)
    assert 2.0 in waited  # the pause, and a second for the clock


@pytest.mark.parametrize(
    ("status", "expected"),
    [*zip((404, 410, 403, 401, 400), ["missing", "missing", "forbidden", "forbidden", "unreadable"], strict=True)],
)
def test_what_does_not_pass_is_not_tried_again(web: Loopback, status: int, expected: str) -> None:
    web.fail("status", 100, status=status)
    why, detail = reason(f"{web.url}/a.mp4")
    assert (why, str(status) in detail, len(web.asked)) == (expected, True, 1)


def test_a_bucket_tells_missing_from_forbidden(s3: Loopback) -> None:
    assert reason("s3://films/none.mp4")[0] == "missing"
    assert reason("s3://nothing-there/a.mp4")[0] == "missing"
    assert reason("s3://films/empty.mp4")[0] == "empty"
    assert reason("s3://films/note.mp4")[0] == "not_a_video"
    s3.fail("status", 100, status=403)
    why, detail = reason("s3://films/talks/a.mp4")
    assert (why, "AWS_ACCESS_KEY_ID" in detail) == ("forbidden", True)


def test_a_closed_port_is_unreadable(web: Loopback) -> None:
    with Loopback() as gone:
        pass
    assert reason(f"{gone.url}/a.mp4", Remote(tries=2))[0] == "unreadable"


def test_a_file_that_is_replaced_while_it_is_read_is_changed(
    web: Loopback, s3: Loopback, video: Path, moto: int
) -> None:
    other = video.read_bytes()[:-8] + b"\0" * 8
    clips = iter(decode_spans(f"{web.url}/a.mp4", [SPANS[1], SPANS[0]], limits=Limits(remote=QUICK)))
    assert next(clips).frames is not None
    web.put("/a.mp4", other)
    web.forget()
    last = _outcome(clips)
    assert last == "changed" or not web.asked  # all of a small file may have been read already


def test_an_object_that_is_replaced_while_it_is_read_is_changed(s3: Loopback, video: Path, moto: int) -> None:
    fill(moto, "films", {"turning.mp4": video})

    def replace() -> None:
        fill(moto, "films", {"turning.mp4": video.read_bytes()[:-8] + b"\0" * 8})

    assert outcome_of_reading("s3://films/turning.mp4", replace) == "changed"


def outcome_of_reading(location: str, meanwhile: Callable[[], None]) -> str:
    try:
        with open_source(location, QUICK) as source:
            source.file.seek(100_000)
            source.file.read(100)
            source.check()
            meanwhile()
            source.file.seek(300_000)
            source.file.read(100)
    except SourceError as error:
        return error.reason
    return ""


def _outcome(clips: Iterator[DecodedClip]) -> str:
    try:
        return next(clips).reason
    except SourceError as error:
        return error.reason


def test_a_web_file_that_is_replaced_between_two_reads_is_changed(web: Loopback, video: Path) -> None:
    location = f"{web.url}/a.mp4"
    assert outcome_of_reading(location, lambda: None) == ""
    assert outcome_of_reading(location, lambda: web.put("/a.mp4", video.read_bytes()[::-1])) == "changed"


@pytest.mark.parametrize("without", ["ranges", "ranges lengths", "ranges etags times"])
def test_a_server_without_ranges_is_read_once(video: Path, without: str) -> None:
    options = dict.fromkeys(without.split(), False)
    with Loopback({"/a.mp4": video.read_bytes()}, **options) as server:
        assert same(decode(f"{server.url}/a.mp4"), video)
        assert len(server.asked) == 2
        if options.get("lengths", True):  # without one nobody can tell half a body from a whole one
            server.fail("half", 1, where=lambda asked: not asked.range)
            assert same(decode(f"{server.url}/a.mp4"), video)
        small = Remote(whole_bytes=10_000)
        why, detail = reason(f"{server.url}/a.mp4", small)
        assert (why, "source.whole_mb" in detail) == ("too_large", True)


@pytest.mark.parametrize("fault", ["shifted", "unnamed", "endless"])
def test_an_answer_with_other_bytes_than_those_asked_for_is_tried_again(web: Loopback, video: Path, fault: str) -> None:
    for turn in range(4):
        web.heal()
        seen = iter(range(100))
        web.fail(fault, 1, where=lambda asked, seen=seen, turn=turn: next(seen) >= turn)
        assert same(decode(f"{web.url}/a.mp4"), video), turn
    web.heal()
    web.fail(fault, 1000, where=lambda asked: asked.range != "" and len(web.asked) > 1)
    web.forget()
    why, detail = reason(f"{web.url}/a.mp4")
    said = {"shifted": "in place of 'bytes ", "unnamed": "Content-Range ''", "endless": "goes on beyond"}
    assert (why, said[fault] in detail, "3 tries" in detail) == ("unreadable", True, True)
    assert web.sent < 64 << 20  # what goes on without an end is not read


def test_a_whole_file_comes_within_its_time_or_fails(video: Path) -> None:
    waited: list[float] = []
    with Loopback({"/a.mp4": video.read_bytes()}, ranges=False) as server:
        server.fail("drip", 1000, where=lambda asked: not asked.range)
        limits = Limits(remote=Remote(read_s=5, tries=6, whole_s=0.7))
        with pytest.raises(SourceError) as caught:
            list(decode_spans(f"{server.url}/a.mp4", SPANS, limits=limits, waits=waited.append))
        assert (caught.value.reason, "source.whole_s=0.7" in caught.value.detail) == ("unreadable", True)
        assert len(server.asked) == 2
        assert waited[-1] == 0.7


def test_the_wait_for_a_whole_file_is_that_for_its_size(video: Path) -> None:
    waited: list[float] = []
    with Loopback({"/a.mp4": video.read_bytes()}, ranges=False) as server:
        list(decode_spans(f"{server.url}/a.mp4", SPANS, limits=Limits(), waits=waited.append))
    assert max(waited) < 40 + video.stat().st_size / 60_000


def test_a_body_without_an_end_is_too_large(video: Path, child: Callable[..., Child]) -> None:
    small = Remote(read_s=5, tries=2, whole_bytes=4 << 20)
    with Loopback({"/a.mp4": video.read_bytes()}, ranges=False, lengths=False) as server:
        server.fail("endless", 1000)
        clips = decode_in(child(small), f"{server.url}/a.mp4")
        assert {clip.reason for clip in clips} == {"too_large"}
        assert server.sent < 64 << 20


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_compresses_is_told_so(video: Path, ranges: bool) -> None:
    with Loopback({"/a.mp4": video.read_bytes()}, ranges=ranges) as server:
        server.fail("gzip", 1000)
        why, detail = reason(f"{server.url}/a.mp4")
        assert (why, "Content-Encoding: 'gzip'" in detail, len(server.asked)) == ("unreadable", True, 1)


def test_a_copy_of_a_file_leaves_nothing_behind(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with (
        Loopback({"/a.mp4": video.read_bytes()}, ranges=False) as server,
        open_source(f"{server.url}/a.mp4", QUICK) as source,
    ):
        assert source.file.read() == video.read_bytes()
        assert list(tmp_path.iterdir()) == []


def test_redirects_lead_to_the_web_only(web: Loopback, video: Path) -> None:
    web.fail("status", 99, status=302, headers={"Location": f"{web.url}/a.mp4"}, where=lambda asked: asked.path == "/b")
    assert probe(f"{web.url}/b", Limits(remote=QUICK)).frames == 100
    for target in (f"file://{video}", "ftp://127.0.0.1/a.mp4", "s3://films/a.mp4"):
        web.heal()
        web.fail("status", 9, status=302, headers={"Location": target})
        assert reason(f"{web.url}/b")[0] == "refused_format", target
    web.heal()
    web.fail("status", 99, status=302, headers={"Location": "/b"})
    assert reason(f"{web.url}/b")[0] == "unreadable"


def test_secrets_of_an_address_work_and_are_not_shown(web: Loopback, video: Path) -> None:
    host = web.url.removeprefix("http://")
    signed = f"http://someone:hunter2@{host}/a.mp4?X-Signature=abc"
    assert decode_clip(signed, size=16).shape == (8, 16, 16, 3)
    assert web.asked[0].path == "/a.mp4?X-Signature=abc"
    assert web.asked[0].headers["Authorization"].startswith("Basic ")
    for fault, status in (("status", 403), ("status", 503), ("reset", 0), ("half", 0), ("status", 404)):
        web.heal()
        web.fail(fault, 100, status=status)
        _, detail = reason(signed, Remote(tries=1))
        assert f"http://{host}/a.mp4" in detail
        assert not any(secret in detail for secret in ("someone", "hunter2", "Signature", "abc"))


@pytest.fixture
def child() -> Iterator[Callable[[Remote, float], Child]]:
    children: list[Child] = []

    def make(remote: Remote, cpu_s: float = 30) -> Child:
        children.append(Child(Limits(remote=remote, cpu_s=cpu_s)))
        return children[-1]

    yield make
    for made in children:
        made.close()


def decode_in(child: Child, location: str) -> list[DecodedClip]:
    return list(child.decode(location, SPANS, frames=8, size_px=224, resize="viclip"))


def test_a_child_reads_from_servers_and_counts(
    web: Loopback, s3: Loopback, video: Path, child: Callable[..., Child]
) -> None:
    made = child(QUICK)
    for location in (f"{web.url}/a.mp4", "s3://films/talks/a.mp4"):
        clips = decode_in(made, location)
        assert same(clips, video)
        assert 0 < sum(clip.bytes_read for clip in clips) <= 1.2 * video.stat().st_size


def test_waiting_for_a_server_is_no_hang(web: Loopback, video: Path, child: Callable[..., Child]) -> None:
    # Five times 0.2 s of CPU would be 1 s of wall-clock time; the server needs longer than that.
    made = child(Remote(read_s=1.2, tries=3), 0.2)
    web.fail("stall", 1)
    web.fail("stall", 1, where=lambda asked: len(web.asked) > 2)
    assert same(decode_in(made, f"{web.url}/a.mp4"), video)


def test_every_clip_ends_done_or_failed_whatever_a_server_does(
    web: Loopback, s3: Loopback, video: Path, child: Callable[..., Child]
) -> None:
    made = child(Remote(read_s=0.4, tries=2))
    dice = np.random.default_rng(7)
    outcomes = set()
    for server, location in ((web, f"{web.url}/a.mp4"), (s3, "s3://films/talks/a.mp4")):
        for _ in range(4):
            server.heal()
            for fault in ("status", "reset", "half", "stall"):
                odds = dice.uniform(0, 0.25)
                server.fail(fault, 1000, where=lambda asked, odds=odds: bool(dice.uniform() < odds))
            clips = decode_in(made, location)
            assert len(clips) == len(SPANS)
            for clip, local in zip(clips, decode(str(video)), strict=True):
                assert clip.reason in ("", "unreadable")
                assert (clip.frames is None) == bool(clip.reason)
                assert clip.frames is None or np.array_equal(clip.frames, local.frames)
                assert bool(clip.detail) == bool(clip.reason)
                outcomes.add(clip.reason)
    assert outcomes == {"", "unreadable"}


def test_addresses_are_told_from_paths() -> None:
    assert all(map(address.is_address, ("s3://b", "S3://b/k", "gs://b/k", "http://h/a", "https://h/a")))
    assert not any(map(address.is_address, ("/a", "a.mp4", "http:x.mp4", "s3:/b", "file:///a", "ftp://h/a", "C:\\a")))
    assert address.not_read("/a") == address.not_read("s3://films") == address.not_read("note:/a.mp4") == ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("s3:/films/a.mp4", "did you mean 's3://films/a.mp4'?"),
        ("s3n://films/a.mp4", "did you mean 's3://films/a.mp4'?"),
        ("ftp://someone:hush@h/a.mp4?hush", "'ftp://h/a.mp4' is no address that raydist reads"),
        ("ftp://h/a.mp4", "did you mean 'https://h/a.mp4'?"),
        ("file:///tmp/a%20b.mp4", "give the path: '/tmp/a b.mp4'"),
        ("hdfs://h/a.mp4", "https://; copy it to one of these, or to a disk"),
        ("az://h/a.mp4", "https://; copy it to one of these, or to a disk"),
    ],
)
def test_what_is_no_address_that_can_be_read_says_what_to_give(typed: str, said: str) -> None:
    for read in (decode_clip, probe):
        with pytest.raises(SourceError) as caught:
            read(typed)
        assert (caught.value.reason, said in caught.value.detail) == ("missing", True), caught.value.detail
        assert "hush" not in caught.value.detail


def test_what_is_no_url_is_shown_with_what_was_expected() -> None:
    for bad in ("http://[::1/a.mp4", "http://h:99999/a.mp4", "http:///a.mp4"):
        why, detail = reason(bad)
        assert (why, bad in detail, "http(s)://HOST" in detail) == ("missing", True, True)
    with pytest.raises(ValueError, match=r"'http://\[::1/a.mp4' is no URL"):
        address.plain("http://[::1/a.mp4")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_what_names_no_file_of_a_bucket_says_so(scheme: str) -> None:
    for location, why, said in (
        ("films", "not_a_file", "names a bucket"),
        ("films/", "not_a_file", "names a bucket"),
        ("films/a.mp4/", "not_a_file", "without '/' at its end"),
        ("films//a.mp4", "unreadable", "Keys with '//' cannot be read"),
        ("films/a//b.mp4", "unreadable", "Keys with '//' cannot be read"),
        ("/a.mp4", "unreadable", "names no bucket"),
    ):
        found, detail = reason(f"{scheme}://{location}")
        assert (found, said in detail, f"'{scheme}://{location}'" in detail) == (why, True, True), detail


def test_an_address_is_stored_in_one_way_and_joins_back() -> None:
    assert address.plain("HTTPS://Host:1/a%20b/%7Ec/ü.mp4/") == "https://Host:1/a%20b/~c/%C3%BC.mp4".replace("H", "h")
    assert address.plain("s3://films/a b#?%20/") == "s3://films/a b#?%20"
    for root, below in (("s3://films/x", b"a #?%20\xc3\xbc.mp4"), ("https://h/x", b"a #?%20\xc3\xbc.mp4")):
        assert address.below(address.join(root, below), root) == below
    assert [address.name(a) for a in ("s3://films", "s3://films/a/b", "https://h/a%20b")] == [b"films", b"b", b"a b"]
    assert [address.parent(a) for a in ("s3://films", "s3://films/a")] == ["s3://films"] * 2
    assert address.parent("https://h/a/b.mp4") == "https://h/a"


@pytest.mark.parametrize(
    "bad", ["s3://", "https:///a", "s3://key:hush@b/a", "https://u:hush@h/a", "https://h/a?hush=1", "https://h/a#hush"]
)
def test_an_address_with_a_secret_is_not_stored_nor_shown(bad: str) -> None:
    with pytest.raises(ValueError, match=r"expected|names no") as caught:
        address.plain(bad)
    assert "hush" not in str(caught.value)
