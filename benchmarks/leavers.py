"""Half of the clients leave after one step: what is left of the others' throughput, beside what it could be.

    python -m benchmarks.leavers [--rounds 5] [--pictures 48]

Every other request is a stream that is closed at its first step. A picture that nobody waits for has then cost its
encoding and a step or two; the ideal is that and no more: c / (c + encoding + step), with the costs of the stages
measured at the engine in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from itertools import count

from benchmarks import stage_costs
from benchmarks.rows import Row, add_options, report
from benchmarks.servers import safelight
from safelight.cli.bench.target import Target

CLIENTS = 16
BATCH_SIZE = 8
STEPS = 4


def main() -> None:
    options = _parse_options()
    stage_costs.become_a_replica()
    engine, ratios, ideals = stage_costs.load_sprite(), [], []
    stage_costs.measure(engine, BATCH_SIZE, 0)
    with safelight("sprite", "--max-queued-requests", "100") as (target, _):
        for index in range(options.rounds):
            costs = stage_costs.measure(engine, BATCH_SIZE, 1_000 * (index + 1)).cpu
            whole = costs.picture(STEPS)
            ideals.append(whole / (whole + costs.encode + costs.step))
            all_stay, half_leave = (
                asyncio.run(_throughput(target, options.pictures, leave)) for leave in (False, True)
            )
            ratios.append(half_leave / all_stay)
            rows = [
                Row.of_rounds(
                    "pictures a second of those who stay, half leave after a step",
                    against="the ideal by stage costs",
                    values=[ratio / ideal for ratio, ideal in zip(ratios, ideals, strict=True)],
                    at_least=0.9,
                    bar="8",
                ),
                Row.of_rounds("the same", against="nobody leaves", values=list(ratios)),
                Row.of_rounds("the ideal by stage costs", against="nobody leaves", values=list(ideals)),
            ]
            report("leavers", rows, store=options.store, is_last=index == options.rounds - 1)


async def _throughput(target: Target, num_pictures: int, leave: bool) -> float:
    """Whole pictures a second, until so many are there."""
    seeds, made = count(1), []
    began_at, is_over = time.perf_counter(), asyncio.Event()

    async def client() -> None:
        while not is_over.is_set():
            await _picture(target, next(seeds), leaves=False)
            made.append(time.perf_counter())
            if len(made) >= num_pictures:
                is_over.set()
            if leave:
                await _picture(target, next(seeds), leaves=True)

    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    await is_over.wait()
    for each in clients:
        each.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    await asyncio.sleep(1)
    return num_pictures / (made[num_pictures - 1] - began_at)


async def _picture(target: Target, seed: int, *, leaves: bool) -> None:
    """To its end, or to its first step."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        writer.writelines(_request(target, seed, streams=leaves))
        if leaves:
            await reader.readuntil(b"event: step")
        elif not (await reader.read()).startswith(b"HTTP/1.1 200"):
            raise SystemExit("the server made no picture")
    finally:
        writer.close()


def _request(target: Target, seed: int, *, streams: bool) -> Iterator[bytes]:
    parameters = {"seed": seed, "num_inference_steps": STEPS}
    if streams:
        parameters["num_previews"] = 0
    body = json.dumps({"inputs": f"a red cat number {seed}", "parameters": parameters}).encode()
    accept = "text/event-stream" if streams else "image/png"
    yield f"POST / HTTP/1.1\r\nhost: {target.authority}\r\naccept: {accept}\r\nconnection: close\r\n".encode()
    yield f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=48)
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
