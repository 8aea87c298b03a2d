"""Scanning buckets and web servers: names, roots, unchanged files, moves, and what was typed wrong."""

from __future__ import annotations

import http.client

import pytest
from library import Library
from loopback import Loopback
from stores import fill, gs_fill, gs_server

from raydist import embed, scan, search
from raydist.errors import SourceError, UsageError
from raydist.records import Remote
from raydist.scan.select import select
from raydist.scan.walk import Walked, walk

QUICK = ("source.tries=2", "source.read_s=2")


def put(moto: int, bucket: str, library: Library, *keys: str) -> None:
    videos = {key: library.video(f"made/{i}.mp4", seed=i).read_bytes() for i, key in enumerate(keys)}
    fill(moto, bucket, videos)


def test_a_bucket_is_scanned_like_a_folder(s3: Loopback, moto: int, library: Library) -> None:
    put(moto, "films", library, "talks/a.mp4", "talks/deep/b #1 50%.mp4", "talks/.hid/c.mp4", "talks/.d.mp4", "x/e.mp4")
    fill(moto, "films", {"talks/a.srt": b"1", "talks/bad.mp4": b"no video"})
    report = run(library, "s3://films/talks/")
    assert report.counts["ok"] == 2
    assert report.failures == {"not_a_video": 1}
    assert library.states() == {"a.mp4": "ok", "bad.mp4": "failed", "deep/b #1 50%25.mp4": "ok"}
    assert library.rows("roots", "name", "location") == [{"name": "talks", "location": "s3://films/talks"}]
    assert library.rows("videos", "video_id")[2] == "talks/deep/b #1 50%25.mp4"
    s3.forget()
    again = run(library, "s3://films/talks")
    assert again.counts["unchanged"] == 3
    assert not any(asked.range for asked in s3.asked)  # nothing was opened


def run(library: Library, *inputs: str, **request: object) -> scan.Report:
    return scan.run(library.config(*QUICK), scan.Request(inputs=inputs, **request))  # type: ignore[arg-type]


def test_what_leaves_a_bucket_vanishes_and_what_changes_is_looked_at_again(
    s3: Loopback, moto: int, library: Library
) -> None:
    put(moto, "turning", library, "v/a.mp4", "v/b.mp4", "v/c.mp4")
    run(library, "s3://turning/v")
    fill(moto, "turning", {"v/b.mp4": library.video("made/other.mp4", seconds=5).read_bytes()})
    delete(moto, "turning/v/c.mp4")
    report = run(library, "s3://turning/v")
    assert (report.counts["ok"], report.counts["unchanged"], report.counts["vanished"]) == (1, 1, 1)


def delete(moto: int, key: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", moto)
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"}
    connection.request("DELETE", f"/{key}", headers=signed)
    assert connection.getresponse().status == 204


def test_one_object_and_a_whole_bucket_share_a_root(s3: Loopback, moto: int, library: Library) -> None:
    put(moto, "shared", library, "a.mp4", "in/b.mp4")
    run(library, "s3://shared/a.mp4")
    assert library.rows("videos", "video_id") == ["shared/a.mp4"]
    run(library, "s3://shared")
    assert library.rows("videos", "video_id") == ["shared/a.mp4", "shared/in/b.mp4"]
    with pytest.raises(UsageError, match="parent of the root"):
        select(["s3://shared"], {"in": "s3://shared/in"})


def test_files_of_a_web_server_are_scanned_one_by_one(library: Library) -> None:
    video = library.video("made/a.mp4").read_bytes()
    with Loopback({"/talks/a%20b.mp4": video, "/talks/c.mp4": video}) as web:
        report = run(library, f"{web.url}/talks/a%20b.mp4", f"{web.url}/talks/c.mp4")
        assert report.counts["ok"] == 2
        assert library.rows("videos", "video_id") == ["talks/a b.mp4", "talks/c.mp4"]
        assert library.rows("roots", "location") == [f"{web.url}/talks"]
        assert run(library, f"{web.url}/talks/c.mp4").counts["unchanged"] == 1
        web.put("/talks/c.mp4", library.video("made/b.mp4", seconds=4).read_bytes())
        assert run(library, f"{web.url}/talks/c.mp4").counts["ok"] == 1


@pytest.mark.parametrize("without", ["times", "times etags"])
def test_without_a_time_the_etag_tells_and_without_both_a_file_is_looked_at_again(
    library: Library, without: str
) -> None:
    video = library.video("made/a.mp4").read_bytes()
    with Loopback({"/talks/a.mp4": video}, **dict.fromkeys(without.split(), False)) as web:
        run(library, f"{web.url}/talks/a.mp4")
        counts = run(library, f"{web.url}/talks/a.mp4").counts
        assert counts.get("unchanged", 0) == (1 if without == "times" else 0)


def test_a_folder_that_moved_into_a_bucket_keeps_its_clips(s3: Loopback, moto: int, library: Library) -> None:
    video = library.video("a.mp4")
    library.scan()
    clips = library.rows("clips", "clip_id", "fingerprint")
    fill(moto, "moved", {"archive/talks/a.mp4": video})
    report = run(library, "s3://moved/archive/talks", moved=(str(library.folder), "s3://moved/archive/talks"))
    assert library.rows("roots", "location") == ["s3://moved/archive/talks"]
    assert (report.counts["files"], report.counts.get("vanished", 0)) == (1, 0)
    assert library.rows("clips", "clip_id", "fingerprint") == clips
    with pytest.raises(UsageError, match="no bucket or prefix"):
        run(library, moved=("talks", "s3://moved/nowhere"))
    run(library, moved=("s3://moved/archive/talks", str(library.folder)))
    assert library.rows("roots", "location") == [str(library.folder)]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("s3://no-such-bucket/a", "does not exist"),
        ("s3://films2/nothing", "does not exist"),
        ("s3://films2/*.mp4", "Globs are for folders on a disk"),
        ("s3:/films2", r"did you mean 's3://films2'"),
        ("s3n://films2/a", r"did you mean 's3://films2/a'"),
        ("ftp://host/a.mp4", r"expected s3://, gs://"),
        ("file:///tmp/x.mp4", r"give the path: '/tmp/x.mp4'"),
        ("hdfs://host/x.mp4", r"https://; copy it to one of these"),
        ("http://[::1/a.mp4", r"'http://\[::1/a.mp4' is no URL"),
        ("s3://films2//a.mp4", r"Keys with '//' cannot be read"),
        ("s3://", "names no bucket"),
        ("s3://key:hush@films2/a", "expected none in an address"),
        ("https://host/a.mp4?X-Signature=hush", "expected a URL without one"),
        ("https://host/talks/", "names a folder of a web server"),
    ],
)
def test_what_was_typed_wrong_is_said_at_once(s3: Loopback, moto: int, library: Library, typed: str, said: str) -> None:
    fill(moto, "films2", {"a.mp4": b"x"})
    with pytest.raises((UsageError, SourceError), match=said) as caught:
        run(library, typed)
    assert "hush" not in str(caught.value)
    assert not library.archive.exists()


def test_a_bucket_that_may_not_be_read_is_said_at_once(s3: Loopback, library: Library) -> None:
    s3.fail("status", 100, status=403)
    with pytest.raises(SourceError, match="AWS_PROFILE") as caught:
        run(library, "s3://films/talks")
    assert caught.value.reason == "forbidden"
    assert not library.archive.exists()


def test_a_folder_that_cannot_be_listed_keeps_its_rows(s3: Loopback, moto: int, library: Library) -> None:
    put(moto, "closed", library, "v/a.mp4", "v/in/b.mp4")
    run(library, "s3://closed/v")
    s3.fail("status", 100, status=403, where=lambda asked: "v%2Fin" in asked.path or "v/in" in asked.path)
    report = run(library, "s3://closed/v")
    assert report.counts.get("vanished", 0) == 0
    assert any("could not be listed" in note for note in report.notes)


def test_names_that_differ_in_composition_only_collide(s3: Loopback, moto: int) -> None:
    fill(moto, "composed", {"v/u\u0308.mp4": b"x", "v/\u00fc.mp4": b"x"})
    selections = select(["s3://composed/v"], {}, None, Remote())
    found = {one.path: one.reason for one in walk(selections[0], Walked())}
    assert sorted(found.values()) == ["", "id_collision"]


def test_a_bucket_of_google_is_scanned_and_read(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    video = library.video("made/a.mp4").read_bytes()
    with gs_server("films") as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        keys = ("talks/a.mp4", "talks/in/deep/b.mp4", "talks/.hid/c.mp4", "talks//no-part.mp4")
        gs_fill(port, "films", dict.fromkeys(keys, video))
        changes = (*QUICK, "source.anonymous=true")
        request = scan.Request(inputs=["gs://films/talks"])
        assert scan.run(library.config(*changes), request).counts["ok"] == 2
        assert library.rows("videos", "video_id") == ["talks/a.mp4", "talks/in/deep/b.mp4"]
        assert scan.run(library.config(*changes), request).counts["unchanged"] == 2
        with pytest.raises(UsageError, match="does not exist"):
            scan.run(library.config(*changes), scan.Request(inputs=["gs://films/none"]))


@pytest.mark.ray
def test_from_a_bucket_to_search_results(s3: Loopback, moto: int, library: Library, cluster: None) -> None:
    put(moto, "found", library, "talks/a.mp4", "talks/b.mp4")
    run(library, "s3://found/talks")
    # Ray's workers were started before this test and do not have its environment.
    report = embed.run(library.config(*QUICK, "embed.model=tiny", f"source.endpoint={s3.url}", "source.anonymous=true"))
    assert report.counts["rows"] == 2
    assert 0 < report.details["bytes_read"] < 200_000
    assert any("MB a clip" in note for note in report.notes)
    hits = search.run(library.config("embed.model=tiny"), [search.Query(words="a square")])
    assert {hit["path"] for hit in hits.to_pylist()} == {"s3://found/talks/a.mp4", "s3://found/talks/b.mp4"}
