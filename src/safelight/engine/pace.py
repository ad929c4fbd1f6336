"""How long a picture takes a large model on a CPU: one block is timed for a moment, and counted up.

Where a picture takes minutes, whoever starts the server must hear of it before the first request runs into its timeout.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from safelight.model.memory.plan import LARGE_BYTES
from safelight.model.spec import ModelSpec

_FEW, _MORE = 8, 32
"""Tokens. What a block costs is a part for its weights, which may be stored in another form, and one for each token."""


@torch.inference_mode()
def estimate_picture_s(transformer: Any, spec: ModelSpec, *, device: torch.device, dtype: torch.dtype) -> float | None:
    """Seconds of all steps of the model's default picture; None for a model that is small, or on a GPU.

    A block of the kind that has least of its own for the text stands for all of them; attention, which it leaves out,
    is made up for by layers of it that see one token only.
    """
    blocks = [each for each in transformer.children() if isinstance(each, nn.ModuleList)]
    if device.type != "cpu" or not blocks or _num_bytes(transformer) < LARGE_BYTES:
        return None
    layers = [each for each in blocks[-1][0].modules() if isinstance(each, nn.Linear)]
    _time(layers, 1, dtype)  # brings the weights into memory
    few, more = _time(layers, _FEW, dtype), _time(layers, _MORE, dtype)
    of_token = max(0.0, more - few) / (_MORE - _FEW)
    of_weights = max(0.0, few - of_token * _FEW)
    tokens = spec.default_width * spec.default_height // spec.size_multiple**2 + spec.max_sequence_length
    return sum(map(len, blocks)) * spec.default_num_inference_steps * (of_weights + of_token * tokens)


def _num_bytes(network: nn.Module) -> int:
    return sum(each.nbytes for each in (*network.parameters(), *network.buffers()))


def _time(layers: Sequence[nn.Linear], num_tokens: int, dtype: torch.dtype) -> float:
    began_at = time.perf_counter()
    for layer in layers:
        layer(torch.zeros(1, num_tokens, layer.in_features, dtype=dtype))
    return time.perf_counter() - began_at
