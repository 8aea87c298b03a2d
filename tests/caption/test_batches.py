"""Gemini's Batch API through its real client: jobs that end well, in part, not at all, and after a kill."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from asks import KEY, in_threads, picture
from llm_server import LLMServer, Received, caption_of

from raydist.caption import answers, batch_records, batches
from raydist.caption.asker import Task
from raydist.caption.asking import Access
from raydist.caption.batches import BatchAsker
from raydist.caption.patience import Patience
from raydist.caption.prices import Price
from raydist.caption.prompt import Prompt
from raydist.caption.tables import PREPARED
from raydist.models.lengths import TextLimit
from raydist.records import REASONS

PRICE = Price(input=0.15, output=1.25)
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer() as running:
        yield running


def task(url: str, model: str = "gemini-2.5-flash", hints: str = "", tries: int = 3) -> Task:
    return Task(
        access=Access(provider="gemini", model=model, base_url=url, timeout_s=10),
        origin=model,
        prompt=Prompt(hints=hints, details=("plain", "brief"), room=30, send="frames", frames=2),
        limit=TextLimit(32),
        price=PRICE,
        patience=Patience(tries=tries, longest_s=0.1),
    )


def frames(number: int) -> list[bytes]:
    return [picture(number * 10 + frame) for frame in range(2)]


def prepared(*numbers: int, **changed: Any) -> pa.Table:
    """Clips made ready; `changed` is of the last one."""
    rows = [
        {
            "clip_key": number - 1000,  # keys are of either sign
            "clip_id": f"v.mp4#t={number},{number + 1}",
            "video_id": "v.mp4",
            "fingerprint": f"f{number}",
            "reason": "",
            "detail": "",
            "prepare_s": 0.1,
            "prepare_cpu_s": 0.1,
            "frames": frames(number),
            "clip": b"",
            "width_px": 64,
            "height_px": 48,
            "duration_s": 1.0,
        }
        for number in numbers
    ]
    rows[-1] |= changed
    return pa.Table.from_pylist(rows, PREPARED)


def run(asker: BatchAsker, table: pa.Table) -> dict[int, dict[str, Any]]:
    """Rows by the number of the clip; each clip once."""
    rows = [row for part in asker(table) for row in part.to_pylist()]
    found = {row["clip_key"] + 1000: row for row in rows}
    assert len(rows) == len(found) == table.num_rows
    return found


def asked(server: LLMServer) -> list[Received]:
    return [received for job in server.jobs.jobs.values() for received in job.asked]


def records(folder: Path) -> list[Path]:
    return sorted((folder / batch_records.FOLDER).glob("*"))


def test_a_table_of_clips_is_one_job_and_every_clip_gets_its_own_captions(server: LLMServer, tmp_path: Path) -> None:
    server.jobs.batch_s = 0.2
    asker = BatchAsker(task(server.url), str(tmp_path), 0.05)
    rows = run(asker, prepared(*range(20), 999, reason="unreadable", detail="no such disk"))
    assert len(server.jobs.jobs) == 1
    for number in range(20):
        row = rows[number]
        assert row["captions"] == [caption_of(frames(number), number=n).rstrip(".") + "." for n in range(2)]
        assert (row["reason"], row["left"], row["requests"]) == ("", False, 1)
        assert row["prompt_hash"] == asker._task.prompt.hash
    assert (rows[999]["reason"], rows[999]["detail"], rows[999]["requests"]) == ("unreadable", "no such disk", 0)
    tokens_in, tokens_out = server.jobs.billed
    assert sum(row["tokens_in"] for row in rows.values()) == tokens_in
    assert sum(row["tokens_out"] for row in rows.values()) == tokens_out
    assert sum(row["cost"] for row in rows.values()) == pytest.approx(PRICE.cost(tokens_in, tokens_out))
    assert not server.received  # no request besides those of the job
    assert not records(tmp_path)
    assert not [file for file in server.jobs.files.values() if not file.generated]  # the requests are deleted
    assert {row["clip_key"] for row in answers.all_kept(str(tmp_path))} == {n - 1000 for n in range(20)}


def test_answers_that_are_kept_are_not_asked_for_again(server: LLMServer, tmp_path: Path) -> None:
    one = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
    two = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2, 3))
    assert two[1] == one[1]
    assert len(asked(server)) == 3
    run(BatchAsker(task(server.url, hints="Boats."), str(tmp_path), 0.05), prepared(1))  # another prompt is new work
    assert len(asked(server)) == 4


def test_lines_that_fail_have_reasons_and_the_others_captions(server: LLMServer, tmp_path: Path) -> None:
    def key(number: int) -> str:
        return f"{(number - 1000) & (1 << 64) - 1:016x}"

    usage = {"usageMetadata": {"promptTokenCount": 500}}
    cut = {"candidates": [{"finishReason": "MAX_TOKENS", "content": {"parts": [{"text": '{"capt'}]}}], **usage}
    empty = {"candidates": [{"content": {"parts": [{"text": '{"captions": ["", ""]}'}]}}], **usage}
    server.jobs.bad_keys = {
        key(1): {"error": {"code": 3, "message": "Unable to process input image."}},
        key(2): {"error": {"code": 13, "message": "Internal error encountered.", "status": "INTERNAL"}},
        key(3): {"response": {"promptFeedback": {"blockReason": "SAFETY"}, **usage}},
        key(4): {"response": cut},
        key(5): {},
        key(6): {"response": empty},
        key(7): {"error": "went wrong"},
        key(8): {"response": {}},
    }
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(*range(10)))
    reasons = {number: rows[number]["reason"] for number in range(10)}
    assert reasons == {
        0: "", 1: "refused", 2: "provider", 3: "refused", 4: "bad_answer", 5: "provider", 6: "no_caption",
        7: "provider", 8: "bad_answer", 9: "",
    }  # fmt: skip
    assert all(reason in REASONS for reason in reasons.values() if reason)
    assert "Unable to process input image" in rows[1]["detail"]
    assert rows[3]["tokens_in"] == 500
    assert rows[3]["cost"] > 0
    assert not any(row["left"] for row in rows.values())
    assert not records(tmp_path)


def test_captions_that_are_too_long_are_cut_without_another_job(tmp_path: Path) -> None:
    with LLMServer(faults={"long": 1}) as server:
        rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
        assert all(row["cut"] == [True, True] for row in rows.values())
        assert all(TextLimit(32).fits(caption) for row in rows.values() for caption in row["captions"])
        assert len(server.jobs.jobs) == 1


@pytest.mark.parametrize("state", ["FAILED", "EXPIRED", "CANCELLED"])
def test_a_job_that_ends_without_answers_leaves_its_clips_and_says_so(
    server: LLMServer, tmp_path: Path, state: str
) -> None:
    server.jobs.ends = f"BATCH_STATE_{state}"
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
    assert all(row["left"] and not row["reason"] for row in rows.values())
    assert f"ended as {state.lower()}" in rows[1]["detail"]
    assert not records(tmp_path)
    server.jobs.ends = "BATCH_STATE_SUCCEEDED"
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
    assert all(row["captions"] for row in rows.values())


def test_a_wrong_key_leaves_the_clips_and_keeps_itself_to_itself(tmp_path: Path) -> None:
    with LLMServer(keys=["another"], echo=True) as server:
        asker = BatchAsker(task(server.url), str(tmp_path), 0.05)
        rows = run(asker, prepared(1, 2))
        assert all(row["left"] for row in rows.values())
        assert "API key not valid" in rows[1]["detail"]
        assert KEY not in str(rows)
        assert KEY.encode() not in pickle.dumps(task(server.url))
        assert not records(tmp_path)


def test_no_key_and_no_key_in_any_file(server: LLMServer, tmp_path: Path) -> None:
    server.jobs.batch_s = 30
    asker = BatchAsker(task(server.url), str(tmp_path), 0.05)
    threading.Thread(target=lambda: list(asker(prepared(1))), daemon=True).start()
    wait_for(lambda: records(tmp_path) and "batches/job" in records(tmp_path)[0].read_text())
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_a_model_that_refuses_a_way_of_asking_gets_another_job(tmp_path: Path) -> None:
    with LLMServer(thinking="never") as server:
        rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
        assert all(row["captions"] for row in rows.values())
        assert len(server.jobs.jobs) == 2
        assert sum(received.status == 200 for received in asked(server)) == 2


def test_a_file_that_would_be_too_large_becomes_several_jobs(
    server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FILE_BYTES", 10_000)
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(*range(12)))
    assert len(server.jobs.jobs) > 1
    assert all(rows[number]["captions"][0] == caption_of(frames(number)) for number in range(12))
    assert len(asked(server)) == 12


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import test_batches as here
from raydist.caption.batches import BatchAsker
list(BatchAsker(here.task(sys.argv[2]), sys.argv[3], 0.05)(here.prepared(*map(int, sys.argv[4].split(",")))))
"""


def wait_for(what: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begin(server: LLMServer, folder: Path, numbers: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own, to be killed."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent / "clips")])
    environment = {**os.environ, "GEMINI_API_KEY": KEY, "PYTHONPATH": paths}
    arguments = [sys.executable, "-c", SCRIPT, str(HERE), server.url, str(folder), numbers]
    return subprocess.Popen(arguments, env=environment)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("moment", ["waits", "creates"])
def test_a_killed_run_finds_its_job_again_and_pays_for_nothing_twice(
    server: LLMServer, tmp_path: Path, moment: str
) -> None:
    server.jobs.batch_s = 3.0
    server.jobs.create_s = 60.0 if moment == "creates" else 0.0
    process = begin(server, tmp_path, "1,2,3,4")
    wait_for(lambda: server.jobs.jobs)
    if moment == "waits":
        wait_for(lambda: any("batches/" in call[1] for call in server.calls))
    kill(process)
    (record,) = records(tmp_path)
    assert json.loads(record.read_text())["job"] == ("" if moment == "creates" else "batches/job0")
    server.jobs.create_s = 0.0
    # The next run's tables are others: some clips of the job, with others, in two tables.
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(3, 7, 1))
    rows |= run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(2, 8, 4))
    assert {number: row["captions"][0] for number, row in rows.items()} == {
        number: caption_of(frames(number)) for number in (1, 2, 3, 4, 7, 8)
    }
    assert len(asked(server)) == 6
    assert len({received.content for received in asked(server)}) == 6
    assert not records(tmp_path)


def test_a_run_killed_before_its_job_was_made_begins_anew(server: LLMServer, tmp_path: Path) -> None:
    clips = ((1 - 1000, "f1"), (2 - 1000, "f2"))
    wanted = task(server.url)
    batch_records.Record(
        name=batch_records.name_of(clips, "any"),
        server=batch_records.server_of(server.url),
        origin=wanted.origin,
        prompt_hash=wanted.prompt.hash,
        told={},
        clips=clips,
        since=time.time(),
    ).save(str(tmp_path))
    rows = run(BatchAsker(wanted, str(tmp_path), 0.05), prepared(1, 2))
    assert all(row["captions"] for row in rows.values())
    assert not records(tmp_path)
    assert len(asked(server)) == 2


def test_a_job_that_the_server_has_lost_is_made_again(server: LLMServer, tmp_path: Path) -> None:
    server.jobs.batch_s = 2.0
    process = begin(server, tmp_path, "1,2")
    wait_for(lambda: any("batches/" in call[1] for call in server.calls))
    kill(process)
    server.jobs.jobs.clear()
    server.jobs.batch_s = 0.0
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
    assert all(row["captions"] for row in rows.values())
    assert not records(tmp_path)


def test_a_job_is_not_made_twice_when_the_answer_to_making_it_is_lost(server: LLMServer, tmp_path: Path) -> None:
    server.jobs.create_s = 2.0
    wanted = task(server.url)
    hasty = Task(
        access=Access(provider="gemini", model="gemini-2.5-flash", base_url=server.url, timeout_s=0.5),
        origin=wanted.origin,
        prompt=wanted.prompt,
        limit=wanted.limit,
        price=None,
        patience=wanted.patience,
    )
    rows = run(BatchAsker(hasty, str(tmp_path), 0.05), prepared(1, 2))
    assert all(row["captions"] for row in rows.values())
    assert len(server.jobs.jobs) == 1


def test_a_server_that_fails_now_and_then_is_asked_again(server: LLMServer, tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()

    def once(method: str, path: str) -> int:
        if (method, path) in seen:
            return 0
        seen.add((method, path))
        return 503

    server.jobs.fails = once
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
    assert all(row["captions"] for row in rows.values())
    assert len(seen) >= 4  # upload, create, get, download
    assert len(asked(server)) == 2


@pytest.mark.parametrize("path", ["/batches/job0", ":download"])
def test_a_server_that_fails_for_long_leaves_the_job_to_the_next_run(
    server: LLMServer, tmp_path: Path, path: str
) -> None:
    server.jobs.fails = lambda _, asked_for: 503 if asked_for.endswith(path) else 0
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
    assert all(row["left"] and "503" in row["detail"] for row in rows.values())
    assert len(records(tmp_path)) == 1
    server.jobs.fails = lambda *_: 0
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(2, 1))
    assert all(row["captions"] for row in rows.values())
    assert len(server.jobs.jobs) == 1
    assert not records(tmp_path)


def test_answers_that_the_server_has_deleted_are_asked_for_again(server: LLMServer, tmp_path: Path) -> None:
    gone: list[str] = []

    def once(method: str, path: str) -> int:
        if ":download" in path and not gone:
            gone.append(path)
            return 404
        return 0

    server.jobs.fails = once
    rows = run(BatchAsker(task(server.url), str(tmp_path), 0.05), prepared(1, 2))
    assert all(row["captions"] for row in rows.values())
    assert len(server.jobs.jobs) == 2


def test_several_threads_ask_by_one_asker(server: LLMServer, tmp_path: Path) -> None:
    server.jobs.batch_s = 0.5
    asker = BatchAsker(task(server.url), str(tmp_path), 0.05)
    found: dict[int, dict[str, Any]] = {}

    def work(thread: int) -> None:
        found.update(run(asker, prepared(*range(thread * 10, thread * 10 + 10))))

    assert not in_threads(6, work)
    assert all(found[number]["captions"][0] == caption_of(frames(number)) for number in range(60))
    assert (len(server.jobs.jobs), len(asked(server))) == (6, 60)
    assert not records(tmp_path)


def test_two_runs_that_share_an_old_job_take_each_its_own_clips(server: LLMServer, tmp_path: Path) -> None:
    server.jobs.batch_s = 2.0
    process = begin(server, tmp_path, "1,2,3,4")
    wait_for(lambda: any("batches/" in call[1] for call in server.calls))
    kill(process)
    found: dict[int, dict[str, Any]] = {}

    def work(thread: int) -> None:
        asker = BatchAsker(task(server.url), str(tmp_path), 0.05)
        found.update(run(asker, prepared(*((1, 3), (2, 4))[thread])))

    assert not in_threads(2, work)
    assert all(found[number]["captions"][0] == caption_of(frames(number)) for number in (1, 2, 3, 4))
    assert len(asked(server)) == 4


def test_records_of_other_servers_prompts_and_times_are_left_alone(server: LLMServer, tmp_path: Path) -> None:
    clips = ((1 - 1000, "f1"),)
    wanted = task(server.url)
    for number, changed in enumerate(
        ({"server": "other"}, {"origin": "other"}, {"prompt_hash": "other"}, {"clips": ((1 - 1000, "f0"),)})
    ):
        same = {"server": batch_records.server_of(server.url), "origin": wanted.origin, "clips": clips}
        fields = {**same, "prompt_hash": wanted.prompt.hash, "told": {}, "since": time.time(), **changed}
        batch_records.Record(name=f"r{number}", job="batches/nowhere", **fields).save(str(tmp_path))
    (tmp_path / batch_records.FOLDER / "broken.json").write_text("{")
    rows = run(BatchAsker(wanted, str(tmp_path), 0.05), prepared(1))
    assert rows[1]["captions"]
    assert len(records(tmp_path)) == 4
