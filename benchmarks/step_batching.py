"""How much faster a batch is than its generations one by one: the same pictures, in turns, on one engine.

    python -m benchmarks.step_batching [--model FOLDER] [--batch-size 8] [--rounds 15]

The ratio is what to read: both ways take turns, so that other work on the machine slows both. Without --model it
measures the packaged sprite if it is there, and otherwise the tests' tiny random FLUX.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from safelight.engine.engine import Engine, load_engine
from safelight.picture.generation import Generation
from safelight.picture.parameters import build_generation_request
from safelight.settings import EngineOptions

SPRITE = Path(__file__).parents[1] / "src" / "safelight" / "models" / "sprite"


def main() -> None:
    options = _parse_options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or default_model(Path(scratch))
        engine = load_engine(
            folder, EngineOptions(device=options.device, dtype=options.dtype, num_threads=options.threads)
        )
        _measure(engine, options.batch_size, options.steps)
        rounds = [_measure(engine, options.batch_size, options.steps) for _ in range(options.rounds)]
    ratios = sorted(singles / batched for singles, batched in rounds)
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{engine.spec.name}, {options.steps} steps, {options.batch_size} generations, {options.rounds} rounds")
    print(f"one by one / together: median {middle:.2f}, middle half {low:.2f} to {high:.2f}")


def _measure(engine: Engine, batch_size: int, steps: int) -> tuple[float, float]:
    """Seconds of denoising one by one, and together."""
    singles = [start(engine, seed, steps) for seed in range(batch_size)]
    batch = [start(engine, seed, steps) for seed in range(batch_size)]
    one_by_one = sum(denoise(engine, [generation]) for generation in singles)
    together = denoise(engine, batch)
    for generation in singles + batch:
        engine.release(generation)
    return one_by_one, together


def start(engine: Engine, seed: int, steps: int) -> Generation:
    request = build_generation_request(
        engine.spec, id=str(seed), prompt="a red cat", seed=seed, num_inference_steps=steps
    )
    generation = Generation(request=request, image_index=0, arrived_at=0.0)
    engine.start(generation)
    return generation


def denoise(engine: Engine, batch: list[Generation]) -> float:
    started_at = time.perf_counter()
    while not batch[0].is_denoised:
        engine.step(batch)
    return time.perf_counter() - started_at


def default_model(scratch: Path) -> Path:
    if (SPRITE / "model_index.json").exists():
        return SPRITE
    from tests.tiny_flux import save_tiny_flux  # noqa: PLC0415 - not in the package

    return save_tiny_flux(scratch / "tiny-flux")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder in the diffusers layout")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
