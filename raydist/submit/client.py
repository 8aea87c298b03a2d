"""The cluster's job server: its address, a client of it, and its errors in words that help.

Reads     RAY_API_SERVER_ADDRESS, RAY_ADDRESS; RAY_AUTH_MODE, RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH, which Ray reads
Promises  an address that is none, or where nobody or somebody else answers, is told within seconds
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raydist.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_ANSWERS_S = 5.0
_CONNECTS_S, _READS_S = 10.0, 60.0
_UPLOADS_S = 600.0
"""For the whole of what is sent, which is 100 MiB at most, and once more for the answer to it."""
_EXPECTED = "expected the address of the cluster's job server, such as http://head:8265"
_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
_NOT_JOBS = {10001: "Ray's client port", 6379: "the port of Ray's control store (GCS)"}


class UnknownJobError(UsageError):
    """The job server has no job of that id."""


def address_of(given: str | None) -> str:
    """The job server's address: what was given, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS where it is one.

    Raises:
        UsageError: none was given, or it is no address of a job server.
    """
    text, origin = given or "", "--address"
    for name in () if text else VARIABLES:
        if os.environ.get(name):
            text, origin = os.environ[name], name
            break
    if not text:
        raise UsageError(f"no cluster was named: {_EXPECTED}, with --address or in RAY_API_SERVER_ADDRESS")
    whole = text if "://" in text else f"http://{text}"
    try:
        split = urlsplit(whole)
        host, port = split.hostname, split.port
    except ValueError as error:
        raise UsageError(f"{origin} {text!r} is no address ({error}): {_EXPECTED}") from error
    if split.scheme == "ray" or port in _NOT_JOBS:
        kind = "an address of Ray's client" if split.scheme == "ray" else _NOT_JOBS[port or 0]
        raise UsageError(f"{origin} {text!r} is {kind}: {_EXPECTED}; here probably http://{host}:8265")
    if split.scheme not in ("http", "https") or not host or "@" in split.netloc or text == "auto":
        raise UsageError(f"{origin} {_public(text)!r}: {_EXPECTED}")
    return whole.rstrip("/")


def _public(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//", text)


def connect(address: str, *, any_version: bool = True) -> JobSubmissionClient:
    """A client of the job server.

    Args:
        any_version: also of a cluster with another Ray than this machine's.

    Raises:
        ResourceError: nobody answers there, or somebody else; a wrong token; another version of Ray.
    """
    answer = _asked(address)
    if not any_version:
        _require_own(address, answer)
    before = os.environ.get(VARIABLES[0])
    os.environ[VARIABLES[0]] = address  # Ray lets the environment go before the argument
    try:
        with errors(address):
            client = _client(address)
    finally:
        if before is None:
            del os.environ[VARIABLES[0]]
        else:
            os.environ[VARIABLES[0]] = before
    if not any_version:  # a cluster with a token says its version to who has it
        _require_own(address, answer or str(client._server_ray_version or ""))
    return client


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    for name in _CHATTY:  # they set their own level when they are imported
        logging.getLogger(name).setLevel(logging.WARNING)

    class Impatient(JobSubmissionClient):
        """Ray's client waits for ever for an answer that was lost."""

        def _do_request(self, method: str, endpoint: str, **rest: Any) -> Any:
            sends = method == "PUT"
            rest.setdefault("timeout", (_UPLOADS_S, _UPLOADS_S) if sends else (_CONNECTS_S, _READS_S))
            return super()._do_request(method, endpoint, **rest)

    return Impatient(address)


def _require_own(address: str, version: str) -> None:
    from ray import __version__ as own

    if version and version != own:
        raise ResourceError(
            f"the cluster at {address} runs Ray {version}, this machine {own}: expected the same; install "
            f"ray=={version} here, or --any-version submits all the same"
        )


def _asked(address: str) -> str:
    """The Ray version that answers; empty where a token is wanted first."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=_ANSWERS_S) as answer:
            return str(json.load(answer)["ray_version"])
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return ""
        raise ResourceError(_somebody_else(address, f"it said {error.code}")) from error
    except (http.client.HTTPException, ValueError, KeyError, TypeError, ConnectionResetError) as error:
        raise ResourceError(_somebody_else(address, "it speaks another protocol")) from error
    except OSError as error:  # refused, no such host, no answer in time
        reason = getattr(error, "reason", error)
        if isinstance(reason, ConnectionResetError | http.client.HTTPException):
            raise ResourceError(_somebody_else(address, "it speaks another protocol")) from error
        raise ResourceError(
            f"nobody answers at {address} ({reason}): is the cluster up, is 8265 its dashboard's port, and can this "
            "machine reach it? `kubectl port-forward service/...-head-svc 8265`, `ray dashboard cluster.yaml` or "
            "`ssh -L 8265:localhost:8265 head` bring it to http://127.0.0.1:8265"
        ) from error


def _somebody_else(address: str, why: str) -> str:
    return f"what answers at {address} is no job server of Ray ({why}): {_EXPECTED}"


@contextmanager
def errors(address: str, job: str = "") -> Iterator[None]:
    """Turn what Ray's client raises into errors that say what to do.

    Args:
        job: the job that is asked for; empty: none is.
    """
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ResourceError(
            f"the cluster at {address} wants another token: set RAY_AUTH_MODE=token, and its token in RAY_AUTH_TOKEN "
            f"or in a file that RAY_AUTH_TOKEN_PATH names (default: ~/.ray/auth_token). {_first_line(error)}"
        ) from error
    except (requests.exceptions.RequestException, aiohttp.ClientError, ConnectionError) as error:
        raise ResourceError(f"the cluster at {address} does not answer any more ({_first_line(error)})") from error
    except RuntimeError as error:
        text = str(error)
        if job and "status code 404" in text:
            raise UnknownJobError(
                f"{address} knows no job {job!r}: `raydist jobs list --address {address}` has those that there are"
            ) from error
        raise ResourceError(f"the job server at {address} refused: {_last_line(text)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _last_line(text: str) -> str:
    return (text.strip().rstrip(".").splitlines() or [""])[-1][:500]
