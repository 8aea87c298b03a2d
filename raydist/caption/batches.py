"""The Ray actor that asks by Gemini's Batch API: half the price, and answers within a day.

Reads     `tables.PREPARED`, a job for each table that it is given (for more than one, if its file would be too large)
Gives     `tables.ANSWERED`; clips of a job that ended without answers are left for another run, and `detail` says why
Promises  a job is written down before it is made, and its answers are kept before it is forgotten: after a kill the
          next run takes the answers of the jobs that there are, whatever its own clips are, and pays for none twice
"""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist.caption import answers, batch_records, providers
from raydist.caption.asker import Task, row_of
from raydist.caption.asking import Ask, AskError, Media
from raydist.caption.batch_jobs import EndedError, GoneError, Jobs
from raydist.caption.batch_records import Clip, Record
from raydist.caption.faults import Fault, failed, shown
from raydist.caption.gemini import Style, answer_of
from raydist.caption.judge import cut, judged
from raydist.caption.keys import base_url
from raydist.caption.one import Outcome
from raydist.caption.tables import ANSWERED

FILE_BYTES = 1_500_000_000
"""Of one job's requests: the provider takes 2 GB."""

_ROUNDS = 4
"""Times that clips may be put into another job: when a model refuses a way of asking, or has lost a job."""
_STATUS = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 13: 500, 14: 503, 16: 401}
"""Codes of google.rpc, which lines of answers may have, as those of HTTP."""
_REASONS = {"refused": "refused", "clip": "refused", "bad_answer": "bad_answer", "too_big": "too_big"}
_MAY_HAVE_WORKED = ("timeout", "connection", "server")

Row = dict[str, Any]


class AgainError(Exception):
    """A clip that has to be asked about once more, and cost nothing."""


@dataclass(slots=True)
class _Table:
    """One table of clips that wait for answers."""

    table: pa.Table
    rows: dict[Clip, int]
    """Clip -> its row; those that have an answer go."""
    began: float

    def clip(self, clip: Clip) -> Row:
        """A row, as Python's values; the pictures of one clip at a time."""
        (row,) = self.table.slice(self.rows[clip], 1).to_pylist()
        return dict(row)


class BatchAsker:
    """A Ray actor: prepared clips in, answered clips out. Used by several threads at once."""

    def __init__(self, task: Task, location: str, poll_s: float) -> None:
        """
        Args:
            location: of the archive.
            poll_s: the longest pause between two looks at a job.
        """
        providers.require(task.access)
        self._task = task
        self._location = location
        self._server = batch_records.server_of(base_url(task.access))
        self._jobs = Jobs(task.access, task.patience, poll_s)
        self._style = Style(task.access.model)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Caption all clips that are ready; the others keep their reason."""
        told: list[Row] = []
        waiting = _Table(table, {}, time.monotonic())
        for number, clip in enumerate(table.drop_columns(["frames", "clip"]).to_pylist()):
            if clip["reason"]:
                told.append(row_of(clip, self._task, Outcome(reason=clip["reason"], detail=clip["detail"]), 0.0))
            elif known := answers.kept(self._location, clip, self._task.origin, self._task.prompt.hash):
                told.append(known)
            else:
                waiting.rows[clip["clip_key"], clip["fingerprint"]] = number
        if told:
            yield pa.Table.from_pylist(told, ANSWERED)
        why = ""
        for _ in range(_ROUNDS):
            if not waiting.rows:
                return
            records, why = self._asked(waiting)
            for record, clips in records:
                rows, problem = self._taken(record, clips, waiting)
                why = problem or why
                if rows:
                    yield pa.Table.from_pylist(rows, ANSWERED)
            if why:
                break
        if waiting.rows:
            why = why or "the server lost its jobs again and again"
            left = [self._row(waiting, clip, Outcome(left=True, detail=why)) for clip in list(waiting.rows)]
            yield pa.Table.from_pylist(left, ANSWERED)

    def _asked(self, waiting: _Table) -> tuple[list[tuple[Record, set[Clip]]], str]:
        """Jobs for all clips that wait: those that there are, and new ones; and why some clips have none."""
        found = []
        asked: set[Clip] = set()
        prompt = self._task.prompt.hash
        try:
            records = batch_records.matching(self._location, self._server, self._task.origin, prompt, waiting.rows)
            for record, clips in records:
                known = record if record.job else self._found(record)
                if known is None:
                    record.forget(self._location)
                    continue
                found.append((known, clips))
                asked |= clips
            new = [clip for clip in waiting.rows if clip not in asked]
            with tempfile.TemporaryDirectory(prefix="raydist-") as folder:
                for path, clips_in, told in self._files(waiting, new, Path(folder)):
                    found.append((self._made(path, clips_in, told), set(clips_in)))
        except AskError as error:
            return found, error.detail
        return found, ""

    def _found(self, record: Record) -> Record | None:
        """The record of a job that may have been made before its run was killed."""
        job = self._jobs.found(record.name, record.since)
        if not job:
            return None
        known = replace(record, job=job)
        known.save(self._location)
        return known

    def _files(
        self, waiting: _Table, clips: Sequence[Clip], folder: Path
    ) -> Iterator[tuple[Path, list[Clip], dict[str, Any]]]:
        """Files of requests, each one job: where it is, its clips, and how they are asked."""
        rest = list(clips)
        while rest:
            path, size, part = folder / "requests.jsonl", 0, []
            told: dict[str, Any] = {}
            with path.open("wb") as file:
                while rest and size < FILE_BYTES:
                    line, told = self._line(waiting.clip(rest[0]))
                    size += file.write(line)
                    part.append(rest.pop(0))
            yield path, part, told

    def _line(self, clip: Row) -> tuple[bytes, dict[str, Any]]:
        prompt = self._task.prompt
        media = Media(frames=tuple(clip["frames"] or ()), clip=clip["clip"] or b"")
        ask = Ask(
            name=clip["clip_id"],
            media=media,
            words=prompt.words(),
            captions=len(prompt.details),
            max_tokens=prompt.max_tokens,
        )
        told = self._style.generation(ask)
        shown_media = [("image/jpeg", data) for data in media.frames] + [("video/mp4", media.clip)] * bool(media.clip)
        parts: list[dict[str, Any]] = [
            {"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}} for mime, data in shown_media
        ]
        contents = [{"role": "user", "parts": [*parts, {"text": ask.words}]}]
        line = {"key": _key(clip["clip_key"]), "request": {"contents": contents, "generationConfig": told}}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n", told

    def _made(self, path: Path, clips: Sequence[Clip], told: dict[str, Any]) -> Record:
        """Make a job.

        Raises:
            AskError: it cannot be made.
        """
        task = self._task
        settings = json.dumps(told, sort_keys=True)
        record = Record(
            name=batch_records.name_of(clips, self._server, task.origin, task.prompt.hash, settings),
            server=self._server,
            origin=task.origin,
            prompt_hash=task.prompt.hash,
            told=told,
            clips=tuple(clips),
            since=time.time(),
        )
        record = replace(record, file=self._jobs.upload(path, record.name))
        record.save(self._location)
        try:
            record = replace(record, job=self._jobs.create(record.name, record.file, record.since))
        except AskError as error:
            if error.kind not in _MAY_HAVE_WORKED:  # else the next run looks whether there is a job
                record.forget(self._location)
            raise
        record.save(self._location)
        return record

    def _taken(self, record: Record, clips: set[Clip], waiting: _Table) -> tuple[list[Row], str]:
        """Rows of the clips that a job answered, kept on the disk; and why others must wait for another run."""
        rows: list[Row] = []
        again: set[Clip] = set()
        places = {_key(clip[0]): clip for clip in clips}
        try:
            for line in self._jobs.answers(record.job):
                clip = places.pop(line["key"], None)
                if clip is None:
                    continue
                try:
                    rows.append(self._kept(waiting, clip, self._outcome(line, record.told)))
                except AgainError:
                    again.add(clip)
        except AskError as error:
            return rows, error.detail  # the job is there: the next run finds it by its record
        except EndedError as error:
            self._forget(record)
            return rows, f"{error}; its clips are asked about again by another run"
        except GoneError:
            self._forget(record)
            return rows, ""
        for clip in places.values():
            lost = Outcome(reason="provider", detail=f"{record.job} has no answer for it", requests=1)
            rows.append(self._kept(waiting, clip, lost))
        if record.taken(self._location, clips):
            self._forget(record)
        return rows, ""

    def _forget(self, record: Record) -> None:
        record.forget(self._location)
        if record.file:
            self._jobs.delete_file(record.file)

    def _outcome(self, line: dict[str, Any], told: Any) -> Outcome:
        """What a line of answers says.

        Raises:
            AgainError: of the way of asking, which is another one from now on.
        """
        outcome = Outcome(requests=1)
        wanted = len(self._task.prompt.details)
        try:
            answer = answer_of(_response(line, self._task.access.model), wanted, self._style, told)
        except AskError as error:
            if self._style.learnt(told, error) is not error:
                raise AgainError from None
            outcome.reason, outcome.detail = _REASONS.get(error.kind, "provider"), error.detail
            outcome.tokens_in, outcome.tokens_out = error.tokens_in, error.tokens_out
        else:
            outcome.tokens_in, outcome.tokens_out = answer.tokens_in, answer.tokens_out
            found = judged(answer.captions, wanted, self._task.limit)
            outcome.reason, outcome.detail = found.reason, found.detail
            if not found.reason:  # a second job for fewer words would take another day
                outcome.captions, outcome.cut = cut(found.captions, self._task.limit)
        if self._task.price is not None:
            outcome.cost = self._task.price.cost(outcome.tokens_in, outcome.tokens_out)
        return outcome

    def _kept(self, waiting: _Table, clip: Clip, outcome: Outcome) -> Row:
        row = self._row(waiting, clip, outcome)
        answers.keep(self._location, row)
        return row

    def _row(self, waiting: _Table, clip: Clip, outcome: Outcome) -> Row:
        row = row_of(waiting.clip(clip), self._task, outcome, time.monotonic() - waiting.began)
        del waiting.rows[clip]
        return row


def _key(clip_key: int) -> str:
    return f"{clip_key & (1 << 64) - 1:016x}"


def _response(line: dict[str, Any], model: str) -> dict[str, Any]:
    """The response of a line.

    Raises:
        AskError: it has an error in its place.
    """
    response = line.get("response")
    if isinstance(response, dict):
        return response
    error = line.get("error") or line.get("status") or {}
    said = error if isinstance(error, dict) else {"message": str(error)}
    code = said.get("code")
    status = _STATUS.get(code, code) if isinstance(code, int) else 500
    message = str(said.get("message") or shown(json.dumps(line)))
    fault = Fault(
        status=status, word=str(said.get("status", "")), message=message, body=json.dumps(said), retry_after_s=None
    )
    raise failed(f"Gemini ({model}), in a job,", fault)
