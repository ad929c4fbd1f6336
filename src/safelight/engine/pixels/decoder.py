"""Decodes beside the steps of others: on a CPU a decoder runs near the cores' limit on one thread, and scales less.

docs/decisions/0033-a-decoder-beside-the-steps.md has the figures.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from safelight.engine.pixels.autoencoder import decode_latents
from safelight.engine.threads import Threads


class Decoder:
    """`decode_latents` with all of the process's CPU threads, or with half of them while others need the rest."""

    def __init__(self, autoencoder: Any, threads: Threads) -> None:
        self._autoencoder = autoencoder
        self._threads = threads
        self.is_busy = False
        """Whether it decodes at this moment, in another thread."""

    def __call__(self, latents: Tensor, *, is_alone: bool) -> Tensor:
        """The image of `decode_latents`, bit for bit the same alone and beside others."""
        decode = partial(decode_latents, self._autoencoder, latents)
        if latents.device.type != "cpu":
            return decode()
        self.is_busy = True
        try:
            return self._threads.with_all(decode) if is_alone else self._threads.with_half(tuple(latents.shape), decode)
        finally:
            self.is_busy = False
