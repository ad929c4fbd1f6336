"""A CUDA stream of their own for pictures that are decoded while others take their steps.

docs/decisions/0047-a-picture-is-decoded-on-a-stream-of-its-own.md has where, and what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from safelight.model.memory.plan import Choice

DecodeStream = Callable[[Tensor], AbstractContextManager[object]]
"""A block beside the steps, for latents that come from them: what it asks of the device neither waits for a step that
was begun since they were made, nor lets one wait.
"""


def decode_stream(device: torch.device, choice: Choice) -> DecodeStream:
    """A block where everything else runs, unless the plan has room for both at once.

    It may read the latents at once: `FiniteCheck.is_finite` has waited, by an event, until they were made. What it
    makes is to be copied to the CPU within it, as `to_pixels` does, which waits.
    """
    if not choice.decodes_beside:
        return nullcontext
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextmanager
    def beside(latents: Tensor) -> Iterator[None]:
        latents.record_stream(stream)  # else the steps may be given its memory while it is read here
        with torch.cuda.stream(stream):
            yield

    return beside
