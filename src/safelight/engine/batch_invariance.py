"""Makes a row's result independent of how many rows share its forward pass, on CPUs.

Matrix products of fewer than 16 rows take other kernels (one row: a vector product), which round differently. Only the
modulation layers see so few, one row for each image. Padding them to 16 costs next to nothing, and makes an image the
same, bit for bit, alone and in a batch: docs/decisions/0002-same-seed-same-picture.md.

In bf16 on CPUs with AMX, long sums are split by the number of rows too; those products are made image by image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_ROWS = 16
LONG_SUM = 512


class RowStableLinear(nn.Linear):
    """A linear layer that never multiplies fewer than 16 rows."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        if len(rows) >= MIN_ROWS:
            if _is_split_by_rows(input) and len(input) > 1:
                return torch.stack([nn.functional.linear(image, self.weight, self.bias) for image in input.unbind()])
            return super().forward(input)
        padded = nn.functional.pad(rows, (0, 0, 0, MIN_ROWS - len(rows)))
        return super().forward(padded)[: len(rows)].reshape(*input.shape[:-1], self.out_features)


def _is_split_by_rows(input: Tensor) -> bool:
    """Whether `input`, (images, tokens, features), is summed in another order when there are more images."""
    is_long = input.ndim == 3 and input.shape[-1] > LONG_SUM
    return is_long and input.device.type == "cpu" and input.dtype is torch.bfloat16


def make_batch_invariant(transformer: nn.Module) -> None:
    """Let every linear layer multiply at least 16 rows. Only their class changes: weights and names stay."""
    for module in transformer.modules():
        if type(module) is nn.Linear:
            module.__class__ = RowStableLinear
