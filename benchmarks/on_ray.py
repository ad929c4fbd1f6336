"""What a replica on Ray costs beside one on this machine, and what more replicas bring.

    python -m benchmarks.on_ray [--rounds 5] [--pictures 40] [--seconds 8]

Both backends run the same replica, whose engine draws noise and computes nothing: what differs is the way. Requests go
to them in turns, so that both see the same machine. Then one, two and four replicas whose steps take a fixed time, in
which they sleep: as a GPU would, they leave the processor to others.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import psutil

from benchmarks.rows import Row, add_options, report
from safelight.picture.generation import Generation
from safelight.serving.backends.local import LocalReplicas
from safelight.serving.backends.protocol import Launch, ReplicasFactory
from safelight.serving.backends.ray.cluster import RayCluster
from safelight.serving.backends.ray.replicas import RayReplicas
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.messages import Load
from safelight.serving.replica.engine import Engine
from safelight.serving.replica.process import run_replica
from safelight.settings import EngineOptions, Settings
from tests.fakes import FAKE_SPEC, FakeEngine, FakeEngineOptions, FakePrepared, fake_request

SIDES = {"10 KB": 64, "1.5 MB": 800}
"""Of a square picture of noise as a JPEG of the best quality."""
SPEC = replace(FAKE_SPEC, max_size=800, max_pixels=800 * 800)
JPEG: dict[str, object] = {"image_format": "jpeg", "image_quality": 100}
STEP_S = 0.05
STEPS = 4
WARM_UP = 10


class NoisyEngine(FakeEngine):
    """Its pictures weigh what their pixels do."""

    def decode(self, generation: Generation) -> np.ndarray:
        super().decode(generation)
        request = generation.request
        return np.random.default_rng(0).integers(0, 256, (request.height, request.width, 3), np.uint8)


class NoisyPrepared(FakePrepared):
    def load(self) -> Engine:
        return NoisyEngine(self.message.spec, self.options)


def replica() -> None:
    """The process of a replica: `... OPTIONS --fd N`."""
    import socket  # noqa: PLC0415

    options = msgspec.json.decode(sys.argv[1], type=FakeEngineOptions)
    run_replica(socket.socket(fileno=int(sys.argv[3])), lambda load: NoisyPrepared(load, options))
    os._exit(0)


def command(options: FakeEngineOptions) -> list[str]:
    root = str(Path(__file__).resolve().parent.parent)
    code = f"import sys; sys.path.insert(0, {root!r}); from benchmarks.on_ray import replica; replica()"
    return [sys.executable, "-c", code, msgspec.json.encode(options).decode()]


@asynccontextmanager
async def serving(
    factory: ReplicasFactory, num_replicas: int, *, max_batch_size: int, max_running: int
) -> AsyncIterator[Dispatcher]:
    load = Load(folder="/nowhere", spec=SPEC, options=EngineOptions(max_batch_size=max_batch_size, num_threads=1))
    launch = Launch(load=load, num_replicas=num_replicas, max_concurrent_requests=max_running)
    dispatcher = Dispatcher(factory(launch), max_queued_requests=1000)
    await dispatcher.start()
    try:
        while any(each.state != "ready" for each in dispatcher.snapshot().replicas):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        yield dispatcher
    finally:
        await dispatcher.stop()


@dataclass(slots=True)
class Way:
    """What one backend took for one kind of picture, round by round."""

    rounds_ms: list[list[float]] = field(default_factory=list)
    cpu_ms: float = 0.0
    """Of the gateway's process, for all of them."""

    def percentile(self, share: int) -> float:
        return float(np.percentile([each for times in self.rounds_ms for each in times], share))


async def compare_ways(factories: dict[str, ReplicasFactory], num_rounds: int, num_pictures: int) -> list[Row]:
    print(f"{'picture':8} {'where':6} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'gateway CPU ms':>15}")
    limits = {"max_batch_size": 8, "max_running": 8}
    rows = []
    async with (
        serving(factories["local"], 1, **limits) as local,
        serving(factories["ray"], 1, **limits) as on_ray,
    ):
        for name, side in SIDES.items():
            request = fake_request("noise", num_inference_steps=1, width=side, height=side, **JPEG)
            ways = {"local": Way(), "ray": Way()}
            for dispatcher in (local, on_ray) * WARM_UP:
                await dispatcher.generate(request)
            for _ in range(num_rounds):
                for way in ways.values():
                    way.rounds_ms.append([])
                for _ in range(num_pictures):
                    for where, dispatcher in (("local", local), ("ray", on_ray)):
                        began_at, cpu_before = time.perf_counter(), time.process_time()
                        await dispatcher.generate(request)
                        ways[where].rounds_ms[-1].append((time.perf_counter() - began_at) * 1000)
                        ways[where].cpu_ms += (time.process_time() - cpu_before) * 1000
            for where, way in ways.items():
                p50, p90, p99 = (way.percentile(share) for share in (50, 90, 99))
                cpu_ms = way.cpu_ms / (num_rounds * num_pictures)
                print(f"{name:8} {where:6} {p50:8.1f} {p90:8.1f} {p99:8.1f} {cpu_ms:15.2f}", flush=True)
            rows += [_more(name, ways, share, at_most) for share, at_most in ((50, 10.0), (99, None))]
    return rows


def _more(name: str, ways: dict[str, Way], share: int, at_most: float | None) -> Row:
    """On Ray than here, of each round."""
    pairs = zip(ways["ray"].rounds_ms, ways["local"].rounds_ms, strict=True)
    return Row.of_rounds(
        f"more at p{share} by a replica on Ray, picture of {name}",
        against="the same replica without Ray",
        values=[float(np.percentile(theirs, share) - np.percentile(ours, share)) for theirs, ours in pairs],
        unit="ms",
        at_most=at_most,
        bar="the cluster",
    )


async def scale(factories: dict[str, ReplicasFactory], seconds: float) -> None:
    best = 1 / (STEPS * STEP_S)
    print(f"\n{'where':6} {'replicas':>8} {'pictures/s':>11} {'of what steps allow':>20} {'gateway CPU ms':>15}")
    request = fake_request(num_inference_steps=STEPS)
    for where, factory in factories.items():
        for num_replicas in (1, 2, 4):
            async with serving(factory, num_replicas, max_batch_size=1, max_running=2) as dispatcher:
                num_made = 0
                ends_at = time.monotonic() + seconds

                async def ask(dispatcher: Dispatcher = dispatcher, ends_at: float = ends_at) -> None:
                    nonlocal num_made
                    while time.monotonic() < ends_at:
                        await dispatcher.generate(request)
                        num_made += 1

                cpu_before, began_at = time.process_time(), time.monotonic()
                await asyncio.gather(*(ask() for _ in range(3 * num_replicas)))
                rate = num_made / (time.monotonic() - began_at)
                cpu_ms = (time.process_time() - cpu_before) * 1000 / num_made
            print(
                f"{where:6} {num_replicas:8} {rate:11.1f} {rate / (best * num_replicas):20.0%} {cpu_ms:15.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=40, help="of each size, of each backend, in a round")
    parser.add_argument("--seconds", type=float, default=8)
    add_options(parser)
    arguments = parser.parse_args()
    settings = Settings(runtime="ray", ray_num_cpus=0.1)
    cluster = RayCluster(settings)

    def factories(step_s: float) -> dict[str, ReplicasFactory]:
        start = command(FakeEngineOptions(step_s=step_s))
        on_ray = partial(RayReplicas, settings=settings, cluster=cluster, command=start)
        return {"local": partial(LocalReplicas, command=start), "ray": on_ray}

    print(f"load of the machine: {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores")
    rows = asyncio.run(compare_ways(factories(0.0), arguments.rounds, arguments.pictures))
    asyncio.run(scale(factories(STEP_S), arguments.seconds))
    report("on_ray", rows, store=arguments.store)


if __name__ == "__main__":
    main()
