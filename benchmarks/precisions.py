"""What each precision costs, and how far it strays: a few blocks of FLUX.1's transformer at their true width.

    python -m benchmarks.precisions [--rounds 3] [--threads N] [--bf16] [--stable-diffusion-cpp] [--store]

One double block for two single ones, as in FLUX.1, with random weights in bf16 (1.3 GB, removed at the end); 256x256
pixels and 256 text tokens. All take turns, so that other work on the machine slows all of them; seconds are of CPU. The
error is the velocity's, against diffusers in fp32 with the same weights. `alone` tells whether a row of a quarter of
the tokens comes out bit for bit as it does beside another row that is twenty times louder. In diffusers, which promises
no such thing, it is for comparison. stable-diffusion.cpp (see `benchmarks.stable_diffusion_cpp`) reads the same GGUF
files; it hands out no velocity. `python -m benchmarks.real_size --compare` is the same.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.machine import load_average, this_machine, versions
from benchmarks.rows import Row, add_options, report
from benchmarks.stable_diffusion_cpp import CppPeer, cpp_peer, write_parts
from safelight.engine.batch_invariance import make_batch_invariant
from safelight.engine.families.flux1.latents import make_image_ids
from safelight.engine.weights.component_tensors import component_tensors
from safelight.engine.weights.lean_loading import load_network
from safelight.model.families.flux1 import FLUX1
from safelight.model.single_files import configs, names
from safelight.settings import Quantization
from tests.single_files import renamed, save_gguf

CONFIG: Mapping[str, Any] = {**configs.COMPONENTS["transformer"], "num_layers": 1, "num_single_layers": 2}
BARS = {"bf16, mapped": 0.0001, "int8": 0.01, "fp8": 0.04, "nf4": 0.08, "GGUF Q8_0": 0.01, "GGUF Q4_0": 0.08}
"""Greatest relative error."""
STORED: Mapping[str, Quantization] = {"bf16, mapped": "none", "int8": "int8", "fp8": "fp8", "nf4": "nf4"}
GGUFS = ("Q8_0", "Q4_0")
EXACT = "diffusers, fp32"
CPP = "stable-diffusion.cpp"
_SIDE, _TEXT_TOKENS, _LOUD = 32, 256, 20.0
"""Latents' pixels of a side for 256 pixels of the picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--bf16", action="store_true", help="diffusers in bf16 too: slow where the CPU has none")
    parser.add_argument("--stable-diffusion-cpp", action="store_true", help="beside them, if it is installed")
    add_options(parser)
    options = parser.parse_args()
    times = compare(options.rounds, options.threads, with_bf16=options.bf16, with_cpp=options.stable_diffusion_cpp)
    report("precisions", _figures(times), store=options.store)


@torch.inference_mode()
def compare(
    rounds: int, threads: int | None, *, with_bf16: bool = False, with_cpp: bool = False
) -> Mapping[str, Sequence[float]]:
    """CPU seconds of each, round by round."""
    if threads is not None:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        place = _write(Path(scratch))
        networks = _networks(place, with_bf16=with_bf16)
        peers = _cpp_peers(place, running) if with_cpp else {}
        rows, small = _rows(_SIDE, _TEXT_TOKENS), _rows(_SIDE // 2, _TEXT_TOKENS // 4)
        velocities: dict[str, Tensor] = {}
        times: dict[str, list[float]] = {name: [] for name in (*networks, *peers)}
        loads = [load_average()]
        for number in range(rounds):
            for name, network in networks.items():
                started_at = time.process_time()
                velocities[name] = _predict(network, rows, 1)
                times[name].append(time.process_time() - started_at)
            for name, peer in peers.items():
                times[name].append(peer.take_step())
            loads.append(load_average())
            told = (f"{name} {each[-1] / times[EXACT][-1]:.2f}x" for name, each in times.items())
            print(f"round {number + 1}: {', '.join(told)}", flush=True)
        equal = {
            name: torch.equal(_predict(network, small, 2)[:1], _predict(network, small, 1))
            for name, network in networks.items()
        }
        num_bytes = {name: _weights_bytes(network) for name, network in networks.items()}
        num_bytes |= {f"{CPP} {kind}": _gguf_file(place[kind]).stat().st_size for kind in GGUFS if peers}
    _print(velocities, equal, times, num_bytes)
    print(f"{this_machine()}; {rounds} rounds, load {min(loads)} to {max(loads)}; commit {versions()['commit']}")
    return times


def _write(folder: Path) -> dict[str, Path]:
    """Kind of file -> the folder of a transformer with the same weights."""
    torch.manual_seed(0)
    made = _make()
    weights = {
        name: (
            torch.randn(parameter.shape).div_(parameter.shape[-1] ** 0.5)
            if parameter.ndim > 1
            else torch.full(parameter.shape, float("norm" in name and name.endswith("weight")))
        ).bfloat16()
        for name, parameter in made.named_parameters()
    }
    places = {kind: folder / kind / "transformer" for kind in ("safetensors", *GGUFS)}
    for place in places.values():
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(CONFIG))
    save_file(weights, places["safetensors"] / "diffusion_pytorch_model.safetensors")
    named = renamed(weights, names.bfl_transformer(CONFIG))
    in_blocks = {id(each) for name, each in named.items() if "_blocks." in name and each.ndim == 2}
    for kind in GGUFS:
        save_gguf(_gguf_file(places[kind].parent), named, partial(_gguf_type, kind, in_blocks))
    return {kind: place.parent for kind, place in places.items()}


def _gguf_type(kind: str, in_blocks: Collection[int], tensor: Tensor) -> str:
    """As published files have it: what stands before and after the blocks is small, and stays."""
    return kind if id(tensor) in in_blocks else "F32"


def _networks(places: Mapping[str, Path], *, with_bf16: bool) -> dict[str, Any]:
    eager = FluxTransformer2DModel.from_config(CONFIG).eval()
    weights = load_file(places["safetensors"] / "transformer" / "diffusion_pytorch_model.safetensors")
    eager.load_state_dict({name: weight.float() for name, weight in weights.items()})
    networks = {EXACT: eager}
    if with_bf16:
        networks["diffusers, bf16"] = copy.deepcopy(eager).bfloat16()
    for name, quantization in STORED.items():
        networks[name] = _load(places["safetensors"], quantization)
    for kind in GGUFS:
        networks[f"GGUF {kind}"] = _load(places[kind], "none")
    return networks


def _cpp_peers(places: Mapping[str, Path], running: ExitStack) -> dict[str, CppPeer]:
    parts = places["safetensors"] / "parts"
    write_parts(parts)
    started = {kind: cpp_peer(parts, _gguf_file(places[kind]), torch.get_num_threads()) for kind in GGUFS}
    return {f"{CPP} {kind}": running.enter_context(peer) for kind, peer in started.items()}


def _gguf_file(folder: Path) -> Path:
    return folder / "transformer" / "flux.gguf"


def _load(folder: Path, quantization: Quantization) -> Any:
    network = load_network(
        partial(FluxTransformer2DModel.from_config, CONFIG),
        component_tensors(folder, FLUX1.networks[0], CONFIG),
        quantization=quantization,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    make_batch_invariant(network)
    return network


def _make() -> Any:
    with init_empty_weights(include_buffers=False):
        return FluxTransformer2DModel.from_config(CONFIG)


def _rows(side: int, text_tokens: int) -> dict[str, Tensor]:
    """One row, and another that is louder; `side` of its latents, in pixels."""
    generator = torch.Generator().manual_seed(1)
    volume = torch.tensor([1.0, _LOUD]).view(2, 1, 1)
    draw: Callable[..., Tensor] = partial(torch.randn, generator=generator)
    return {
        "hidden_states": draw(2, (side // 2) ** 2, 64) * volume,
        "encoder_hidden_states": draw(2, text_tokens, 4096) * volume,
        "pooled_projections": draw(2, 768) * volume[:, 0],
        "timestep": torch.tensor([0.7, 0.3]),
    }


def _predict(network: Any, rows: Mapping[str, Tensor], number: int) -> Tensor:
    side = 2 * int(rows["hidden_states"].shape[1] ** 0.5)
    velocity: Tensor = network(
        **{name: each[:number].to(network.dtype) for name, each in rows.items()},
        txt_ids=torch.zeros(rows["encoder_hidden_states"].shape[1], 3),
        img_ids=make_image_ids(side, side),
        return_dict=False,
    )[0]
    return velocity.float()


def _weights_bytes(network: Any) -> int:
    """As they are kept, in memory or mapped."""
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def _print(
    velocities: Mapping[str, Tensor],
    equal: Mapping[str, bool],
    times: Mapping[str, Sequence[float]],
    num_bytes: Mapping[str, int],
) -> None:
    """Of the seconds the median; so of what they are of fp32's in the same round, and the least and most of that."""
    exact = velocities[EXACT]
    table = Table("precision", "weights GB", "CPU s a step", "of fp32", "error", "at most", "alone = in a batch")
    for name in times:
        error = float((velocities[name] - exact).norm() / exact.norm()) if name in velocities else None
        bar = BARS.get(name)
        told = "" if bar is None or error is None else f"{bar:.2%}" + ("" if error <= bar else "  MISSED")
        ratios = _ratios(times, name)
        ratio = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        seconds = f"{statistics.median(times[name]):.2f}"
        strayed = "" if error is None else f"{error:.3%}"
        is_equal = {True: "yes", False: "no", None: ""}[equal.get(name)]
        table.add_row(name, f"{num_bytes[name] / 1e9:.2f}", seconds, ratio, strayed, told, is_equal)
    Console(width=140).print(table)


def _ratios(times: Mapping[str, Sequence[float]], name: str) -> list[float]:
    """Of fp32's seconds, round by round."""
    return [own / of for own, of in zip(times[name], times[EXACT], strict=True)]


def _figures(times: Mapping[str, Sequence[float]]) -> list[Row]:
    """What a CPU without bf16 arithmetic takes of its best dtype, fp32; the bar is of what serves there by default."""
    return [
        Row.of_rounds(
            f"CPU of a step at true width, 256x256: {name}",
            against=EXACT,
            values=_ratios(times, name),
            at_most=1.0 if name == "int8" else None,
            bar="6",
        )
        for name in times
        if name != EXACT
    ]


if __name__ == "__main__":
    main()
