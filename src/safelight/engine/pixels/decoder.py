"""Decodes beside the steps of others: on a CPU a decoder runs near the cores' limit on one thread, and scales less.

docs/decisions/0033-a-decoder-beside-the-steps.md has the figures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from safelight.engine.pixels.autoencoder import decode_latents


class Decoder:
    """`decode_latents` with all of the process's CPU threads, or with half of them while others need the rest."""

    def __init__(self, autoencoder: Any) -> None:
        self._autoencoder = autoencoder
        self.num_threads = torch.get_num_threads()
        self._makes_the_same: dict[tuple[int, ...], bool] = {}
        """Shape of the latents -> whether this machine was seen to make the same pixels with half of the threads."""

    def __call__(self, latents: Tensor, *, is_alone: bool) -> Tensor:
        """The image of `decode_latents`, bit for bit the same alone and beside others: the first is made both ways."""
        shape, few = tuple(latents.shape), max(1, self.num_threads // 2)
        if latents.device.type != "cpu" or few == self.num_threads or is_alone:
            return self._decode(latents, self.num_threads)
        if shape not in self._makes_the_same:
            image = self._decode(latents, self.num_threads)
            self._makes_the_same[shape] = torch.equal(self._decode(latents, few), image)
            return image
        return self._decode(latents, few if self._makes_the_same[shape] else self.num_threads)

    def _decode(self, latents: Tensor, num_threads: int) -> Tensor:
        torch.set_num_threads(num_threads)  # of the calling thread alone
        try:
            return decode_latents(self._autoencoder, latents)
        finally:
            torch.set_num_threads(self.num_threads)
