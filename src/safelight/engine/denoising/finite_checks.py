"""Whether latents are finite, asked after each step and read after the next: no step waits until a GPU has done it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class FiniteCheck:
    """Of one generation after one step."""

    step_index: int
    _flags: npt.NDArray[np.bool_]
    _row: int
    _arrived: torch.cuda.Event | None
    """When the flags are there; None: they are."""

    def is_finite(self) -> bool:
        """Waits for the step that made the latents, if a GPU is still at it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._flags[self._row])


def check_later(latents: Sequence[Tensor], step_indices: Sequence[int]) -> list[FiniteCheck]:
    """One check for each generation's latents (1, tokens, channels); on a GPU all are fetched together, later."""
    flags, arrived = _fetch(torch.cat(list(latents)).isfinite().flatten(1).all(1))
    return [FiniteCheck(index, flags, row, arrived) for row, index in enumerate(step_indices)]


def _fetch(flags: Tensor) -> tuple[npt.NDArray[np.bool_], torch.cuda.Event | None]:
    if flags.device.type != "cuda":
        return flags.to("cpu").numpy(), None
    fetched = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
    fetched.copy_(flags, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return fetched.numpy(), arrived
