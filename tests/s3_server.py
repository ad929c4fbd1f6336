"""An S3 server on loopback: moto speaks the protocol over HTTP, as MinIO or AWS do, and keeps objects in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import httpx
import s3fs
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[ThreadedMotoServer]:
    """Running, and the one that AWS's variables lead to. Nothing is there at first."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    httpx.post(f"{url}/moto-api/reset").raise_for_status()  # its memory is the process's
    variables = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_MAX_ATTEMPTS": "1",
    }
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with patch.dict(os.environ, variables):
            yield server
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
