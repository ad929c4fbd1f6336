"""Makes a row's result independent of how many rows share its forward pass, on CPUs.

Matrix products of fewer than 16 rows take other kernels (one row: a vector product), which round differently. Only the
modulation layers see so few, one row for each image. Padding them to 16 costs next to nothing, and makes an image the
same, bit for bit, alone and in a batch: docs/decisions/0002-same-seed-same-picture.md.

CPUs with AMX split long sums by the number of rows, however many those are; such products are made image by image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_ROWS = 16
LONG_SUM = 512  # features; sums of 1024 were seen to be split, and none of 256


class RowStableLinear(nn.Linear):
    """A linear layer that never multiplies fewer than 16 rows, nor sums what is long over several images at once."""

    def forward(self, input: Tensor) -> Tensor:
        if _is_split_by_rows(input):
            return torch.stack([self.forward(image) for image in input])
        rows = input.reshape(-1, input.shape[-1])
        if len(rows) >= MIN_ROWS:
            return super().forward(input)
        padded = nn.functional.pad(rows, (0, 0, 0, MIN_ROWS - len(rows)))
        return super().forward(padded)[: len(rows)].reshape(*input.shape[:-1], self.out_features)


def _is_split_by_rows(input: Tensor) -> bool:
    """Whether `input`, (images, tokens, features), would be summed in another order with more images."""
    return input.ndim == 3 and input.shape[-1] > LONG_SUM and input.device.type == "cpu"


def make_batch_invariant(transformer: nn.Module) -> None:
    """Let every linear layer multiply at least 16 rows. Only their class changes: weights and names stay."""
    for module in transformer.modules():
        if type(module) is nn.Linear:
            module.__class__ = RowStableLinear
