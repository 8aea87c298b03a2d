"""stores: a real S3-speaking server (moto's) on 127.0.0.1 for a test run, and putting files into it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as fs

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
    try:
        yield server.get_host_and_port()[1]
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
