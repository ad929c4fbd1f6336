"""LitServe with dynamic batches of 8 around FluxPipeline, as its documentation shows them.

    python -m benchmarks.peers.litserve_batches --port 8002

A call of FluxPipeline has one size and one number of steps: what of a batch differs in them is made in turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import litserve
from fastapi import Response

from benchmarks.peers.pipeline import Asked, load_pipeline, make, parse_options, read_request

MAX_BATCH_SIZE = 8
BATCH_TIMEOUT_S = 0.05
REQUEST_TIMEOUT_S = 600


class Pictures(litserve.LitAPI):  # type: ignore[misc]
    """Four hooks, which LitServe calls in its worker."""

    def __init__(self, model: Path, dtype: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S, api_path="/")
        self._model = model
        self._dtype = dtype

    def setup(self, device: str) -> None:
        self._pipeline = load_pipeline(self._model, self._dtype).to(device)

    def decode_request(self, request) -> Asked:  # type: ignore[no-untyped-def]  # LitServe reads an annotation as a schema
        return read_request(request)

    def batch(self, inputs: Sequence[Asked]) -> Sequence[Asked]:
        return inputs

    def predict(self, asked: Sequence[Asked]) -> list[bytes]:
        alike: dict[tuple[int, int, int], list[int]] = {}
        for index, each in enumerate(asked):
            alike.setdefault((each.width, each.height, each.steps), []).append(index)
        pictures: dict[int, bytes] = {}
        for indices in alike.values():
            pictures |= zip(indices, make(self._pipeline, [asked[index] for index in indices]), strict=True)
        return [pictures[index] for index in range(len(asked))]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="image/png")


def main() -> None:
    options = parse_options(__doc__.splitlines()[0])
    server = litserve.LitServer(
        Pictures(options.model, options.dtype), accelerator="cpu", workers_per_device=1, timeout=REQUEST_TIMEOUT_S
    )
    server.run(host="127.0.0.1", port=options.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
