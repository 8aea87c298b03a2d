"""What a job asks of the nodes before its verb begins, and what it says of each that cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback
from stores import ENVIRONMENT, fill

from raydist.cli import job as job_step
from raydist.errors import ResourceError, UsageError
from raydist.store import objects, roots, settings
from raydist.submit import arrival
from raydist.submit.arrival import Needed, answer
from raydist.submit.order import Order, Place

PLACE = "s3://there/archive"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def job(archive: Path | str, **changed: Any) -> dict[str, Any]:
    """The document of an embed job."""
    source = {"whole_mb": 1}
    order = Order(verb="embed", arguments=["embed"], archive=str(archive), source=source, **changed)
    return order.document()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    settings.create_or_open(str(tmp_path / "archive"), {"clip_seconds": 1.0})
    return tmp_path / "archive"


def test_a_node_that_sees_everything_says_nothing(archive: Path) -> None:
    seen = (("--adapter", str(archive)),)
    assert answer(Needed(archive=str(archive), probe=str(archive / settings.FILE), places=seen)) == []


def test_a_folder_that_is_not_shared_is_told() -> None:
    (told,) = answer(Needed(archive="/films/archive", probe="/films/nobody/.raydist-1"))
    assert "does not see what the head has at '/films/nobody', so the archive '/films/archive' is not shared" in told


def test_a_node_that_may_only_read_the_folder_is_told_where_the_verb_writes(archive: Path) -> None:
    seen = Needed(archive="/proc/archive", probe="/proc/version")
    assert answer(seen) == []
    (told,) = answer(replace(seen, writes=True))
    assert told.startswith("it cannot write to '/proc' (")
    assert "the archive '/proc/archive' is or will be: expected a folder that all nodes mount for writing" in told
    assert answer(Needed(archive=str(archive), probe=str(archive / settings.FILE), writes=True)) == []
    assert [path.name for path in archive.iterdir()] == [settings.FILE]


def test_what_a_node_lacks_is_told_with_its_name() -> None:
    places = (("embed.model", "/no/model"), ("the videos of root 'films'", "/no/films"))
    model, films = answer(Needed(archive="/a", places=places))
    assert "it has no '/no/model' (embed.model)" in model
    assert "it has no '/no/films' (the videos of root 'films')" in films


@pytest.mark.parametrize("writes", [True, False])
def test_an_archive_in_a_bucket_is_read_and_written_for_trial(s3: Loopback, moto: int, writes: bool) -> None:
    fill(moto, "there", {"archive/archive.json": b"{}"})
    assert answer(Needed(archive=PLACE, writes=writes)) == []
    # A POST deletes.
    assert {asked.method for asked in s3.asked} == ({"GET", "PUT", "POST"} if writes else {"GET"})


def test_a_role_that_may_read_and_not_write_is_refused_where_the_verb_writes(s3: Loopback, moto: int) -> None:
    fill(moto, "there", {"archive/archive.json": b"{}"})
    s3.fail("status", float("inf"), status=403, body=DENIED, where=lambda asked: asked.method == "PUT")
    assert answer(Needed(archive=PLACE)) == []
    (told,) = answer(Needed(archive=PLACE, writes=True))
    assert f"it cannot write to the archive '{PLACE}'" in told
    assert "none travel with a job" in told
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in told


def test_another_archive_and_videos_in_a_bucket_are_asked_for(s3: Loopback) -> None:
    s3.fail("status", float("inf"), status=403, body=DENIED)
    other, videos = answer(Needed(archive="/a", archives=("s3://there/other",), addresses=("s3://there/videos",)))
    assert "cannot read the archive 's3://there/other'" in other
    assert "cannot read the videos at 's3://there/videos'" in videos


def test_an_archive_of_the_submitting_machine_is_refused(tmp_path: Path, archive: Path) -> None:
    sent = job(archive)
    archive.rename(tmp_path / "kept")
    with pytest.raises(UsageError, match="the cluster has no archive there"):
        arrival.check(sent, {})
    settings.create_or_open(str(archive), {"clip_seconds": 2.0})
    with pytest.raises(UsageError, match="the cluster has another archive there"):
        arrival.check(sent, {})


def test_an_archive_in_a_bucket_of_another_server_is_refused(s3: Loopback, moto: int) -> None:
    place = "s3://there/own"
    fill(moto, "there", {})
    settings.create_or_open(place, {"clip_seconds": 1.0})
    sent = job(place)
    arrival._check_archive(sent, place)
    objects.delete(place, settings.FILE)
    with pytest.raises(UsageError, match=r"than the cluster, which has no archive there: .*AWS_ENDPOINT_URL"):
        arrival.check(sent, {})
    settings.create_or_open(place, {"clip_seconds": 2.0})
    with pytest.raises(UsageError, match="which has another archive there"):
        arrival.check(sent, {})
    s3.fail("status", float("inf"), status=403, body=DENIED)
    arrival._check_archive(sent, place)  # the nodes say that they have no credentials


def test_a_folder_on_a_head_alone_that_other_nodes_join_later_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        arrival.check(job("/proc/archive"), {}, unseen=True)
    told = " ".join(capsys.readouterr().err.split())
    assert "the nodes that come mount '/proc/archive' too; none that is there could be asked" in told


def test_a_cluster_grows_too_where_only_the_settings_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYDIST_RAY_MAX_CPUS", raising=False)
    monkeypatch.delenv("RAYDIST_RAY_MAX_GPUS", raising=False)
    assert not job_step._is_told_to_grow(["embed", "--set", "embed.batch=4"])
    assert job_step._is_told_to_grow(["embed", "--set", "ray.max_cpus=64"])
    monkeypatch.setenv("RAYDIST_RAY_MAX_GPUS", "4")
    assert job_step._is_told_to_grow(["embed"])


def test_a_folder_that_may_not_be_written_to_is_refused() -> None:
    with pytest.raises(UsageError, match="the cluster cannot write to '/proc'"):
        arrival.check(job("/proc/archive"), {})


def test_where_the_videos_lie_is_what_the_archive_says_unless_it_is_overridden(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    roots.remember(str(archive), {"films": str(tmp_path / "films")})
    assert arrival.places_of(str(archive), {}) == {"films": str(tmp_path / "films")}
    assert arrival.places_of(str(archive), {"films": "s3://b/films"}) == {"films": "s3://b/films"}
    assert arrival.places_of(str(tmp_path / "none"), {}) == {}


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
class TestOnNodes:
    """With Ray."""

    def test_each_node_is_asked_and_nothing_is_left(self, archive: Path) -> None:
        arrival.check(job(archive), {})
        assert [path.name for path in archive.iterdir()] == [settings.FILE]

    def test_what_a_node_says_ends_the_job_with_its_name(self, archive: Path, tmp_path: Path) -> None:
        sent = job(archive, places=[Place(what="--adapter", path=str(tmp_path / "none"))])
        with pytest.raises(ResourceError, match=r"node .*\(.*\): it has no .*none' \(--adapter\)"):
            arrival.check(sent, {})

    def test_what_the_submitting_machine_lacks_too_is_not_asked_for(self, archive: Path, tmp_path: Path) -> None:
        arrival.check(job(archive, places=[Place(what="inputs", path=str(tmp_path / "none"), there=False)]), {})

    def test_videos_in_buckets_are_asked_for_where_the_verb_reads_them(self, archive: Path) -> None:
        films = {"films": "s3://there//films"}  # no name that a bucket takes
        arrival.check(job(archive, reads=False), films)
        with pytest.raises(ResourceError, match="cannot read the videos at 's3://there//films'"):
            arrival.check(job(archive), films)

    def test_a_node_that_does_not_answer_is_told_and_left_out(
        self, archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(arrival, "_ANSWER_S", 0.0)
        arrival.check(job(archive), {})
        assert "has not answered in 0 s and was not checked" in " ".join(capsys.readouterr().err.split())

    def test_a_node_that_cannot_run_raydist_is_told(self, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def needs_what_is_missing(_: Needed) -> list[str]:
            import nothing_of_that_name  # type: ignore[import-not-found]  # that is the point

            return [str(nothing_of_that_name)]

        monkeypatch.setattr(arrival, "answer", needs_what_is_missing)
        with pytest.raises(ResourceError, match=r"cannot run raydist \(.*nothing_of_that_name"):
            arrival.check(job(archive), {})

    def test_what_goes_wrong_before_the_verb_is_a_message(self, tmp_path: Path) -> None:
        """Here a path that no file system takes."""
        document = {"job": "a-job", **job(f"{tmp_path}/{'x' * 300}")}
        (tmp_path / "raydist_job.json").write_text(json.dumps(document))
        words = [sys.executable, "-m", "raydist.cli.job", "raydist_job.json"]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        ended = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=200
        )
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "error: OSError" in ended.stderr
        assert "Traceback" not in ended.stderr
