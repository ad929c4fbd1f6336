"""Fills a network with the tensors of files, as they are stored: what is quantized stays so, mapped from its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import ModelMixin
from torch import nn

from safelight.engine.component_tensors import component_tensors
from safelight.engine.stored_linear import StoredLinear
from safelight.engine.stored_weights import CastWeight, GgufWeight, ScaledWeight
from safelight.engine.weight_files import FileTensor
from safelight.errors import UnsupportedModel
from safelight.model.configs import read_json
from safelight.model.weight_files import Network


def open_component(folder: Path, network: Network, component_class: Any) -> tuple[Any, Mapping[str, FileTensor]]:
    """The network without weights, and all of its weights, which fit it. Raises UnsupportedModel or ModelLoadError."""
    place = folder / network.name
    made = _make(place, component_class)
    tensors = component_tensors(folder, network, read_json(place / "config.json"))
    for name, parameter in made.named_parameters():
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != tuple(parameter.shape):
            raise UnsupportedModel(
                f"{tensor.place if tensor else place} is {list(tensor.shape) if tensor else 'missing'}, and FLUX.1's "
                f"{name} is {list(parameter.shape)}; use another file"
            )
    return made, tensors


def load_network(network: Any, tensors: Mapping[str, FileTensor], *, dtype: torch.dtype, device: torch.device) -> Any:
    """The network with these weights; `dtype` is that of computation. Raises ModelLoadError for fp8 that is nan."""
    linears = {name: layer for name, layer in network.named_modules() if type(layer) is nn.Linear}
    for name, layer in linears.items():
        stored = _store(tensors[f"{name}.weight"])
        if stored is not None:
            bias = None if layer.bias is None else tensors[f"{name}.bias"].numbers(dtype)
            network.set_submodule(name, StoredLinear(stored, bias).to(device))
    for name, _ in list(network.named_parameters()):
        numbers = tensors[name].numbers(dtype).to(device)
        owner, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(owner), attribute, nn.Parameter(numbers, requires_grad=False))
    if hasattr(network, "tie_weights"):
        network.tie_weights()
    return network.eval().requires_grad_(False).to(device)


def _make(place: Path, component_class: Any) -> Any:
    with init_empty_weights(include_buffers=False):
        if issubclass(component_class, ModelMixin):
            return component_class.from_config(component_class.load_config(place, local_files_only=True))
        network = component_class(component_class.config_class.from_pretrained(place, local_files_only=True))
    network.tie_weights()
    return network


def _store(tensor: FileTensor) -> Any:
    """The weight as the file has it; None for plain numbers of 16 bits or more."""
    tensor.check_finite()
    if tensor.quant_type is not None:
        return GgufWeight(tensor.values, tensor.quant_type)
    if tensor.scale is not None:
        return ScaledWeight(tensor.values, tensor.scale.expand(len(tensor.values), 1))
    return CastWeight(tensor.values) if tensor.values.itemsize == 1 else None
