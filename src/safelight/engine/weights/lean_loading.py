"""Fills a network tensor by tensor from its files, so that no part of it is ever in memory twice.

What is large stays as it lies in the file, mapped: the system reads it when it is multiplied, and may forget it again.
Quantized on the way, a weight is read, and brought to fewer bytes, a block of rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from safelight.engine.weights.files import FileTensor
from safelight.engine.weights.stored_linear import StoredLinear
from safelight.engine.weights.stored_weights import (
    CastWeight,
    GgufWeight,
    Nf4Weight,
    Quantized,
    ScaledWeight,
    quantize_float8,
    quantize_int8,
    quantize_nf4,
)
from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.memory.plan import is_mapped
from safelight.settings import Quantization

BLOCK_NUMBERS = 16 * 1024**2
"""Weights that are quantized at once."""
MakeNetwork = Callable[[], nn.Module]
_Store = Callable[[Tensor, Tensor], ScaledWeight | Nf4Weight]
_QUANTIZERS: Mapping[Quantization, tuple[Callable[[Tensor], Quantized], _Store]] = {
    "int8": (quantize_int8, ScaledWeight),
    "fp8": (quantize_float8, ScaledWeight),
    "nf4": (quantize_nf4, Nf4Weight),
}


def load_network(
    make: MakeNetwork,
    tensors: Mapping[str, FileTensor],
    *,
    quantization: Quantization,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """What `make` makes, with the weights of its files in place of its own. Raises ModelLoadError or UnsupportedModel.

    `dtype` is that of computation. Only layers that repeat are quantized: what stands before and after them is small,
    and each of its errors reaches every pixel. What a file has quantized already stays as it is.
    """
    network = _make_empty(make)
    _check_shapes(network, tensors)
    is_large = is_mapped(sum(tensor.num_bytes for tensor in tensors.values()))
    for name, layer in repeated_linears(network).items():
        weight = _store(tensors[f"{name}.weight"], quantization, dtype, device, is_large=is_large)
        if weight is not None:
            bias = None if layer.bias is None else tensors[f"{name}.bias"].numbers(dtype).clone()
            network.set_submodule(name, StoredLinear(weight, bias).to(device))
    for names in _parameters(network):
        numbers = next(tensors[name] for name in names if name in tensors).numbers(dtype)
        parameter = nn.Parameter(numbers.to(device) if is_large else numbers.to(device, copy=True), requires_grad=False)
        for name in names:
            owner, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(owner), attribute, parameter)
    return network.to(device).eval().requires_grad_(False)


def check_network(make: MakeNetwork, tensors: Mapping[str, FileTensor]) -> None:
    """Whether they are what it asks for: no number is read. Raises ModelLoadError or UnsupportedModel."""
    _check_shapes(_make_empty(make), tensors)


def _make_empty(make: MakeNetwork) -> Any:
    with init_empty_weights(include_buffers=False), no_init_weights():  # to draw weights that are not there takes time
        network = make()
    if isinstance(network, PreTrainedModel):
        network.tie_weights()
    return network


def _check_shapes(network: nn.Module, tensors: Mapping[str, FileTensor]) -> None:
    for names in _parameters(network):
        tensor = next((tensors[name] for name in names if name in tensors), None)
        shape = tuple(network.get_parameter(names[0]).shape)
        if tensor is None:
            raise ModelLoadError(f"its files have no {names[0]}; download them again")
        if tensor.shape != shape:
            raise UnsupportedModel(
                f"{tensor.place} is {list(tensor.shape)}, and {list(shape)} is asked for: it is of another model; use "
                "another file"
            )


def _parameters(network: nn.Module) -> list[list[str]]:
    """The names of each parameter: several where layers share it."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return list(names.values())


def repeated_linears(network: nn.Module) -> dict[str, nn.Linear]:
    """By name: the layers whose weights are quantized, if any are."""
    return {
        name: layer
        for prefix, blocks in network.named_modules()
        if isinstance(blocks, nn.ModuleList)
        for name, layer in blocks.named_modules(prefix=prefix)
        if type(layer) is nn.Linear
    }


def _store(
    tensor: FileTensor, quantization: Quantization, dtype: torch.dtype, device: torch.device, *, is_large: bool
) -> Any:
    """The weight as it is kept; None if that is a plain tensor of the dtype of computation."""
    if tensor.quant_type is not None:
        return GgufWeight(tensor.values, tensor.quant_type)
    if tensor.is_nf4:
        assert tensor.scale is not None, "its head has been checked"
        return Nf4Weight(tensor.values, tensor.scale)
    if tensor.values.itemsize == 1:
        tensor.check_finite()
        if tensor.scale is None:
            return CastWeight(tensor.values)
        return ScaledWeight(tensor.values, tensor.scale.expand(len(tensor.values), 1))
    if quantization != "none":
        return quantize_weight(tensor, quantization, device)
    return CastWeight(tensor.values) if is_large and tensor.values.dtype != dtype else None


def quantize_weight(tensor: FileTensor, quantization: Quantization, device: torch.device) -> ScaledWeight | Nf4Weight:
    """Of plain numbers; by blocks of rows, each on the device, so that little of it is in fp32 at once."""
    if quantization == "nf4" and tensor.shape[1] % 2:
        quantization = "int8"  # two numbers lie in a byte
    weight = CastWeight(tensor.values)
    quantize, store = _QUANTIZERS[quantization]
    block = max(1, BLOCK_NUMBERS // weight.in_features)
    parts = [
        quantize(weight.rows(start, min(start + block, weight.out_features), torch.float32).to(device))
        for start in range(0, weight.out_features, block)
    ]
    return store(torch.cat([numbers for numbers, _ in parts]), torch.cat([scales for _, scales in parts]))
