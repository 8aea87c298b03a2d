"""An archive's files in a bucket: on a real S3 server, behind a proxy that misbehaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from loopback import Loopback, wait_for
from store import tables
from stores import ENVIRONMENT, fill

from raydist.clips.decoder import Geometry
from raydist.config import Config
from raydist.dedup import scratch, shared
from raydist.errors import AwayError, RaydistError, StoreError
from raydist.records import Limits, Report
from raydist.search.cutoff import calibrated
from raydist.store import buckets, commit, compact, credentials, lease, models, objects, patience, read, runs, settings
from raydist.store.lease import Lease, holders
from raydist.store.location import prepare
from raydist.store.manifest import Manifest
from raydist.store.tables import lance_errors, open_table
from raydist.train import journal
from raydist.train.sender import Sender
from raydist.train.task import Task

WRITER = Path(__file__).with_name("writer.py")
SECRET = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
KINDS = {"500": ("status", 500), "503": ("status", 503), "reset": ("reset", 0), "half": ("half", 0)}


def fail_often(server: Loopback, share: float, seed: int = 0) -> Counter[str]:
    """Let a share of all requests go wrong, in four ways; what did."""
    drawn, met = random.Random(seed), Counter[str]()

    def hit(name: str) -> Callable[[object], bool]:
        def where(_: object) -> bool:
            wrong = drawn.random() < share / len(KINDS)
            met[name] += wrong
            return wrong

        return where

    for name, (kind, status) in KINDS.items():
        server.fail(kind, float("inf"), status=status, where=hit(name))
    return met


def test_of_many_creators_one_creates(bucket: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: objects.create(bucket, "a/one.json", b"%d" % number), range(8)))
    assert made.count(True) == 1
    assert objects.read(bucket, "a/one.json") == b"%d" % made.index(True)


def test_small_files_are_there_replaced_listed_and_gone(bucket: str) -> None:
    assert objects.read(bucket, "a/x.json") is None
    assert objects.entries(bucket, "a") == []
    objects.replace(bucket, "a/x.json", b"1")
    objects.replace(bucket, "a/x.json", b"2")
    objects.replace(bucket, "a/deeper/y.json", b"3")
    assert objects.read(bucket, "a/x.json") == b"2"
    (entry,) = objects.entries(bucket, "a")
    assert entry.name == "a/x.json"
    assert abs(entry.modified_s - time.time()) < 60
    for _ in range(2):
        objects.delete(bucket, "a/x.json")
    assert objects.entries(bucket, "a") == []


def test_many_files_go_at_once(bucket: str, s3: Loopback) -> None:
    for number in range(12):
        objects.replace(bucket, f"a/{number}", b"1")
    s3.forget()
    objects.delete_all(bucket, [f"a/{number}" for number in range(20)])
    assert len(s3.asked) < 3
    assert objects.entries(bucket, "a") == []
    objects.delete_all(bucket, [])
    fail_often(s3, 0.2)
    objects.replace(bucket, "a/1", b"1")
    objects.delete_all(bucket, ["a/1", "a/2"])
    assert objects.entries(bucket, "a") == []


@pytest.mark.parametrize(("kind", "status"), [("reset", 0), ("status", 503), ("half", 0)])
def test_many_files_go_although_the_first_tries_fail(bucket: str, s3: Loopback, kind: str, status: int) -> None:
    for number in range(3):
        objects.replace(bucket, f"a/{number}", b"1")
    s3.fail(kind, 2, status=status, where=lambda asked: asked.method == "POST")
    objects.delete_all(bucket, [f"a/{number}" for number in range(3)])
    assert objects.entries(bucket, "a") == []


@pytest.mark.parametrize(("kind", "status"), [("reset", 0), ("status", 503), ("half", 0)])
def test_a_file_is_created_although_the_first_tries_fail(bucket: str, s3: Loopback, kind: str, status: int) -> None:
    s3.fail(kind, 2, status=status, where=lambda asked: asked.headers.get("if-none-match") == "*")
    objects.create(bucket, "a/x", b"first")
    assert objects.read(bucket, "a/x") == b"first"
    assert not objects.create(bucket, "a/x", b"second")
    assert objects.read(bucket, "a/x") == b"first"


def test_files_and_rows_are_right_while_a_fifth_of_all_requests_fails(bucket: str, s3: Loopback) -> None:
    met = fail_often(s3, 0.2)
    for number in range(5):
        objects.replace(bucket, f"a/{number}", b"%d" % number)
    assert [objects.read(bucket, f"a/{number}") for number in range(5)] == [b"%d" % number for number in range(5)]
    assert len(objects.entries(bucket, "a")) == 5
    objects.delete(bucket, "a/0")
    assert [entry.name for entry in objects.entries(bucket, "a")] == [f"a/{number}" for number in range(1, 5)]
    commit.append(bucket, "clips", tables.clips(range(10)), tables.clips([]).schema)
    assert read.table_names(bucket) == ["clips"]
    assert read.count_rows(bucket, "clips") == 10
    assert sum(met.values()) >= 5


def test_a_server_that_is_away_for_seconds_loses_nothing(bucket: str, s3: Loopback) -> None:
    s3.fail("status", 20, where=lambda asked: asked.method == "PUT" and "/data/" in asked.path)  # Lance asks 16 times
    s3.fail("status", 20, where=lambda asked: asked.method == "PUT" and "/_versions/" in asked.path)
    assert commit.append(bucket, "clips", tables.clips(range(10)), tables.clips([]).schema) == 10
    assert read.count_rows(bucket, "clips") == 10
    assert len([asked for asked in s3.asked if asked.method == "PUT" and "/data/" in asked.path]) > 20


def test_a_runs_files_travel_when_they_changed(bucket: str, s3: Loopback, tmp_path: Path) -> None:
    folder = runs.run_folder(bucket, "r1")
    assert tmp_path in folder.parents, "the working copy lies in the user's cache"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "big.bin").write_bytes(os.urandom(9 << 20))
    (folder / "log.txt").write_text("one")
    runs.publish(bucket, "r1")
    s3.forget()
    runs.publish(bucket, "r1")
    assert s3.asked == [], "nothing changed"
    assert runs.listed(bucket, "**/*") == ["r1/adapter/big.bin", "r1/log.txt"]
    assert runs.listed(bucket, "*/adapter/*") == ["r1/adapter/big.bin"]
    big = (folder / "adapter" / "big.bin").read_bytes()
    (folder / "adapter" / "big.bin").unlink()
    objects.replace(bucket, "runs/r1/log.txt", b"from another machine")
    (folder / "own.txt").write_text("not published")
    assert runs.fetch(bucket, "r1", ["adapter/*"]) == folder
    assert (folder / "adapter" / "big.bin").read_bytes() == big
    assert (folder / "log.txt").read_text() == "one"
    runs.fetch(bucket, "r1")
    assert (folder / "log.txt").read_text() == "from another machine"
    assert (folder / "own.txt").read_text() == "not published"
    runs.discard(bucket, "r1", ["adapter/*"])
    assert runs.listed(bucket, "**/*") == ["r1/log.txt"]
    assert not (folder / "adapter").exists()


def test_an_adapter_comes_when_it_is_loaded_and_whole(bucket: str, s3: Loopback) -> None:
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    for name in names:
        objects.replace(bucket, f"runs/r1/adapter/{name}", name.encode())
    place = runs.run_folder(bucket, "r1") / "adapter"
    noted = models.marked(tables.embeddings([1]).schema, "tiny+r1", "/weights", adapter=str(place), archive=bucket)
    commit.append(bucket, tables.TABLE, tables.embeddings([1]).cast(noted), noted)
    s3.forget()
    (model,) = models.stored(bucket)
    assert model.adapter == str(place)
    assert not [asked for asked in s3.asked if "runs" in asked.path], "names take no files"
    s3.fail("status", float("inf"), status=403, where=lambda asked: asked.path.endswith("safetensors"))
    with pytest.raises(StoreError, match="may not be used"):
        models.brought(bucket, model.adapter)
    assert place.is_dir()
    s3.heal()
    assert models.brought(bucket, model.adapter) == str(place)
    assert [file.read_text() for file in sorted(place.iterdir())] == names
    objects.replace(bucket, "runs/r1/adapter/adapter_model.safetensors", b"trained anew")
    models.brought(bucket, model.adapter)
    assert (place / "adapter_model.safetensors").read_text() == "trained anew"


def test_what_fails_when_all_rows_are_in_is_a_note(bucket: str, s3: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in range(9):
        commit.append(bucket, "clips", tables.clips([key]), tables.clips([]).schema)
    manifest = Manifest.of_run(bucket, "embed-1").write([pa.table({"a": [1]})])
    notes: list[str] = []
    with Lease(bucket, "embed") as held:
        s3.fail("status", float("inf"), status=403, where=lambda asked: asked.method != "GET")
        with compact.tidying(notes):
            compact.compact_if_alone(bucket, "clips", held)
        manifest.remove()
        s3.heal()
    (note,) = notes
    assert "not tidied, the next run does it" in note
    assert read.count_rows(bucket, "clips") == 9
    monkeypatch.setattr(patience, "_AWAY_FOR_S", 30.0)
    s3.fail("status", 20, status=503, where=lambda asked: asked.path.endswith("report.json"))
    runs.save(Report(stage="embed", run="embed-1", seconds=1.0, counts={}), bucket)
    assert "embed-1/report.json" in runs.listed(bucket, "**/*")
    Manifest.sweep(bucket, list)
    assert runs.listed(bucket, "**/*") == ["embed-1/report.json"]


def test_a_manifest_in_a_bucket_is_read_and_swept(bucket: str) -> None:
    manifest = Manifest.of_run(bucket, "embed-1", rows_per_file=4).write([pa.table({"a": list(range(10))})])
    assert [unit["a"][0].as_py() for unit in manifest.units()] == list(range(10))
    Manifest.sweep(bucket, lambda: ["another is at work"])
    assert len(runs.listed(bucket, "**/*")) == 3
    Manifest.sweep(bucket, list)
    assert runs.listed(bucket, "**/*") == []


def test_leases_in_a_bucket_exclude(bucket: str) -> None:
    with Lease(bucket, "scan", exclusive=True), pytest.raises(StoreError, match=r"raydist scan.*must be alone"):
        Lease(bucket, "scan", exclusive=True).__enter__()
    with Lease(bucket, "embed") as own, Lease(bucket, "dedup") as other:
        assert [holder.verb for holder in own.others()] == ["dedup"]
        assert other.others()[0].id == own.holder.id
    assert holders(bucket) == []


def test_a_reader_whose_clock_is_ahead_sees_who_is_at_work(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + 300, monotonic=time.monotonic, sleep=time.sleep)
    with Lease(bucket, "embed") as held:
        monkeypatch.setattr(lease, "time", ahead)
        assert [holder.id for holder in holders(bucket, sweep=False)] == [held.holder.id]


def test_a_probe_that_a_killed_process_left_goes(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_STRAY_S", 0.5)
    objects.replace(bucket, "probes/left", b"")
    time.sleep(2.1)  # the server tells times in seconds
    objects.require_create(bucket)
    assert objects.entries(bucket, "probes") == []


def test_a_heartbeat_that_hangs_is_followed_by_another_soon(
    bucket: str, s3: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.2)
    with Lease(bucket, "embed"):
        s3.fail("stall", 1, where=lambda asked: asked.method == "PUT" and "/writers/" in asked.path)
        began = time.monotonic()
        wait_for(lambda: len([asked for asked in s3.asked if "/writers/" in asked.path]) > 3)
        assert time.monotonic() - began < 45


def test_a_store_that_writes_what_is_there_is_refused(bucket: str, moto: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.create_or_open(bucket, {"clip_seconds": 30.0})
    with Loopback(upstream=moto, drops=("if-none-match",)) as bad:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bad.url)
        for begin in (lambda: Lease(bucket, "embed").__enter__(), lambda: settings.create_or_open(f"{bucket}2", {})):
            with pytest.raises(StoreError, match=rf"{bad.url}.*twice.*If-None-Match.*expected"):
                begin()
        with pytest.raises(StoreError, match=r"twice.*If-None-Match"):
            commit.append(bucket, "clips", tables.clips(range(3)), tables.clips([]).schema)
        assert settings.exists(bucket), "reading goes on"
        assert not settings.exists(f"{bucket}2")
        assert holders(bucket) == []
        assert objects.entries(bucket, "probes") == []


def test_two_writers_and_one_that_is_killed_leave_every_row_once(bucket: str, s3: Loopback) -> None:
    keys = range(400)
    commit.append(bucket, "clips", tables.clips(keys), tables.clips([]).schema)
    prepare(bucket)

    def start(seed: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(WRITER), bucket, str(seed)], stderr=subprocess.PIPE)

    killed = start(0)
    deadline = time.monotonic() + 60
    while not read.count_rows(bucket, tables.TABLE) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    fail_often(s3, 0.02)
    for driver in (start(1), start(2)):
        _, said = driver.communicate(timeout=120)
        assert driver.returncode == 0, said.decode()[-2000:]
    s3.heal()
    rows = [key for batch in read.scan_batches(bucket, tables.TABLE) for key in batch["clip_key"].to_pylist()]
    assert sorted(rows) == list(keys)
    assert any(asked.headers.get("if-none-match") == "*" for asked in s3.asked)


def refused(call: Callable[[], object]) -> str:
    began = time.monotonic()
    with pytest.raises(RaydistError) as error:
        call()
    assert time.monotonic() - began < 30
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)
    return str(error.value)


def test_what_is_wrong_with_a_bucket_is_said_soon(
    bucket: str, s3: Loopback, moto: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> object:
        return settings.open_existing(bucket)

    assert "no archive at" in refused(look)
    assert "there is no bucket 'nothing'" in refused(lambda: settings.open_existing("s3://nothing/a"))
    assert "there is no bucket 'nothing'" in refused(lambda: Lease("s3://nothing/a", "embed").__enter__())
    s3.fail("status", float("inf"), status=403)
    assert "may not be used (403" in refused(look)
    s3.heal()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "does not answer" in refused(look)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    assert "expected the address of an S3 server" in refused(look)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refused(look)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials on this machine" in refused(look)
    monkeypatch.setenv("AWS_PROFILE", "missing")
    assert "AWS_PROFILE='missing': there is no such profile" in refused(look)
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert "pip install 'raydist[s3]'" in refused(look)


def test_keys_come_from_a_profile_too(
    bucket: str, s3: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    file = tmp_path / "credentials"
    file.write_text("[work]\n" + "".join(f"{name.lower()} = {value}\n" for name, value in keys.items()))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "work")
    for name in keys:
        monkeypatch.delenv(name)
    objects.replace(bucket, "a", b"1")
    assert objects.read(bucket, "a") == b"1"
    commit.append(bucket, "clips", tables.clips(range(3)), tables.clips([]).schema)
    assert read.count_rows(bucket, "clips") == 3
    file.write_text("[work]\nsso_session = here\n")
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "needs boto3" in refused(lambda: objects.read(f"{bucket}-beside", "b"))


@pytest.mark.parametrize("own", [False, True])
def test_a_profile_names_its_server_too(
    bucket: str, s3: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    server = "services = here\n\n[services here]\ns3 =\n  endpoint_url = {}\n" if own else "endpoint_url = {}\n"
    file = tmp_path / "config"
    file.write_text(f"[profile minio]\nregion = us-east-1\n{server.format(s3.url)}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "minio")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "")
    objects.replace(bucket, "a", b"1")
    commit.append(bucket, "clips", tables.clips(range(3)), tables.clips([]).schema)
    assert read.count_rows(bucket, "clips") == 3
    assert any(asked.method == "PUT" for asked in s3.asked)


def test_working_copies_are_of_one_server_and_follow_it(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.replace(bucket, "runs/r1/adapter/a", b"1")
    objects.replace(bucket, "runs/r1/adapter/b", b"2")
    objects.replace(bucket, "runs/r1/.published.json", b"{}")
    place = runs.fetch(bucket, "r1")
    assert (place / ".published.json").read_bytes() != b"{}"
    (place / "b-own").write_text("stays")
    objects.delete(bucket, "runs/r1/adapter/a")
    runs.fetch(bucket, "r1")
    assert sorted(file.name for file in place.glob("**/[!.]*") if file.is_file()) == ["b", "b-own"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert runs.run_folder(bucket, "r1") != place


def test_the_servers_address_has_one_meaning_for_all_clients(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    commit.append(bucket, "clips", tables.clips(range(3)), tables.clips([]).schema)
    objects.replace(bucket, "a", b"1")
    assert read.count_rows(bucket, "clips") == 3
    assert os.environ["AWS_ALLOW_HTTP"] == "true"
    assert os.environ["AWS_REGION"] == "us-east-1"


def test_what_a_server_answers_is_told_without_what_is_secret() -> None:
    body = (
        "status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><Message>The signature differs</Message>"
        "<AWSAccessKeyId>AKIASOMEONE</AWSAccessKeyId><StringToSign>AWS4-HMAC</StringToSign></Error>"
    )
    told = credentials.explained("s3://bucket/a", body)
    assert "SignatureDoesNotMatch, The signature differs" in told
    assert "AKIASOMEONE" not in told
    assert "AWS4" not in told
    whole = credentials.scrubbed(f"first line\n{body}, and\nthe last ?X-Amz-Security-Token=abc")
    assert whole.startswith("first line\nstatus code: 403 Forbidden: SignatureDoesNotMatch, The signature differs, and")
    assert whole.endswith("the last ?X-Amz-Security-Token=...")
    assert "AKIASOMEONE" not in whole


TOKEN, KEY_ID = "FwoGSECRETTOKEN", "AKIASOMEONE"
RAN_OUT = (
    b'<?xml version="1.0"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message>'
    b"<Token-0>FwoGSECRETTOKEN</Token-0><AWSAccessKeyId>AKIASOMEONE</AWSAccessKeyId>"
    b"<StringToSign>AWS4-HMAC</StringToSign></Error>"
)


@pytest.mark.parametrize("status", [400, 403])
def test_a_token_that_ran_out_is_in_no_error_and_in_no_cause(bucket: str, s3: Loopback, status: int) -> None:
    schema = tables.clips([]).schema
    commit.append(bucket, "clips", tables.clips(range(3)), schema)
    dataset = open_table(bucket, "clips")
    assert dataset is not None

    def listing() -> object:
        return open_table(bucket, "clips")

    def data() -> object:
        with lance_errors(dataset.uri, where="clip_key = 1", schema=dataset.schema):
            return dataset.to_table()

    def fragment() -> object:
        return commit.write_fragments(bucket, "clips", tables.clips(range(3, 6)), schema)

    def version() -> object:
        return commit.append(bucket, "clips", tables.clips(range(3, 6)), schema)

    places = {
        listing: lambda asked: asked.method == "GET" and "list-type" in asked.path,
        data: lambda asked: asked.method == "GET" and "/data/" in asked.path,
        fragment: lambda asked: asked.method == "PUT" and "/data/" in asked.path,
        version: lambda asked: asked.method == "PUT" and "/_versions/" in asked.path,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "_TRIES", 1)
        for call, where in places.items():
            s3.fail("status", float("inf"), status=status, body=RAN_OUT, where=where)
            with pytest.raises(StoreError) as error:
                call()
            whole = "".join(traceback.format_exception(error.value))
            assert TOKEN not in whole
            assert KEY_ID not in whole
            assert "AWS4" not in whole
            assert "ExpiredToken, The provided token has expired." in str(error.value)
            assert not isinstance(error.value, AwayError)
            s3.heal()
    s3.fail("status", float("inf"), status=status, body=RAN_OUT)
    with pytest.raises(StoreError) as error:
        objects.read(bucket, "a")
    assert TOKEN not in "".join(traceback.format_exception(error.value))


def test_a_server_that_is_away_for_longer_is_waited_for(bucket: str, s3: Loopback) -> None:
    schema = tables.clips([]).schema
    committer = commit.Committer(bucket, "clips", schema)

    def away() -> threading.Timer:
        s3.fail("reset", float("inf"))
        healed = threading.Timer(8, s3.heal)
        healed.start()
        return healed

    healed = away()
    fragments = commit.write_fragments(bucket, "clips", tables.clips(range(10)), schema)
    healed.join()
    healed = away()
    assert committer.commit(fragments) == 10
    healed.join()
    assert read.count_rows(bucket, "clips") == 10


def test_a_server_that_stays_away_is_given_up(bucket: str, s3: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_AWAY_FOR_S", 0.0)
    s3.fail("reset", float("inf"))
    with pytest.raises(AwayError, match="does not answer"):
        commit.Committer(bucket, "clips", tables.clips([]).schema)


def test_a_full_disk_of_this_machine_is_not_the_buckets(bucket: str) -> None:
    objects.replace(bucket, "a", bytes(1 << 16))
    with pytest.raises(OSError, match="No space left"):
        buckets.download(bucket, "a", Path("/dev/full"))
    with pytest.raises(FileNotFoundError):
        buckets.replace(bucket, "b", Path("/nowhere/b"))


def test_a_full_disk_of_a_node_is_told_with_the_way_out(bucket: str, tmp_path: Path) -> None:
    def write() -> None:
        with shared.room(), Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"vectors")

    with pytest.raises(OSError, match="No space left"):
        write()
    there = shared.Shared(folder=tmp_path / "raydist-1" / "join", address=f"{bucket}/runs/dedup-1/join")
    with shared.using(there), pytest.raises(StoreError, match=rf"'{tmp_path}' on .* is full.*TMPDIR"):
        write()


def test_what_a_training_wrote_last_is_sent_when_it_ends(bucket: str, s3: Loopback) -> None:
    task = Task(
        location=bucket,
        run="r1",
        folder=f"{bucket}/runs/r1",
        model="tiny",
        section=Config().train,
        geometry=Geometry(frames=8, sampling="exact", size_px=224, resize="crop"),
        places={},
        limits=Limits(),
        threads=1,
        device="cpu",
        facts={},
    )
    sender = Sender(task)
    (sender.folder / journal.FILE).write_text("the loss is NaN")
    sender.close()
    assert objects.read(bucket, f"runs/r1/{journal.FILE}") == b"the loss is NaN"
    away = Sender(task)
    s3.fail("status", float("inf"), status=403)
    away.close()  # the run's own error says more


def test_machines_share_the_work_folder_of_a_join(bucket: str, tmp_path: Path) -> None:
    with shared.work(bucket, "dedup-1") as work:
        scratch.save(work / "shards" / "a-0", raw=np.arange(6), keys=np.arange(3))
        there = shared.Shared(folder=tmp_path / "another machine", address=f"{bucket}/runs/dedup-1/join")
        with shared.using(there):
            assert scratch.load(there.folder / "shards" / "a-0", "raw").tolist() == [0, 1, 2, 3, 4, 5]
            shared.sent(_written(there.folder / "edges" / "a-0_8.parquet"))
        (brought,) = shared.files(work / "edges")
        assert brought.read_bytes() == b"edges"
    assert not work.exists()
    assert runs.listed(bucket, "**/*") == []
    objects.replace(f"{bucket}/runs/dedup-2/join", "shards/x", b"of a run that was killed")
    runs.sweep_scratch(bucket, "dedup-*")
    assert runs.listed(bucket, "**/*") == []


def _written(file: Path) -> Path:
    file.parent.mkdir(parents=True)
    file.write_bytes(b"edges")
    return file


def test_what_else_lies_in_the_bucket_stays(bucket: str, moto: int) -> None:
    fill(moto, "archive", {f"{bucket.removeprefix('s3://archive/')}-beside/x.lance/y": b""})
    commit.append(bucket, "clips", tables.clips(range(3)), tables.clips([]).schema)
    assert read.table_names(bucket) == ["clips"]
    assert objects.read("s3://archive/other", "file") == b"not ours"


def test_a_key_that_may_only_read_finds_what_a_search_measures_each_time(bucket: str, s3: Loopback) -> None:
    commit.append(bucket, "clips", tables.clips(range(100)), tables.clips([]).schema)
    rows = tables.embeddings(range(100))
    commit.append(bucket, tables.TABLE, rows, rows.schema)
    s3.fail("status", float("inf"), status=403, where=lambda asked: asked.method == "PUT")
    measured = [calibrated(bucket, tables.TABLE, lambda texts: np.zeros((len(texts), 4)), texts=False) for _ in "ab"]
    assert measured[0] == measured[1]
