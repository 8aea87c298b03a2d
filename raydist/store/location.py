"""Where things lie below an archive's location, a folder or an object-store URI.

Every path of the store is built here by joining strings with `/`, so that a URI works wherever a folder does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from raydist import address
from raydist.errors import UsageError
from raydist.store import credentials

_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


def is_uri(location: str) -> bool:
    """Whether `location` names an object store, as `s3://bucket/archive` does."""
    return _URI.match(location) is not None and not location.startswith("file://")


def join(location: str, *parts: str) -> str:
    """`location` and what lies below it, as one path or URI."""
    return "/".join([location.rstrip("/") or "/", *parts])


def folder(location: str) -> Path:
    """The folder of a local archive.

    Raises:
        ValueError: for an object-store URI; ask `is_uri` first.
    """
    if is_uri(location):
        raise ValueError(f"{location!r} is a URI, expected a folder")
    return Path(location.removeprefix("file://"))


def table_uri(location: str, table: str) -> str:
    """Where a table lies, so that `lancedb.connect(location)` lists it."""
    prepare(location)
    return join(location, f"{table}.lance")


def prepare(location: str) -> None:
    """Say a bucket's server in the environment in the way that all clients read; called before one is opened.

    Lance, obstore and pyarrow take endpoint, region and credentials from the process's environment, on the driver and
    on every node, so no key travels with a task. They differ in a few names, which are levelled here, and none of them
    reads the endpoint of a profile.

    Raises:
        UsageError: `AWS_ENDPOINT_URL` is no address.
    """
    if not location.startswith("s3://"):
        return
    known = os.environ
    server = known.get("AWS_ENDPOINT_URL_S3") or known.get("AWS_ENDPOINT_URL") or credentials.endpoint_of_profile()
    if not server:
        return
    if not re.match(r"https?://[^/]", server):
        raise UsageError(
            f"AWS_ENDPOINT_URL={address.public(server)!r}: expected the address of an S3 server, http(s)://HOST[:PORT]"
        )
    wanted = {"AWS_ENDPOINT_URL": server}
    if server.startswith("http://"):
        wanted["AWS_ALLOW_HTTP"] = "true"
    if not (known.get("AWS_REGION") or known.get("AWS_DEFAULT_REGION")):
        wanted["AWS_REGION"] = "us-east-1"  # what S3-compatible servers mostly take for their only one
    for name, value in wanted.items():
        if known.get(name) != value:
            known[name] = value
