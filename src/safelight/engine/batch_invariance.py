"""Makes a row's result independent of how many rows share its forward pass, on CPUs.

Matrix products of fewer than 16 rows take other kernels (one row: a vector product), which round differently. Only the
modulation layers see so few, one row for each image. Padding them to 16 makes an image the same, bit for bit, alone and
in a batch (docs/decisions/0002-same-seed-same-picture.md), and costs next to nothing in a small model. In a wide one
sixteen rows cost several times what one does: there each image's row is multiplied by itself.

Some CPUs split long sums by the number of rows, however many those are (AMX does; AVX2 was not seen to). So the first
product of each shape is made both ways, and says whether this machine may make the others together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_ROWS = 16
WIDE = 2048
"""Features from which a product of one row waits for the weight, not for arithmetic."""
LONG_SUM = 512  # features; sums of 1024 were seen to be split, and none of 256

_Shape = tuple[torch.dtype, int, int, int, int]
_may_be_together: dict[_Shape, bool] = {}
"""(dtype, images, tokens, in_features, out_features) -> whether each image's rows come out as they would alone."""


class RowStableLinear(nn.Linear):
    """A linear layer whose rows come out as they would alone."""

    def forward(self, input: Tensor) -> Tensor:
        return stable_linear(input, self.weight, self.bias)


def stable_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear` of (..., in_features), where each image's rows come out as they would alone.

    Of (images, in_features) each row is multiplied alone, or among no fewer than 16. Long sums are made over several
    images, (images, tokens, in_features), at once only where this machine was seen to make the same of them one by one.
    """
    if input.device.type != "cpu":
        return functional.linear(input, weight, bias)
    if input.ndim == 2 and input.shape[-1] >= WIDE:
        return torch.cat([functional.linear(row, weight, bias) for row in torch.split(input, 1)])
    return _linear_of_rows(input, weight, bias)


def _linear_of_rows(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    num_rows = input.numel() // input.shape[-1]
    if num_rows < MIN_ROWS:
        padded = functional.pad(input.reshape(num_rows, -1), (0, 0, 0, MIN_ROWS - num_rows))
        return functional.linear(padded, weight, bias)[:num_rows].reshape(*input.shape[:-1], -1)
    if input.ndim != 3 or len(input) == 1 or input.shape[-1] <= LONG_SUM:
        return functional.linear(input, weight, bias)
    return _linear_of_images(input, weight, bias)


def _linear_of_images(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    shape = (images.dtype, *images.shape, len(weight))
    is_known = shape in _may_be_together
    if is_known and _may_be_together[shape]:
        return functional.linear(images, weight, bias)
    one_by_one = torch.stack([_linear_of_rows(image, weight, bias) for image in images])
    if not is_known and bool(one_by_one.isfinite().all()):
        _may_be_together[shape] = torch.equal(one_by_one, functional.linear(images, weight, bias))
    return one_by_one


def make_batch_invariant(transformer: nn.Module) -> None:
    """Let every linear layer make its rows as if alone. Only their class changes: weights and names stay."""
    for module in transformer.modules():
        if type(module) is nn.Linear:
            module.__class__ = RowStableLinear
