"""What FLUX.1-schnell costs on a GPU, in ten minutes: seconds an image and peak memory of each precision and offload.

    python -m benchmarks.gpu [--seconds 480] [--device cuda] [--reduced]

Weights are random and made on the device. Each row is a process of its own with a limit of its own; when the time is
over, what was not reached is named. `--reduced --device cpu` runs the same rows on a small model, to see that they run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from benchmarks.random_engine import REDUCED, random_engine
from safelight.engine.devices import Precision
from safelight.engine.engine import Engine
from safelight.model.memory.plan import Choice
from safelight.picture.generation import Generation
from safelight.picture.parameters import build_generation_request

ROW_SECONDS = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement."""

    quantization: str = "none"
    offload: str = "none"
    vae_tiling: bool = False
    quant_type: str | None = None
    size: int = 1024
    batch: int = 1
    others: bool = False
    """Whether pictures follow each other, each decoded before the steps of the next one, or `beside` them."""
    beside: bool = False
    limit_gb: float | None = None
    """Of the device's memory, for this process."""

    @property
    def name(self) -> str:
        kind = self.quant_type or ("bf16" if self.quantization == "none" else self.quantization)
        tiles = ", tiles" if self.vae_tiling else ""
        decoded = f", decoded {'beside' if self.beside else 'between'} others' steps" if self.others else ""
        limit = "" if self.limit_gb is None else f", {self.limit_gb:g} GB"
        return f"{kind}, offload {self.offload}{tiles}, {self.batch} x {self.size}{decoded}{limit}"


INT8 = Row(quantization="int8")
ROWS = (
    Row(),
    Row(quantization="fp8"),
    INT8,
    Row(quantization="nf4"),
    Row(quant_type="Q4_0"),
    Row(quant_type="Q8_0"),
    Row(offload="encoders"),
    Row(offload="model"),
    Row(offload="layers"),
    *(Row(batch=batch, size=size) for size in (512, 1024) for batch in (2, 4, 8)),
    replace(INT8, limit_gb=24),
    replace(INT8, limit_gb=16, offload="encoders"),
    Row(quantization="nf4", limit_gb=12, offload="encoders", vae_tiling=True),
    Row(quantization="nf4", limit_gb=8, offload="encoders", vae_tiling=True),
    Row(quantization="int8", limit_gb=8, offload="layers", vae_tiling=True),
    *(Row(others=True, beside=beside) for beside in (False, True)),
)


def main() -> None:
    options = _parse_options()
    if options.row is not None:
        print(json.dumps(_measure(Row(**json.loads(options.row)), options)))
        return
    end = time.monotonic() + options.seconds
    print("| | start s | s an image | s a step | peak GB |\n|---|---|---|---|---|")
    for index, row in enumerate(ROWS):
        left = end - time.monotonic()
        if left < 10:
            print("not reached: " + "; ".join(each.name for each in ROWS[index:]))
            return
        print(f"| {row.name} | {_run(row, options, min(left, ROW_SECONDS))} |", flush=True)


def _run(row: Row, options: argparse.Namespace, seconds: float) -> str:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", options.device, "--row", json.dumps(asdict(row))]
    command += ["--reduced"] if options.reduced else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"over {seconds:.0f} s | | |"
    if done.returncode:
        return f"{(done.stderr.strip().splitlines() or ['failed'])[-1][:160]} | | |"
    told = json.loads(done.stdout.splitlines()[-1])
    return f"{told['start']:.1f} | {told['image']:.2f} | {told['step']:.3f} | {told['peak']:.1f}"


def _measure(row: Row, options: argparse.Namespace) -> dict[str, float]:
    device = torch.device(options.device)
    if row.limit_gb is not None and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, row.limit_gb * 1e9 / total), device)
    of_t5: Any = "none" if row.quantization == "none" else "int8"
    choice = Choice(
        quantization=row.quantization,  # type: ignore[arg-type]
        text_encoder_2_quantization=of_t5,
        offload=row.offload,  # type: ignore[arg-type]
        vae_tiling=row.vae_tiling,
        decodes_beside=row.beside and device.type == "cuda",
    )
    began = time.perf_counter()
    precision = Precision(computation=torch.bfloat16 if device.type == "cuda" else torch.float32, choice=choice)
    engine = random_engine(device, precision, sizes=REDUCED if options.reduced else None, quant_type=row.quant_type)
    _paint(engine, row, options, seed=0)
    start = time.perf_counter() - began
    rounds = [_paint(engine, row, options, seed=seed) for seed in (1, 2)]
    if row.others:
        rounds = [(_paint_in_turns(engine, row, options) / _NUM_OTHERS, rounds[0][1])]
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    image, step = (min(each[index] for each in rounds) for index in (0, 1))
    return {"start": start, "image": image / row.batch, "step": step, "peak": peak}


_NUM_OTHERS = 4


def _paint_in_turns(engine: Engine, row: Row, options: argparse.Namespace) -> float:
    """Seconds of all of them: each is decoded by a thread while the next takes its steps, or before it does."""
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as decoder:
        for index in range(_NUM_OTHERS):
            generation = _start(engine, row, options, seed=3, index=index)
            while not generation.is_denoised:
                engine.step([generation])
            decoding = decoder.submit(engine.decode, generation)
            if not row.beside:
                decoding.result()
    decoding.result()
    return time.perf_counter() - began


def _start(engine: Engine, row: Row, options: argparse.Namespace, *, seed: int, index: int) -> Generation:
    size = 64 if options.reduced else row.size
    request = build_generation_request(
        engine.spec, id=f"{seed}", prompt=f"a red cat {seed} {index}", seed=seed, width=size, height=size
    )
    generation = Generation(request=request, image_index=index, arrived_at=0.0)
    engine.start(generation)
    return generation


def _paint(engine: Engine, row: Row, options: argparse.Namespace, *, seed: int) -> tuple[float, float]:
    """Seconds of all pictures of the batch, encoded, denoised and decoded; and of one step."""
    began = time.perf_counter()
    batch = [_start(engine, row, options, seed=seed, index=index) for index in range(row.batch)]
    denoising = time.perf_counter()
    while not batch[0].is_denoised:
        engine.step(batch)
    denoised = time.perf_counter()
    for generation in batch:
        if generation.error is not None:
            raise generation.error
        engine.decode(generation)
        engine.release(generation)
    return time.perf_counter() - began, (denoised - denoising) / batch[0].num_steps


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=480.0, help="for all rows")
    parser.add_argument("--reduced", action="store_true", help="a small model, and pictures of 64 pixels")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
