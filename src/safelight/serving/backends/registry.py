"""Where replicas can run: one line for each runtime. Only the one that is chosen is imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from safelight.errors import ConfigurationError
from safelight.serving.backends.protocol import CreateFactory, ReplicasFactory
from safelight.settings import Settings

RUNTIMES: Mapping[str, str] = {
    "local": "safelight.serving.backends.local",
    "ray": "safelight.serving.backends.ray.backend",
}
"""What the setting `runtime` may be -> the module with its `create_factory`."""


def components_here(settings: Settings) -> tuple[str, ...] | None:
    """Of a model of the hub: the networks whose weights are read on this machine. None: all of them."""
    return None if settings.runtime == "local" else ()


def find_factory(settings: Settings) -> ReplicasFactory:
    """What makes replicas where the settings say. Raises ConfigurationError."""
    module = RUNTIMES.get(settings.runtime)
    if module is None:
        raise ConfigurationError(f"runtime: {settings.runtime!r} is none; give {' or '.join(RUNTIMES)}")
    create_factory = cast(CreateFactory, import_module(module).create_factory)
    return create_factory(settings)
