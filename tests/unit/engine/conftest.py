"""Engines on the tiny checkpoints, in fp32 on the CPU, so that every machine tests the same arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

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
