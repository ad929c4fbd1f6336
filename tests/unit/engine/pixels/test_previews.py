"""What a picture looks like while it develops, and what it costs to know."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from torch.nn import functional

from safelight.engine.engine import Engine, load_engine
from safelight.engine.pixels.previews import draw_pictures, fit_projection
from safelight.settings import EngineOptions
from tests.unit.engine.drive import denoise, finish, paint, start


class Config(dict[str, float]):
    scaling_factor = 2.0


class LinearAutoencoder:
    """Its latents are the mean colours of 8x8 pixels, mixed: a matrix can undo that."""

    dtype = torch.float32
    mixture = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.5, 0.0, 1.0], [1.0, 1.0, 1.0]])

    def __init__(self) -> None:
        self.config = Config(shift_factor=0.1)

    def encode(self, image: Tensor) -> Any:
        mixed = torch.einsum("oc,nchw->nohw", self.mixture, functional.avg_pool2d(image, 8))
        certain = torch.full_like(mixed, -20.0)
        return SimpleNamespace(latent_dist=DiagonalGaussianDistribution(torch.cat([mixed, certain], 1)))

    def decode(self, latents: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        colours = torch.einsum("co,nohw->nchw", torch.linalg.pinv(self.mixture), latents)
        return (functional.interpolate(colours, scale_factor=8),)


def test_the_projection_does_what_a_linear_decoder_does() -> None:
    autoencoder = LinearAutoencoder()
    picture = draw_pictures(1).flip(3)
    project = fit_projection(autoencoder, scale_factor=8, device=torch.device("cpu"), dtype=torch.float32)

    latents = (autoencoder.encode(picture).latent_dist.mode() - 0.1) * 2.0
    small = functional.avg_pool2d(project(latents)[None], project.patch_size)

    assert torch.allclose(small, functional.avg_pool2d(picture, 8), atol=1e-4)


def test_a_preview_is_a_quarter_of_the_picture_wide(engine: Engine, taef_engine: Engine) -> None:
    for each, size in ((engine, (96, 64)), (taef_engine, (128, 64))):
        generation = start(each, width=size[0], height=size[1], num_previews=1)
        each.step([generation])

        assert each.preview(generation).shape == (size[1] // 4, size[0] // 4, 3)
        each.release(generation)


def test_the_projection_is_fitted_once_when_the_first_request_has_previews(
    tiny_flux_folder: Path, engine: Engine
) -> None:
    fresh = load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float32"))
    encodings: list[int] = []
    fresh._components.autoencoder.encoder.register_forward_hook(lambda _, images, __: encodings.append(len(images[0])))

    picture = paint(fresh)
    at_start = len(encodings)
    generation, same = start(fresh, num_previews=3), start(engine, num_previews=3)
    shown = []
    for each, other in ((fresh, generation), (engine, same)):
        for _ in range(3):
            each.step([other])
            shown.append(each.preview(other))

    assert (at_start, len(encodings)) == (0, 1)
    assert all(np.array_equal(late, early) for late, early in zip(shown[:3], shown[3:], strict=True))
    assert np.array_equal(finish(fresh, generation), picture)
    engine.release(same)


def test_the_real_decoder_makes_a_preview_in_full_size(engine: Engine) -> None:
    generation = start(engine, num_previews=1, preview_decoder="autoencoder")
    engine.step([generation])

    assert engine.preview(generation).shape == (64, 64, 3)
    engine.release(generation)


def test_after_the_last_step_the_preview_of_the_real_decoder_is_the_picture(engine: Engine) -> None:
    generation = start(engine, num_previews=1, preview_decoder="autoencoder")
    denoise(engine, generation)

    preview = engine.preview(generation)

    assert np.abs(preview.astype(int) - finish(engine, generation)).max() <= 1


def test_previews_change_nothing_in_the_picture(engine: Engine) -> None:
    generation = start(engine, num_previews=3)
    for _ in range(3):
        engine.step([generation])
        engine.preview(generation)

    assert np.array_equal(finish(engine, generation), paint(engine))


def test_a_generation_without_previews_keeps_nothing_for_them(engine: Engine) -> None:
    generation = start(engine)
    engine.step([generation])

    assert engine._denoising[generation].clean_latents is None
    engine.release(generation)
