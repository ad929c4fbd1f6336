"""How far an image in a batch is from the same image alone, with and without the padding of small products.

    python -m benchmarks.same_seed [--model FOLDER]

Without --model it measures the tests' tiny random FLUX. The padding exists on CPUs only; `as diffusers has it` takes it
off again. See docs/decisions/0002-same-seed-same-picture.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.step_batching import denoise, start
from safelight.engine.batch_invariance import RowStableLinear
from safelight.engine.engine import Engine, load_engine
from safelight.engine.pixels.autoencoder import Pixels
from safelight.settings import EngineOptions
from tests.tiny_flux import save_tiny_flux

BATCH_SIZES = (2, 3, 5, 8, 16)
STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder in the diffusers layout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or save_tiny_flux(Path(scratch) / "tiny-flux")
        for dtype in ("float32", "bfloat16"):
            engine = load_engine(folder, EngineOptions(dtype=dtype))
            print(f"{engine.spec.name}, {dtype}, padded:             {_differences(engine)}")
            _take_padding_off(engine)
            print(f"{engine.spec.name}, {dtype}, as diffusers has it: {_differences(engine)}")


def _differences(engine: Engine) -> str:
    """For each batch size the greatest difference of a latent, and of a pixel (of 255)."""
    latents, pixels = _last_of_batch(engine, 1)
    described = []
    for size in BATCH_SIZES:
        other_latents, other_pixels = _last_of_batch(engine, size)
        latent_difference = np.abs(other_latents - latents).max()
        pixel_difference = np.abs(other_pixels.astype(int) - pixels.astype(int)).max()
        described.append(f"{size}: {latent_difference:.1e} / {pixel_difference}")
    return ", ".join(described)


def _last_of_batch(engine: Engine, size: int) -> tuple[np.ndarray, Pixels]:
    batch = [start(engine, seed, STEPS) for seed in range(size - 1, -1, -1)]
    denoise(engine, batch)
    latents = engine._denoising[batch[-1]].latents.float().numpy()  # noqa: SLF001
    return latents, engine.decode(batch[-1])


def _take_padding_off(engine: Engine) -> None:
    for module in engine._components.transformer.modules():  # noqa: SLF001
        if isinstance(module, RowStableLinear):
            module.__class__ = nn.Linear  # type: ignore[assignment]  # what it was before


if __name__ == "__main__":
    main()
