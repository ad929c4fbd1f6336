"""Engines on the tiny checkpoints, in fp32 on the CPU, so that every machine tests the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from safelight.engine.engine import Engine, load_engine
from safelight.settings import EngineOptions


@pytest.fixture(scope="session")
def engine(tiny_flux_folder: Path) -> Engine:
    return load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def dev_engine(tiny_flux_dev_folder: Path) -> Engine:
    return load_engine(tiny_flux_dev_folder, EngineOptions(device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def taef_engine(tiny_flux_taef_folder: Path) -> Engine:
    return load_engine(tiny_flux_taef_folder, EngineOptions(device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def bf16_engine(tiny_flux_folder: Path) -> Engine:
    return load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="bfloat16"))


@pytest.fixture
def four_threads() -> Iterator[None]:
    """On a machine of any size: what a process with four does."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)
