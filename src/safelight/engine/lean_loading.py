"""Fills a network tensor by tensor from its files, so that no part of it is ever in memory twice.

What is large stays as it lies in the file, mapped: the system reads it when it is multiplied, and may forget it again.
Quantized on the way, a weight is read, and brought to fewer bytes, a block of rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from safelight.engine.stored_linear import StoredLinear, StoredWeight
from safelight.engine.stored_weights import CastWeight, GgufWeight, ScaledWeight, quantize_float8, quantize_int8
from safelight.engine.weight_files import FileTensor

Quantization = Literal["none", "int8", "fp8"]

LARGE_BYTES = 1024**3
"""Of a network's files: from here on its weights stay in the file's dtype, and mapped."""
BLOCK_NUMBERS = 16 * 1024**2
"""Weights that are quantized at once."""
_QUANTIZERS: Mapping[Quantization, Callable[[Tensor], ScaledWeight]] = {"int8": quantize_int8, "fp8": quantize_float8}


def load_network(
    make: Callable[[], nn.Module],
    tensors: Mapping[str, FileTensor],
    *,
    quantization: Quantization,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """What `make` makes without weights, with those of the files, which are all that it asks for.

    `dtype` is that of computation. Only layers that repeat are quantized: what stands before and after them is small,
    and each of its errors reaches every pixel.
    """
    with torch.device("meta"):
        network = make()
    is_large = sum(tensor.values.nbytes for tensor in tensors.values()) >= LARGE_BYTES
    for name, layer in _repeated_linears(network).items():
        weight = _store(tensors[f"{name}.weight"], quantization, dtype, is_large=is_large)
        if weight is not None:
            bias = None if layer.bias is None else tensors[f"{name}.bias"].numbers(dtype)
            network.set_submodule(name, StoredLinear(weight, bias).to(device))
    for name, _ in list(network.named_parameters()):
        if name in tensors:
            _put(network, name, nn.Parameter(tensors[name].numbers(dtype).to(device), requires_grad=False))
    if hasattr(network, "tie_weights"):
        network.tie_weights()
    return network.eval().requires_grad_(False)


def _repeated_linears(network: nn.Module) -> dict[str, nn.Linear]:
    return {
        name: layer
        for prefix, blocks in network.named_modules()
        if isinstance(blocks, nn.ModuleList)
        for name, layer in blocks.named_modules(prefix=prefix)
        if type(layer) is nn.Linear
    }


def _store(tensor: FileTensor, quantization: Quantization, dtype: torch.dtype, *, is_large: bool) -> Any:
    """The weight as it is kept; None if that is a plain tensor of the dtype of computation."""
    if tensor.quant_type is not None:
        return GgufWeight(tensor.values, tensor.quant_type)
    if tensor.scale is not None:
        return ScaledWeight(tensor.values, tensor.scale.float().reshape(-1, 1).expand(len(tensor.values), 1))
    if quantization != "none" and tensor.values.itemsize > 1:
        return _quantize(CastWeight(tensor.values), _QUANTIZERS[quantization])
    if tensor.values.dtype == dtype or not (is_large or tensor.values.itemsize == 1):
        return None
    return CastWeight(tensor.values)


def _quantize(weight: StoredWeight, quantize: Callable[[Tensor], ScaledWeight]) -> ScaledWeight:
    """By blocks of rows: each row has its own scale, so it is what it would be at once."""
    block = max(1, BLOCK_NUMBERS // weight.in_features)
    parts = [
        quantize(weight.rows(start, min(start + block, weight.out_features), torch.float32))
        for start in range(0, weight.out_features, block)
    ]
    return ScaledWeight(torch.cat([part.values for part in parts]), torch.cat([part.scales for part in parts]))


def _put(network: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, parameter)
