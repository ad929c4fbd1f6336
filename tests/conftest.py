"""Fixtures that any test may use."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random FLUX.1-schnell a few hundred kilobytes large: no embedded guidance, AutoencoderKL, 64x64."""
    from tests.tiny_flux import save_tiny_flux

    return save_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux")


@pytest.fixture(scope="session")
def tiny_flux_dev_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built like FLUX.1-dev: embedded guidance, and a shift that grows with the image."""
    from tests.tiny_flux import DEV_SCHEDULE, save_tiny_flux

    folder = tmp_path_factory.mktemp("models") / "tiny-flux-dev"
    return save_tiny_flux(folder, guidance_embeds=True, schedule=DEV_SCHEDULE)


@pytest.fixture(scope="session")
def tiny_flux_taef_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an AutoencoderTiny of five levels, as sprite has: sizes are multiples of 32."""
    from tests.tiny_flux import save_tiny_flux

    return save_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux-taef", tiny_autoencoder=True, num_levels=5)
