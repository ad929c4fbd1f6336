"""Where tensors are computed: a GPU where there is one, or else the CPU; matrices are multiplied in bf16."""

from functools import cache

import torch


@cache
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed_precision() -> torch.autocast:
    return torch.autocast(device().type, torch.bfloat16)
