"""Reads LoRA files, in any of the namings that there are for FLUX.1; safetensors only.

Every tensor of a file reaches a layer or adds nothing, or the file is refused with the name that stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn

from safelight.engine.families.flux1.components import Components
from safelight.engine.families.flux1.loras.checks import FileLayer, refuse, shown, sort_layers
from safelight.engine.families.flux1.loras.names import Network, Part, Place, linear_layers, name_places
from safelight.engine.families.flux1.loras.settings import LoraSettings, read_settings
from safelight.engine.families.flux1.loras.tensors import LoraTensors, name_content, open_lora_file
from safelight.engine.low_rank import Lora, LowRank
from safelight.errors import ModelLoadError
from safelight.model.revision import lora_revision, settings_beside
from safelight.model.spec import LoraFile

_BROKEN = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError)
"""What settings that make no sense lead to, and files that are gone or too large."""


def read_lora(source: LoraFile, components: Components) -> Lora:
    """The adapter in a file, on the model's device and in its dtype. Raises ModelLoadError, naming the file."""
    file = Path(source.file)
    try:
        with open_lora_file(file) as tensors:
            lora = _read(tensors, settings_beside(file), components)
        revision = lora_revision(file)  # after it was read: were it replaced in between, it would be found out
    except ModelLoadError as error:
        raise ModelLoadError(f"{file} {error.message}") from error
    except SafetensorError as error:
        raise ModelLoadError(f"{file} is no safetensors file: {name_content(file) or shown(error)}") from error
    except _BROKEN as error:
        raise ModelLoadError(f"{file} is no LoRA that can be read: {shown(error)}") from error
    if source.revision not in ("", revision):
        raise ModelLoadError(f"{file} has changed since the server started; restart the server to use the new one")
    return lora


def _read(tensors: LoraTensors, beside: str | None, components: Components) -> Lora:
    linears = linear_layers(components)
    layers = sort_layers(tensors, name_places(components), linears)
    if not layers:
        raise ModelLoadError("holds no LoRA")
    is_of_peft = any(key.startswith("base_model.model.") for key in tensors.shapes)
    settings = read_settings(tensors.metadata, beside if is_of_peft else None)
    loaded: dict[Network, dict[str, LowRank]] = {"transformer": {}, "text_encoder": {}}
    scalings = [_scaling(layer, tensors, settings) for layer in layers]
    unfit = []
    for layer, scaling in zip(layers, scalings, strict=True):
        whole = _load(layer, tensors, components, scaling)
        if not whole.is_finite:
            unfit.append(
                f"{layer.name} is NaN or infinite in {str(components.precision.computation).removeprefix('torch.')}"
            )
        network = layer.place.network
        loaded[network].update(_split(whole, layer.place, linears[network]))
    refuse(unfit)
    return Lora(**loaded)


def _scaling(layer: FileLayer, tensors: LoraTensors, settings: LoraSettings) -> float:
    alpha = tensors.number(layer.keys["alpha"]) if "alpha" in layer.keys else None
    return settings.scaling(layer.name, tensors.shapes[layer.keys["down"]][0], alpha)


def _load(layer: FileLayer, tensors: LoraTensors, components: Components, scaling: float) -> LowRank:
    """What a file has for one place, in the model's dtype, with the rows in diffusers' order."""

    def load(part: Part) -> Tensor:
        return tensors.read(layer.keys[part]).to(components.device, components.precision.computation).contiguous()

    down, up = load("down"), load("up")
    bias = load("bias") if "bias" in layer.keys else None
    if layer.place.is_swapped:
        up, bias = _swap_halves(up), None if bias is None else _swap_halves(bias)
    return LowRank(down=down, up=up, bias=bias, scaling=scaling)


def _swap_halves(rows: Tensor) -> Tensor:
    return rows.roll(len(rows) // 2, dims=0)


def _split(whole: LowRank, place: Place, linears: Mapping[str, nn.Linear]) -> Iterator[tuple[str, LowRank]]:
    """Each layer with its rows. The ranks that are zeros in them are left out: some files have one block a layer."""
    if len(place.layers) == 1:
        yield place.layers[0], whole
        return
    start = 0
    for name in place.layers:
        own = slice(start, start + linears[name].out_features)
        start = own.stop
        up, down = whole.up[own], whole.down
        used = up.any(dim=0)
        if 0 < int(used.sum()) < len(down):
            up, down = up[:, used], down[used]
        bias = None if whole.bias is None else whole.bias[own]
        yield name, LowRank(down=down, up=up.contiguous(), bias=bias, scaling=whole.scaling)
