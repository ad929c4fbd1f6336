"""Whether batches ever hurt: a server that batches beside one that never does, by how many ask at once, in turns.

    python -m benchmarks.batch_cap [--rounds 3] [--without-width]

sprite; and FLUX.1-schnell at its true width, of two blocks with random weights in int8 and a small autoencoder (1 GB,
removed at the end), where a row more may be dearer than a picture more. What a step of a batch costs is learned while
it serves (`serving/replica/step_costs.py`), so one more round comes first and is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.random_flux import Layers, plan_flux, write_flux
from benchmarks.rows import Row, add_options, report
from benchmarks.servers import Server, safelight, take_turn, throughput
from safelight.cli.bench.load import Load
from safelight.cli.bench.mix import Shape, parse_mix

LAYERS: Layers = {
    "transformer": {"num_layers": 1, "num_single_layers": 1},
    "text_encoder_2": {"num_layers": 1},
    "vae": {"block_out_channels": [32] * 4, "layers_per_block": 1},
}
TIMEOUT_S = 600.0
BATCHES, ONE = "batches", "one at a time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What one model is asked for."""

    folder: str
    shapes: Sequence[Shape]
    num_pictures: int
    clients: Sequence[int]


def main() -> None:
    options = _parse_options()
    with tempfile.TemporaryDirectory(prefix="safelight-bench-") as scratch, ExitStack() as stack:
        asked = {"sprite": Loads(folder="sprite", shapes=parse_mix("256x256@4"), num_pictures=48, clients=(2, 4, 16))}
        if not options.without_width:
            folder = _write_wide(Path(scratch) / "wide")
            asked["true width"] = Loads(folder=folder, shapes=parse_mix("256x256@2"), num_pictures=8, clients=(2, 4))
        servers = {name: _two_servers(stack, each.folder) for name, each in asked.items()}
        ratios: dict[str, list[float]] = {}
        for index in range(options.rounds + 1):
            for name, loads in asked.items():
                for clients in loads.clients:
                    ratio = _ratio(servers[name], loads, clients, index)
                    if index > 0:
                        ratios.setdefault(f"pictures a second, {name}, {clients} clients", []).append(ratio)
            if index > 0:
                report("batch_cap", _rows(ratios), store=options.store, is_last=index == options.rounds)


def _write_wide(folder: Path) -> str:
    files = plan_flux("int8", LAYERS)
    write_flux(folder, files, LAYERS)
    return str(folder)


def _two_servers(stack: ExitStack, folder: str) -> Mapping[str, Server]:
    return {
        BATCHES: stack.enter_context(safelight(folder)),
        ONE: stack.enter_context(safelight(folder, "--max-batch-size", "1")),
    }


def _ratio(servers: Mapping[str, Server], loads: Loads, clients: int, index: int) -> float:
    load = Load(clients=clients, requests=loads.num_pictures, warm_up_s=0.0, timeout_s=TIMEOUT_S)
    turns = take_turn(servers, load, loads.shapes, index)
    return throughput(turns[BATCHES]) / throughput(turns[ONE])


def _rows(ratios: Mapping[str, Sequence[float]]) -> list[Row]:
    return [
        Row.of_rounds(name, against="the same server, one picture a step", values=values, at_least=1.0, bar="3")
        for name, values in ratios.items()
    ]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-width", action="store_true", help="sprite alone: a minute and a half a round less")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
