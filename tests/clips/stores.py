"""stores: servers on 127.0.0.1 that speak S3 (moto) and Google's API (an emulator), and putting files into them."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pyarrow.fs as fs
from loopback import wait_for

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@contextmanager
def s3_server() -> Iterator[int]:
    """The port of an empty server; its credentials are `ENVIRONMENT`."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    try:
        _empty(port)
        yield port
    finally:
        server.stop()


def fill(port: int, bucket: str, files: Mapping[str, bytes | Path]) -> None:
    """Put files into a bucket, which is made where it is missing."""
    store = fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{port}",
        scheme="http",
        region="us-east-1",
        access_key=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        secret_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        allow_bucket_creation=True,
    )
    store.create_dir(bucket)
    for key, data in files.items():
        with store.open_output_stream(f"{bucket}/{key}") as out:
            out.write(data if isinstance(data, bytes) else data.read_bytes())


@contextmanager
def gs_server(bucket: str) -> Iterator[int]:
    """The port of a server with one empty bucket. A process of its own: Google's client holds the GIL while it asks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}"]
    with subprocess.Popen(
        [*command, "--in-memory", f"--default-bucket={bucket}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: _answers(port))
            yield port
        finally:
            process.kill()


def gs_fill(port: int, bucket: str, files: Mapping[str, bytes]) -> None:
    """Put files into a bucket."""
    for key, data in files.items():
        connection = http.client.HTTPConnection("127.0.0.1", port)
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}"
        connection.request("POST", path, data, {"Content-Type": "video/mp4"})
        assert connection.getresponse().status == 200
        connection.close()


def _empty(port: int) -> None:
    """All servers of a process share what they hold: another may have left something."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 200
    connection.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
