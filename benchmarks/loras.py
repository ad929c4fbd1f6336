"""What LoRAs cost next to a step, and that they leave each picture as it is alone.

    python -m benchmarks.loras [--model FOLDER] [--rank 16] [--rows 8] [--rounds 20]

Random adapters on every linear layer of the transformer, which is more than people train. Steps of a batch without
adapters, with one adapter in every row, and with another one in each row take turns, so that other work slows them all.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.step_batching import default_model
from safelight.engine.engine import Engine, load_engine
from safelight.model.checkpoint import read_model_spec
from safelight.model.spec import LoraFile
from safelight.picture.generation import Generation
from safelight.picture.parameters import build_generation_request
from safelight.settings import EngineOptions


def main() -> None:
    options = _parse_options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or default_model(Path(scratch))
        plain = load_engine(
            folder, EngineOptions(device=options.device, dtype=options.dtype, num_threads=options.threads)
        )
        files = tuple(_save_lora(plain, Path(scratch), options.rank, seed) for seed in range(options.rows))
        spec = replace(read_model_spec(folder), loras=files)
        engine = load_engine(
            folder, EngineOptions(device=options.device, dtype=options.dtype, num_threads=options.threads), spec=spec
        )
    batches = {
        "without": _start(engine, [[] for _ in files]),
        "the same in every row": _start(engine, [[files[0].name] for _ in files]),
        "another in each row": _start(engine, [[file.name] for file in files]),
    }
    times: dict[str, list[float]] = {name: [] for name in batches}
    for _ in range(options.rounds):
        for name, batch in batches.items():
            began_at = time.perf_counter()
            engine.step(batch)
            times[name].append(time.perf_counter() - began_at)
    base = statistics.median(times["without"][1:])
    print(f"{spec.name}, {options.rows} rows, rank {options.rank} on every layer, {options.rounds} rounds")
    for name, seconds in times.items():
        middle = statistics.median(seconds[1:])
        print(f"{name}: {middle * 1000:.1f} ms a step, {middle / base - 1:+.1%}")
    print(f"greatest difference from the latents alone: {_difference(engine, batches['another in each row']):g}")


def _save_lora(engine: Engine, folder: Path, rank: int, seed: int) -> LoraFile:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in engine._components.transformer.named_modules():  # noqa: SLF001 - its layers are what is adapted
        if isinstance(layer, nn.Linear):
            down = torch.randn(rank, layer.in_features, generator=generator) / layer.in_features**0.5
            tensors[f"transformer.{name}.lora_A.weight"] = down
            tensors[f"transformer.{name}.lora_B.weight"] = 0.05 * torch.randn(
                layer.out_features, rank, generator=generator
            )
    file = folder / f"lora-{seed}.safetensors"
    save_file(tensors, file)
    return LoraFile(name=f"lora-{seed}", file=str(file))


def _start(engine: Engine, loras: list[list[str]]) -> list[Generation]:
    steps = engine.spec.max_num_inference_steps
    batch = []
    for seed, names in enumerate(loras):
        request = build_generation_request(
            engine.spec,
            id="r",
            prompt="a red cat",
            guidance_scale=1.0,
            seed=seed,
            num_inference_steps=steps,
            loras=[(name, None) for name in names],
        )
        batch.append(Generation(request=request, image_index=0, arrived_at=0.0))
        engine.start(batch[-1])
    return batch


def _difference(engine: Engine, batch: list[Generation]) -> float:
    """Of the last row, from the same generation alone."""
    row = batch[-1]
    alone = Generation(request=row.request, image_index=0, arrived_at=0.0)
    engine.start(alone)
    while alone.step_index < row.step_index:
        engine.step([alone])
    states = engine._denoising  # noqa: SLF001 - pixels would hide it
    return float((states[row].latents - states[alone].latents).abs().max())


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
