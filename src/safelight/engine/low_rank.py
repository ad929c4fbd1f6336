"""What LoRA adapters add to the layers of a network, for some rows of a batch and not for others.

The layers' own products stay shared by the whole batch. What an adapter adds is computed for each row by itself, so no
row can see another one's adapters, and each is, bit for bit, what it would have been alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LowRank:
    """What an adapter adds to one linear layer: scaling * (up @ (down @ x) + bias)."""

    down: Tensor
    """(rank, in_features)."""
    up: Tensor
    """(out_features, rank)."""
    bias: Tensor | None
    scaling: float
    """alpha / rank."""

    @property
    def nbytes(self) -> int:
        return self.down.nbytes + self.up.nbytes + (0 if self.bias is None else self.bias.nbytes)

    @property
    def is_finite(self) -> bool:
        """Without NaN and infinity."""
        tensors = [each for each in (self.down, self.up, self.bias) if each is not None]
        return math.isfinite(self.scaling) and all(bool(tensor.isfinite().all()) for tensor in tensors)


Layers = Mapping[str, LowRank]
"""By the name of the layer in its network."""
Addition = tuple[Layers, float]
"""An adapter's layers, and the strength that a request gives them."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, weakref_slot=True)
class Lora:
    """One adapter: what it adds to the layers of two networks."""

    transformer: Layers
    text_encoder: Layers
    """Of several, the one that LoRAs change."""

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for layers in (self.transformer, self.text_encoder) for each in layers.values())


@contextmanager
def adapted(network: nn.Module, rows: Sequence[Sequence[Addition]]) -> Iterator[None]:
    """Inside, row i of every layer's output gets what `rows[i]` adds. The network itself is never changed."""
    terms: dict[str, list[tuple[int, LowRank, float]]] = defaultdict(list)
    for row, additions in enumerate(rows):
        for layers, scale in additions:
            for name, low_rank in layers.items():
                terms[name].append((row, low_rank, scale * low_rank.scaling))
    with ExitStack() as hooks:
        for name, own_terms in terms.items():
            hook = network.get_submodule(name).register_forward_hook(partial(_add, own_terms))
            hooks.callback(hook.remove)
        yield


def _add(
    terms: Sequence[tuple[int, LowRank, float]], _layer: nn.Module, inputs: tuple[Any, ...], output: Tensor
) -> None:
    for row, low_rank, scale in terms:
        # A copy of its own: where a row lies in memory must not choose the kernel, which would round differently.
        own_input = inputs[0][row : row + 1].clone()
        added = functional.linear(functional.linear(own_input, low_rank.down), low_rank.up, low_rank.bias)
        output[row : row + 1] += added * scale
