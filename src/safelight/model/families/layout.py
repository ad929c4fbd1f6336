"""What a family of models says of its checkpoints. What computes with them stands in `engine.families`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safelight.model.spec import ModelSpec
from safelight.model.weight_files import Network

TILE_SIZE = 512
"""Pixels of a side of what an autoencoder decodes at once, where it decodes in tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSizes:
    """Numbers that are alive at once, in the dtype of computation, while the largest picture of a model is made."""

    encode: int
    denoise: int
    """Of one row of the batch."""
    decode: int
    decode_tile: int
    """If it is decoded in tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A family's checkpoints in the diffusers layout."""

    title: str
    """Of the family, in messages."""
    pipelines: tuple[str, ...]
    """By their exact names. The first one is the family's own."""
    networks: tuple[Network, ...]
    without_weights: tuple[str, ...]
    """The other components: the schedule, the tokenizers."""
    check: Callable[[Path], None]
    """Whether the configs of a folder fit each other. Raises UnsupportedModel or ModelLoadError."""
    describe: Callable[[Path], ModelSpec]
    """What the configs of a checked folder tell; its sidecar may say otherwise."""
    work: Callable[[Path, ModelSpec], WorkSizes]
    """What a checked folder takes beside its weights."""
    engine: str
    """The module whose `load` is an `engine.family.Loader`; imported in the replica only, since it needs torch."""
