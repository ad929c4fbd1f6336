"""Reads LoRA files: diffusers', PEFT's and kohya's formats, as far as diffusers' own converters go; safetensors only.

Everything in a file fits the model and is used, or the file is refused with the names that do not.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import FluxLoraLoaderMixin
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from safelight.engine.components import Components
from safelight.engine.low_rank import Layers, LowRank
from safelight.errors import ModelLoadError
from safelight.model_revision import file_revision
from safelight.model_spec import LoraFile

MAX_NAMES = 4
"""Of a file with more that do not fit, the first ones are named."""
MAX_SHOWN_CHARACTERS = 300
"""Of what a name, or diffusers about many names, may say."""
_UNREAD = {
    "T5 weights": re.compile(r"text_encoder_2\.|lora_te2_|t5xxl"),
    "a DoRA's magnitudes": re.compile(r"dora_scale|lora_magnitude_vector"),
    "LoKr or LoHa factors": re.compile(r"lokr_|hada_"),
    "a convolution's factors": re.compile(r"lora_mid"),
    "whole differences of weights": re.compile(r"\.diff(_b)?$"),
}
"""What diffusers would leave out in silence, and how the names of such tensors look."""
_KEY = re.compile(r"(?P<layer>.+)\.lora_(?P<part>A\.weight|B\.weight|B\.bias)")
_BROKEN = (OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError, re.error)
"""What diffusers' converters raise on files that they do not know, and what settings that make no sense lead to."""
_KNOWN = re.compile(r"\blora_te[^,]*(, |$)")
_NETWORKS = ("transformer", "text_encoder")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, weakref_slot=True)
class Lora:
    """One adapter: what it adds to the layers of two networks."""

    transformer: Layers
    text_encoder: Layers
    """CLIP."""

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for layers in (self.transformer, self.text_encoder) for each in layers.values())


def read_lora(source: LoraFile, components: Components) -> Lora:
    """The adapter in a file, on the model's device and in its dtype. Raises ModelLoadError, naming the file."""
    file = Path(source.file)
    try:
        _refuse_unread(file)
        problems, loaded = _read(file, components)
        revision = file_revision(file)  # after it was read: were it replaced in between, it would be found out
    except SafetensorError as error:
        raise ModelLoadError(f"{file} is no safetensors file: {_shown(error)}") from error
    except _BROKEN as error:
        raise ModelLoadError(f"{file} is no LoRA that diffusers reads: {_reason(error)}") from error
    if source.revision not in ("", revision):
        raise ModelLoadError(f"{file} has changed since the server started; restart the server to use the new one")
    if problems:
        more = f", and {len(problems) - MAX_NAMES} more" if len(problems) > MAX_NAMES else ""
        raise ModelLoadError(f"{file} does not fit the model: {'; '.join(map(_shown, problems[:MAX_NAMES]))}{more}")
    lora = Lora(**loaded)
    if not lora.nbytes:
        raise ModelLoadError(f"{file} holds no LoRA")
    return lora


def _read(file: Path, components: Components) -> tuple[list[str], dict[str, Layers]]:
    """What does not fit the model, and the layers of each network."""
    tensors, alphas, metadata = FluxLoraLoaderMixin.lora_state_dict(
        str(file.parent),
        weight_name=file.name,
        use_safetensors=True,
        local_files_only=True,
        return_alphas=True,
        return_lora_metadata=True,
    )
    problems = [f"{name} belongs to no network here" for name in tensors if name.split(".")[0] not in _NETWORKS]
    loaded = {}
    for name in _NETWORKS:
        part = _Part(_own(tensors, name), _own(alphas or {}, name), _own(metadata or {}, name))
        if name == "text_encoder":
            part = part.as_clip(components.text_encoder)
        loaded[name] = _load(part, name, components, problems)
    return problems, loaded


def _refuse_unread(file: Path) -> None:
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  it is no mapping
            kind = next((kind for kind, pattern in _UNREAD.items() if pattern.search(name)), None)
            if kind is not None and bool(tensors.get_tensor(name).any()):
                raise ModelLoadError(f"{file} holds {kind} ({_shown(name)}), which are not read here")


@dataclass(frozen=True, slots=True)
class _Part:
    """What a file has for one network."""

    tensors: Mapping[str, Tensor]
    alphas: Mapping[str, Any]
    """Layer.alpha -> alpha; empty in files of diffusers and PEFT."""
    config: Mapping[str, Any]
    """PEFT's LoraConfig, where the file has it."""

    def as_clip(self, text_encoder: nn.Module) -> _Part:
        """With the names of transformers' CLIP, as diffusers finds them."""
        if not self.tensors:
            return self
        tensors = convert_state_dict_to_peft(convert_state_dict_to_diffusers(dict(self.tensors)))
        prefix = "" if hasattr(text_encoder, "text_model") else "text_model."
        return _Part(
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items()},
            {name.removeprefix(prefix): alpha for name, alpha in self.alphas.items()},
            self.config,
        )

    def scaling(self, layer: str, rank: int) -> float:
        """What the layer is multiplied by: alpha / rank, with alpha from where peft takes it."""
        if self.config:
            patterns = self.config.get("alpha_pattern") or {}
            found = next((each for each in patterns if re.fullmatch(rf"(.*\.)?({each})", layer)), None)
            alpha = float(self.config.get("lora_alpha", rank) if found is None else patterns[found])
            return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)
        if not self.alphas:
            return 1.0
        alphas = {name.removesuffix(".alpha"): float(alpha) for name, alpha in self.alphas.items()}
        return alphas.get(layer, Counter(alphas.values()).most_common()[0][0]) / rank


def _own(values: Mapping[str, Any], network: str) -> dict[str, Any]:
    prefix = f"{network}."
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _load(part: _Part, network: str, components: Components, problems: list[str]) -> Layers:
    """The layers of one network; what does not fit is added to `problems`."""
    tensors = dict(part.tensors)
    if tensors and "lora_A" not in next(iter(tensors)):
        tensors = convert_unet_state_dict_to_peft(tensors)
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        match = _KEY.fullmatch(name)
        if match is None:
            problems.append(f"{network}.{name} is no part of a LoRA")
        else:
            parts[match["layer"]][match["part"]] = tensor
    module: nn.Module = getattr(components, network)
    linears = {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}
    layers = {}
    for layer, own in parts.items():
        found = list(_misfits(f"{network}.{layer}", own, linears.get(layer)))
        problems += found
        if not found:
            down, up, bias = (own.get(each) for each in ("A.weight", "B.weight", "B.bias"))
            assert down is not None
            assert up is not None
            layers[layer] = low_rank = LowRank(
                down=_place(down, components),
                up=_place(up, components),
                bias=None if bias is None else _place(bias, components),
                scaling=part.scaling(layer, len(down)),
            )
            if not low_rank.is_finite:
                problems.append(f"{network}.{layer} is NaN or infinite in {_words(components.dtype)}")
    return layers


def _misfits(name: str, own: Mapping[str, Tensor], linear: nn.Linear | None) -> Iterator[str]:
    if linear is None:
        yield f"{name} is no linear layer of the model"
        return
    if "A.weight" not in own or "B.weight" not in own:
        yield f"{name} lacks lora_A or lora_B"
        return
    rank = max(len(own["A.weight"]), 1)
    right: Mapping[str, tuple[int, ...]] = {
        "A.weight": (rank, linear.in_features),
        "B.weight": (linear.out_features, rank),
        "B.bias": (linear.out_features,),
    }
    for part, tensor in own.items():
        if tuple(tensor.shape) != right[part]:
            yield f"{name}.lora_{part} is {_shape(tensor.shape)}, not {_shape(right[part])}"
        if not tensor.is_floating_point():
            yield f"{name}.lora_{part} is made of {_words(tensor.dtype)}, not of floating-point numbers"


def _place(tensor: Tensor, components: Components) -> Tensor:
    return tensor.to(components.device, components.dtype).contiguous()


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _reason(error: Exception) -> str:
    """What diffusers says; it counts the names of CLIP's layers, which it knows, among those that it does not."""
    told = str(error)
    return _shown(_KNOWN.sub("", told) if told.startswith("Incompatible keys") else error)


def _shown(told: BaseException | str) -> str:
    """On one line of bounded length, and without what moves the cursor of a terminal: the file chose the words."""
    text = " ".join(str(told).split()) or type(told).__name__
    text = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
