"""FluxPipeline behind FastAPI with a lock: one picture at a time, first come first served.

python -m benchmarks.peers.lock --port 8001
"""

from __future__ import annotations

import threading
from typing import Any

import uvicorn
from fastapi import FastAPI, Response

from benchmarks.peers.pipeline import load_pipeline, make, parse_options, read_request


def main() -> None:
    options = parse_options(__doc__.splitlines()[0])
    pipeline, lock, app = load_pipeline(options.model, options.dtype), threading.Lock(), FastAPI()

    @app.post("/")
    def generate(body: dict[str, Any]) -> Response:
        asked = read_request(body)
        with lock:
            (picture,) = make(pipeline, [asked])
        return Response(picture, media_type="image/png")

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
