"""Gemini's Files and Batch API, and both APIs' lists of models: what `llm_server` answers besides captions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import gemini_wire
from llm_wire import BadRequestError, Received, Reply

if TYPE_CHECKING:
    from llm_server import LLMServer

OVER = {"BATCH_STATE_SUCCEEDED", "BATCH_STATE_FAILED", "BATCH_STATE_CANCELLED", "BATCH_STATE_EXPIRED"}


@dataclass(slots=True, kw_only=True)
class File:
    """An uploaded file, or the answers of a job."""

    name: str
    mime_type: str
    data: bytes = b""
    display_name: str = ""
    generated: bool = False


@dataclass(slots=True, kw_only=True)
class Job:
    """A job of the batch API."""

    name: str
    display_name: str
    model: str
    lines: list[dict[str, Any]]
    done_at: float
    created: str
    state: str = "BATCH_STATE_PENDING"
    answers: str = ""
    asked: list[Received] = field(default_factory=list)


class Jobs:
    """Files and jobs of one server."""

    def __init__(self, server: LLMServer, batch_s: float) -> None:
        self._server = server
        self.batch_s = batch_s
        self.create_s = 0.0
        """How long the answer to a new job is in coming, when the job is there already."""
        self.ends = "BATCH_STATE_SUCCEEDED"
        """The state in which jobs end."""
        self.bad_keys: dict[str, dict[str, Any]] = {}
        """Key of a line -> its error or its whole response in the place of captions; `{}`: the line is left out."""
        self.fails: Callable[[str, str], int] = lambda method, path: 0
        """Status with which a request for a file or a job fails, by its method and path; 0: it does not."""
        self.files: dict[str, File] = {}
        self.jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        self._uploads: dict[str, File] = {}

    @property
    def billed(self) -> tuple[int, int]:
        """Tokens in and out of all lines of all jobs that were answered."""
        asked = [received for job in self.jobs.values() for received in job.asked if received.status == 200]
        return sum(received.tokens_in for received in asked), sum(received.tokens_out for received in asked)

    def other(self, method: str, path: str, query: Mapping[str, str], headers: Any, data: bytes) -> Reply:
        """Answer a request that asks for no captions."""
        status = self.fails(method, path)
        if status:
            return gemini_wire.error(status, "An internal error has occurred. Please retry.")
        reply = self._other(method, path, query, headers, data)
        if path.endswith(":batchGenerateContent"):
            self._server.ended.wait(self.create_s)
        return reply

    def _other(self, method: str, path: str, query: Mapping[str, str], headers: Any, data: bytes) -> Reply:
        with self._lock:
            if path == "/upload/v1beta/files":
                return self._upload(query, headers, data)
            if not path.startswith("/v1beta/"):
                return self._models(path, openai=True)
            name = path.removeprefix("/v1beta/")
            name, _, verb = name.partition(":")
            if name == "models" or (name.startswith("models/") and not verb):
                return self._models(path, openai=False)
            if verb == "countTokens":
                return self._counted(name, json.loads(data))
            if verb == "batchGenerateContent":
                return Reply(status=200, body=self._operation(self._create(name, json.loads(data)["batch"])))
            if name.split("/")[0] == "files":
                return self._file(method, name, verb)
            if name.split("/")[0] == "batches":
                return self._job(method, name, verb, query)
            raise BadRequestError(f"no such path {path!r}", 404)

    def _counted(self, model: str, body: dict[str, Any]) -> Reply:
        asked = body.get("generateContentRequest") or {"contents": body["contents"]}
        asked.pop("model", None)
        return Reply(status=200, body={"totalTokens": gemini_wire.read(model, asked)["tokens_in"]})

    def _models(self, path: str, openai: bool) -> Reply:
        names = sorted(self._server.models or ["any-model"])
        wanted = path.split("/models", 1)[1].strip("/") if "/models" in path else None
        if wanted is None:
            raise BadRequestError(f"no such path {path!r}", 404)
        if wanted and self._server.models is not None and wanted not in names:
            raise BadRequestError(f"The model {wanted!r} does not exist", 404)
        names = [wanted] if wanted else names
        if openai:
            found = [{"id": name, "object": "model", "created": 0, "owned_by": "loopback"} for name in names]
            return Reply(status=200, body=found[0] if wanted else {"object": "list", "data": found})
        listed = [
            {"name": f"models/{name}", "supportedGenerationMethods": ["generateContent", "batchGenerateContent"]}
            for name in names
        ]
        return Reply(status=200, body=listed[0] if wanted else {"models": listed})

    def _upload(self, query: Mapping[str, str], headers: Any, data: bytes) -> Reply:
        command = headers.get("X-Goog-Upload-Command", "")
        if command == "start":
            given = json.loads(data or b"{}").get("file", {})
            name = given.get("name") or f"files/up{len(self._uploads)}"
            mime = headers.get("X-Goog-Upload-Header-Content-Type", given.get("mimeType", ""))
            self._uploads[name] = File(name=name, mime_type=mime, display_name=given.get("displayName", ""))
            url = f"{self._server.url}/upload/v1beta/files?upload_id={name}"
            return Reply(status=200, body={}, headers={"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"})
        file = self._uploads[query["upload_id"]]
        if int(headers["X-Goog-Upload-Offset"]) != len(file.data):
            raise BadRequestError(f"offset {headers['X-Goog-Upload-Offset']}: there are {len(file.data)} bytes")
        file.data += data
        if "finalize" not in command:
            return Reply(status=200, body={}, headers={"X-Goog-Upload-Status": "active"})
        self.files[file.name] = file
        return Reply(status=200, body={"file": _shown(file)}, headers={"X-Goog-Upload-Status": "final"})

    def _file(self, method: str, name: str, verb: str) -> Reply:
        if name == "files":
            return Reply(status=200, body={"files": [_shown(file) for file in self.files.values()]})
        if name not in self.files:
            raise BadRequestError("You do not have permission to access the File, or it may not exist.", 403)
        if method == "DELETE":
            del self.files[name]
            return Reply(status=200, body={})
        if verb != "download":
            return Reply(status=200, body={"file": _shown(self.files[name])}["file"])
        if not self.files[name].generated:
            raise BadRequestError("Only generated files can be downloaded.")
        return Reply(status=200, body=self.files[name].data, headers={"Content-Type": "application/jsonl"})

    def _create(self, model: str, batch: dict[str, Any]) -> Job:
        source = batch["inputConfig"]
        if "fileName" in source:
            if source["fileName"] not in self.files:
                raise BadRequestError("You do not have permission to access the File, or it may not exist.", 403)
            lines = [json.loads(line) for line in self.files[source["fileName"]].data.decode().splitlines() if line]
            if len({line["key"] for line in lines}) != len(lines):
                raise BadRequestError("keys of the lines must be unique")
        else:
            lines = [{"key": str(n), **line} for n, line in enumerate(source["requests"]["requests"])]
        job = Job(
            name=f"batches/job{len(self.jobs)}",
            display_name=batch.get("displayName", ""),
            model=model,
            lines=lines,
            done_at=time.monotonic() + self.batch_s,
            created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        )
        self.jobs[job.name] = job
        return job

    def _job(self, method: str, name: str, verb: str, query: Mapping[str, str]) -> Reply:
        if name == "batches":
            jobs = list(self.jobs.values())[::-1]
            start = int(query.get("pageToken", 0))
            size = int(query.get("pageSize", 50))
            body: dict[str, Any] = {"operations": [self._operation(job) for job in jobs[start : start + size]]}
            return Reply(
                status=200, body={**body, **({"nextPageToken": str(start + size)} if len(jobs) > start + size else {})}
            )
        if name not in self.jobs:
            raise BadRequestError(f"Could not find the batch {name!r}.", 404)
        job = self.jobs[name]
        if method == "DELETE":
            del self.jobs[name]
            return Reply(status=200, body={})
        if verb == "cancel":
            job.state = "BATCH_STATE_CANCELLED"
            return Reply(status=200, body={})
        return Reply(status=200, body=self._operation(job))

    def _operation(self, job: Job) -> dict[str, Any]:
        if job.state not in OVER:
            job.state = "BATCH_STATE_RUNNING"
            if time.monotonic() >= job.done_at:
                job.state = self.ends
                if self.ends == "BATCH_STATE_SUCCEEDED":
                    self._run(job)
        metadata: dict[str, Any] = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": job.model,
            "displayName": job.display_name,
            "createTime": job.created,
            "updateTime": job.created,
            "batchStats": {"requestCount": str(len(job.lines))},
            "state": job.state,
            "name": job.name,
        }
        body: dict[str, Any] = {"name": job.name, "metadata": metadata}
        if job.answers:
            metadata["output"] = {"responsesFile": job.answers}
            body |= {"done": True, "response": {"responsesFile": job.answers}}
        elif job.state in OVER:
            body |= {"done": True, "error": {"code": 13, "message": f"the job ended as {job.state}"}}
        return body

    def _run(self, job: Job) -> None:
        answers = []
        for line in job.lines:
            if self.bad_keys.get(line["key"]) == {}:
                continue
            answers.append(json.dumps({"key": line["key"], **self._answered(job, line)}))
        job.answers = f"files/batch-{job.name.rpartition('/')[2]}"
        data = "\n".join(answers).encode()
        self.files[job.answers] = File(name=job.answers, mime_type="application/jsonl", data=data, generated=True)

    def _answered(self, job: Job, line: dict[str, Any]) -> dict[str, Any]:
        body = line["request"]
        try:
            fields = gemini_wire.read(job.model, body)
        except BadRequestError as bad:
            return {"error": {"code": bad.status, "message": str(bad), "status": "INVALID_ARGUMENT"}}
        received = Received(
            at=time.monotonic(), api="gemini", key="", body=body, connection=("batch", 0), status=200, **fields
        )
        job.asked.append(received)
        if line["key"] in self.bad_keys:
            received.status = 400
            return self.bad_keys[line["key"]]
        fault = self._server.drawn(received.content, 1)
        reply = self._server.unfit(received) or self._server.reply(received, fault)
        received.fault, received.status = fault, reply.status
        if reply.status != 200 or isinstance(reply.body, bytes):
            said = reply.body.get("error", {}).get("message") if isinstance(reply.body, dict) else None
            return {"error": {"code": reply.status or 13, "message": said or f"the line failed: {fault}"}}
        return {"response": reply.body}


def _shown(file: File) -> dict[str, Any]:
    shown = {
        "name": file.name,
        "displayName": file.display_name,
        "mimeType": file.mime_type,
        "sizeBytes": str(len(file.data)),
        "state": "ACTIVE",
        "source": "GENERATED" if file.generated else "UPLOADED",
        "uri": f"https://generativelanguage.googleapis.com/v1beta/{file.name}",
    }
    if file.generated:
        shown["downloadUri"] = f"{shown['uri']}:download?alt=media"
    return shown
