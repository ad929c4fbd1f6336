"""What a replica asks of the model that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from safelight.model.spec import ModelSpec
from safelight.picture.generation import Generation
from safelight.picture.recipe import Backend


class EngineCounters(Protocol):
    """What an engine has done since it was loaded."""

    @property
    def transformer_calls(self) -> int: ...
    @property
    def prompt_cache_hits(self) -> int: ...
    @property
    def prompt_cache_misses(self) -> int: ...


class Engine(Protocol):
    """What the loop asks of `engine.Engine`, and of the fake one in the tests. One thread calls all but `decode`."""

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def backend(self) -> Backend: ...
    @property
    def picture_s(self) -> float | None:
        """Seconds that the steps of the default picture may take; None: next to nothing."""

    @property
    def decodes_beside_steps(self) -> bool:
        """Whether another thread may call `decode`, one at a time, while this one goes on with other generations."""

    def start(self, generation: Generation, /) -> None: ...
    def step(self, batch: Sequence[Generation], /) -> None: ...
    def preview(self, generation: Generation, /) -> np.ndarray: ...
    def decode(self, generation: Generation, /) -> np.ndarray: ...
    def release(self, generation: Generation, /) -> None: ...
    def counters(self) -> EngineCounters: ...
