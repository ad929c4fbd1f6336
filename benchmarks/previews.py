"""What a preview costs next to a step, and how near it comes to the picture.

    python -m benchmarks.previews [--model FOLDER] [--rounds 30] [--flux]

Times are medians on one engine. The projection runs in the thread that owns the device, the image file is written in
another; both are given as a share of one step of one image. Without --model it measures the packaged sprite if it is
there, and otherwise the tests' tiny random FLUX. With --flux it also times a preview of FLUX.1's 1024x1024, with an
autoencoder of its size, next to one double and one single block of its transformer (random weights, 4096 image and 256
text tokens, 1 GB in bf16): a step has 19 and 38 of them, and a little beside that is left out. On a CPU these are
seconds of CPU time, since other work on the machine stretches a long block more than a short preview.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.transformers.transformer_flux import (
    FluxPosEmbed,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)

from benchmarks.step_batching import default_model
from safelight.engine.denoising.flow import predict_clean
from safelight.engine.engine import Engine, load_engine
from safelight.engine.families.flux1.latents import make_image_ids, unpack_latents
from safelight.engine.pixels.autoencoder import to_pixels
from safelight.engine.pixels.previews import fit_projection
from safelight.picture import files as images
from safelight.picture.generation import Generation
from safelight.picture.parameters import build_generation_request
from safelight.settings import EngineOptions

FLUX_TOKENS, FLUX_TEXT_TOKENS = 4096, 256
NUM_DOUBLE_BLOCKS, NUM_SINGLE_BLOCKS = 19, 38
FLUX_ROUNDS = 2


def main() -> None:
    options = _parse_options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or default_model(Path(scratch))
        engine = load_engine(
            folder, EngineOptions(device=options.device, dtype=options.dtype, num_threads=options.threads)
        )
        print(f"{engine.spec.name}, {engine.spec.default_width}x{engine.spec.default_height}, {options.rounds} rounds")
        _measure_fit(engine)
        _measure(engine, options.rounds)
        _compare(engine)
        if options.flux:
            _measure_flux(engine, options.rounds)


def _measure_fit(engine: Engine) -> None:
    parts = engine._components  # noqa: SLF001 - the engine fits once, when it is loaded
    seconds = _median(
        lambda: fit_projection(
            parts.autoencoder,
            scale_factor=engine.spec.size_multiple // 2,
            device=parts.device,
            dtype=parts.precision.computation,
        ),
        3,
    )
    print(f"fitting the projection when a model is loaded: {seconds * 1000:.0f} ms")


def _measure(engine: Engine, rounds: int) -> None:
    """The first step is a warm-up; preview and step take turns, so that other work slows both."""
    steps, previews, files = [], [], []
    generation = _start(engine, num_previews=1, num_inference_steps=engine.spec.max_num_inference_steps)
    engine.step([generation])
    for _ in range(min(rounds, generation.num_steps - 1)):
        steps.append(_seconds(lambda: engine.step([generation])))
        previews.append(_seconds(lambda: engine.preview(generation)))
        pixels = engine.preview(generation)
        files.append(_seconds(partial(images.encode_preview, pixels, image_format="png")))
    engine.release(generation)
    step = statistics.median(steps)
    print(f"one step: {step * 1000:.2f} ms")
    for name, times in (("projection (device's thread)", previews), ("PNG of it (another thread)", files)):
        middle = statistics.median(times)
        print(f"{name}: {middle * 1000:.3f} ms, {middle / step:.2%} of a step")


def _compare(engine: Engine) -> None:
    """The projection of the finished latents against the decoder's picture of them, shrunk to the same size."""
    for prompt in engine.spec.examples[:3] or ("a red cat",):
        generation = _start(engine, prompt=prompt, num_previews=1)
        while not generation.is_denoised:
            engine.step([generation])
        preview, picture = engine.preview(generation).astype(float), engine.decode(generation)
        engine.release(generation)
        height, width, _ = preview.shape
        small = picture.reshape(height, picture.shape[0] // height, width, -1, 3).mean((1, 3))
        error = np.abs(preview - small).mean()
        print(f"{prompt!r}: mean difference {error:.1f} of 255 (all pixels the mean colour: {_spread(small):.1f})")


def _measure_flux(engine: Engine, rounds: int) -> None:
    device, dtype = engine._components.device, engine._components.precision.computation  # noqa: SLF001 - as above
    autoencoder = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    ).to(device, dtype)
    started_at = time.perf_counter()
    project = fit_projection(autoencoder, scale_factor=8, device=device, dtype=dtype)
    print(f"FLUX.1's autoencoder: fitted in {time.perf_counter() - started_at:.1f} s")
    latents, velocity = (torch.randn(1, FLUX_TOKENS, 64, device=device, dtype=dtype) for _ in range(2))
    sigma = torch.tensor(0.5)

    def preview() -> np.ndarray:
        clean = predict_clean(latents, velocity, sigma)
        return to_pixels(project(unpack_latents(clean, 128, 128)))

    pixels = preview()
    file = _median(lambda: images.encode_preview(pixels, image_format="png"), rounds)
    _compare_with_blocks(preview, FluxBlocks(device, dtype))
    print(f"PNG of noise (another thread): {file * 1000:.1f} ms")


@torch.inference_mode()
def _compare_with_blocks(preview: Callable[[], np.ndarray], blocks: FluxBlocks) -> None:
    """The first round is a warm-up; blocks and preview take turns."""
    clock = time.process_time if blocks.device.type == "cpu" else time.perf_counter
    double, single, previews = [], [], []
    for _ in range(1 + FLUX_ROUNDS):
        double.append(_seconds(blocks.run_double, clock))
        previews.append(_median(preview, 10, clock))
        single.append(_seconds(blocks.run_single, clock))
        previews.append(_median(preview, 10, clock))
    times = [statistics.median(each[1:]) for each in (double, single)]
    step = NUM_DOUBLE_BLOCKS * times[0] + NUM_SINGLE_BLOCKS * times[1]
    middle = statistics.median(previews[2:])
    print(f"FLUX.1 at 1024x1024: double block {times[0]:.2f} s, single block {times[1]:.2f} s, so a step {step:.0f} s")
    print(f"preview (device's thread): {middle * 1000:.2f} ms, {middle / step:.5%} of a step")


class FluxBlocks:
    """One double and one single block of FLUX.1's width, with what they read."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        sizes = {"dim": 3072, "num_attention_heads": 24, "attention_head_dim": 128}
        self._double = FluxTransformerBlock(**sizes).to(device, dtype).eval()
        self._single = FluxSingleTransformerBlock(**sizes).to(device, dtype).eval()
        self._image, self._text, self._temb = (
            torch.randn(1, *shape, device=device, dtype=dtype)
            for shape in ((FLUX_TOKENS, 3072), (FLUX_TEXT_TOKENS, 3072), (3072,))
        )
        ids = torch.cat([torch.zeros(FLUX_TEXT_TOKENS, 3), make_image_ids(128, 128)]).to(device)
        self._rotary = FluxPosEmbed(theta=10_000, axes_dim=[16, 56, 56])(ids)

    def run_double(self) -> float:
        return self._run(self._double)

    def run_single(self) -> float:
        return self._run(self._single)

    def _run(self, block: torch.nn.Module) -> float:
        """One value of what comes out: reading it waits until a GPU is done."""
        return float(block(self._image, self._text, self._temb, self._rotary)[0][0, 0, 0])


def _spread(pixels: np.ndarray) -> float:
    return float(np.abs(pixels - pixels.mean((0, 1))).mean())


def _start(engine: Engine, *, prompt: str = "a red cat", **parameters: int) -> Generation:
    request = build_generation_request(engine.spec, id="preview", prompt=prompt, seed=7, **parameters)  # type: ignore[arg-type]
    generation = Generation(request=request, image_index=0, arrived_at=0.0)
    engine.start(generation)
    return generation


def _median(work: Callable[[], object], rounds: int, clock: Callable[[], float] = time.perf_counter) -> float:
    return statistics.median(_seconds(work, clock) for _ in range(rounds))


def _seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    started_at = clock()
    work()
    return clock() - started_at


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder in the diffusers layout")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--flux", action="store_true", help="compare with FLUX.1's blocks too (a minute or two)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
