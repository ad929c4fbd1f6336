"""Where tensors are computed: a GPU where there is one, or else the CPU; matrices in bf16 where the hardware has it."""

from functools import cache

import torch

from safelight.engine.devices import has_bfloat16


@cache
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def matrix_dtype() -> torch.dtype:
    """On a CPU that only imitates bf16, a product in it takes a hundred times as long as in fp32."""
    return torch.bfloat16 if has_bfloat16(device()) else torch.float32


def mixed_precision() -> torch.autocast:
    return torch.autocast(device().type, torch.bfloat16, enabled=matrix_dtype() == torch.bfloat16)
