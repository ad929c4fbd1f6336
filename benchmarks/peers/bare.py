"""The smallest ASGI application on uvicorn: it reads a body and answers a file of 12 KB.

python -m benchmarks.peers.bare --port 8004
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import uvicorn

PICTURE = b"\x89PNG\r\n\x1a\n" + os.urandom(12_400)
HEADERS = [(b"content-type", b"image/png"), (b"content-length", str(len(PICTURE)).encode())]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """One answer to every request."""
    while scope["type"] == "http" and (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": PICTURE})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, lifespan="off", log_level="error", http="h11")
