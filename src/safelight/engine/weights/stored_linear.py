"""Linear layers whose weights take fewer bytes than the numbers they are multiplied as.

The rows of a weight come back to the dtype of computation a block at a time, so small that it is still in the cache
when it is multiplied: nothing of the weight is ever whole in that dtype, and on a CPU most of the price of the
quantization is gone (docs/decisions/0026-weights-stay-as-they-are-stored.md). Activations are never quantized.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from safelight.engine.batch_invariance import stable_linear

BLOCK_ROWS = 256
"""That come back together, on a CPU. Each block's product looks through all activations once more: with fewer rows that
is what costs, and with more they leave the cache before they are multiplied."""


class StoredWeight(Protocol):
    """A weight (out_features, in_features) as it lies in memory or in a file. An nn.Module, so that it can be moved."""

    out_features: int
    in_features: int

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Rows `start` to `stop`, as they are multiplied."""
        ...


class StoredLinear(nn.Linear):
    """`nn.Linear` of a stored weight. Its `weight` is None, so that nobody takes the stored numbers for the weight."""

    def __init__(self, stored: StoredWeight, bias: Tensor | None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = stored.in_features, stored.out_features
        self.register_parameter("weight", None)
        self.register_buffer("bias", bias)
        self.stored = stored

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        block = BLOCK_ROWS if input.device.type == "cpu" else self.out_features
        if block >= self.out_features:
            return stable_linear(input, self.stored.rows(0, self.out_features, input.dtype), bias)
        output = input.new_empty(*input.shape[:-1], self.out_features)
        for start in range(0, self.out_features, block):
            stop = min(start + block, self.out_features)
            weight = self.stored.rows(start, stop, input.dtype)
            output[..., start:stop] = stable_linear(input, weight, None if bias is None else bias[start:stop])
        return output
