"""Drives an engine the way a replica does, without one."""

from __future__ import annotations

from typing import Any

from safelight.engine.engine import Engine
from safelight.engine.pixels.autoencoder import Pixels
from safelight.picture.generation import Generation
from safelight.picture.parameters import build_generation_request


def make_generation(engine: Engine, *, image_index: int = 0, **parameters: Any) -> Generation:
    """A generation of "a red cat" with seed 7, unless told otherwise."""
    request = build_generation_request(engine.spec, **{"id": "r", "prompt": "a red cat", "seed": 7} | parameters)
    return Generation(request=request, image_index=image_index, arrived_at=0.0)


def start(engine: Engine, **parameters: Any) -> Generation:
    generation = make_generation(engine, **parameters)
    engine.start(generation)
    return generation


def denoise(engine: Engine, *batch: Generation) -> None:
    """Step until every generation is denoised; each leaves the batch when it is."""
    while running := [generation for generation in batch if not generation.is_denoised]:
        engine.step(running)


def finish(engine: Engine, generation: Generation) -> Pixels:
    """Denoise it alone from where it stands, decode, release."""
    denoise(engine, generation)
    pixels = engine.decode(generation)
    engine.release(generation)
    return pixels


def paint(engine: Engine, **parameters: Any) -> Pixels:
    """The pixels of one generation, alone."""
    return finish(engine, start(engine, **parameters))
