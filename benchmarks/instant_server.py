"""A server whose engine answers at once, with noise: what is left is the cost of HTTP and of the two processes.

    python -m benchmarks.instant_server --port 8003 [--queue 64] [--step 0.0]

It is the real app and listener, with the replica in its own process. A picture of 64x64 is a PNG of 12 KB, one of
1152x1152 of 4 MB.
"""

from __future__ import annotations

import argparse
import socket
import sys
from dataclasses import dataclass, replace

import numpy as np

from safelight.picture.generation import Generation
from safelight.server.app import create_app
from safelight.server.http.listener import Server, raise_descriptor_limit
from safelight.serving.backends.local import LocalReplicas
from safelight.serving.backends.protocol import Launch
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.messages import Load
from safelight.serving.replica.process import run_replica
from safelight.settings import EngineOptions, Settings
from tests.fakes import FAKE_SPEC, FakeEngine, FakeEngineOptions

SPEC = replace(FAKE_SPEC, max_size=2048, max_pixels=2048 * 2048, default_num_inference_steps=1)

DAY_S = 86_400.0
"""Of ten thousand that wait at once on a busy machine the last ones wait long."""


class NoiseEngine(FakeEngine):
    """Pixels that no PNG makes smaller, drawn once for each size."""

    _drawn: dict[tuple[int, int], np.ndarray] = {}  # noqa: RUF012

    def decode(self, generation: Generation) -> np.ndarray:
        size = (generation.request.height, generation.request.width)
        if size not in self._drawn:
            self._drawn[size] = np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8)
        return self._drawn[size]


@dataclass(frozen=True, slots=True)
class Prepared:
    """As `tests.fakes.FakePrepared`."""

    message: Load
    step_s: float
    plan: str = ""
    smaller: str = ""

    def fitting_rows(self, width: int, height: int) -> int:  # noqa: ARG002  there is memory for all
        return self.message.options.max_batch_size

    def load(self) -> NoiseEngine:
        return NoiseEngine(self.message.spec, FakeEngineOptions(step_s=self.step_s))


def main() -> None:
    options = _parse_options()
    if options.fd is not None:
        run_replica(socket.socket(fileno=options.fd), lambda message: Prepared(message, options.step))
        return
    raise_descriptor_limit()
    settings = Settings(
        port=options.port, max_connections=options.connections, request_timeout_s=DAY_S, log_level="error"
    )
    replicas = LocalReplicas(
        Launch(load=Load(folder="/nowhere", spec=SPEC, options=EngineOptions())),
        command=[sys.executable, "-m", "benchmarks.instant_server", "--step", str(options.step)],
    )
    dispatcher = Dispatcher(replicas, max_queued_requests=options.queue)
    with socket.create_server(("127.0.0.1", options.port), backlog=4096) as listener:
        Server(create_app(settings, dispatcher), settings).run(sockets=[listener])


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8003)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--connections", type=int, default=1024)
    parser.add_argument("--step", type=float, default=0.0, help="seconds that each step takes")
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
