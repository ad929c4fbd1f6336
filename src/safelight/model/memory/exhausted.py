"""What says that there was no memory, in the words of every library, and what a user is told to do about it."""

from __future__ import annotations

import re

_NO_MEMORY = re.compile("out of memory|allocate memory|not enough memory", re.IGNORECASE)
"""In the words of torch, whose own class is for GPUs only, and of the system."""


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and _NO_MEMORY.search(str(error)) is not None
    )


OLD_AND_NEW = "A deployment that is updated needs memory for the old and the new replicas at once"


def what_needs_less(smaller: str) -> str:
    """`smaller`: the options of the next smaller plan; empty where there is none."""
    if not smaller:
        return "no plan of this model needs less: free memory, or use smaller files"
    return f"what needs less is {smaller} (for a deployment the variables SAFELIGHT_QUANTIZATION and so on)"


def no_memory_for(width: int, height: int, *, beside: int) -> str:
    """Of a picture that was being made, with so many others in its batch, which have its size."""
    together = f", in a batch with {beside} other{'s' if beside > 1 else ''}" if beside else ""
    return (
        f"there was no memory for a picture of {width}x{height}{together}; ask for a smaller one, or, where the server "
        "is started, give it --vae-tiling on or a lower --max-batch-size"
    )
