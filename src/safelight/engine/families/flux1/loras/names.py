"""How LoRA files name the layers of FLUX.1, in one table for all namings: diffusers', BFL's, XLabs's, OneTrainer's.

kohya writes underscores for dots, ComfyUI and PEFT put words in front; so names are compared without both. BFL's layers
are diffusers' ones, except that some are several in one, row below row, and that one has its halves swapped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from safelight.engine.families.flux1.components import Components

Network = Literal["transformer", "text_encoder"]
Linears = Mapping[Network, Mapping[str, nn.Linear]]
Part = Literal["down", "up", "bias", "alpha"]


@dataclass(frozen=True, slots=True)
class Place:
    """What the name of a layer in a file stands for."""

    network: Network
    layers: tuple[str, ...]
    """diffusers' names. Of several, each has its rows of `up`, one below the other."""
    is_swapped: bool = False
    """The upper half of the rows is the lower half in diffusers."""


Places = Mapping[tuple[Network, str], Place]
"""By network, and name without dots."""

_OUTER = {
    "img_in": ("x_embedder",),
    "img_in.proj": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
_IMAGE_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_TEXT_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_DOUBLE = {
    "img_attn.qkv": _IMAGE_QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": _TEXT_QKV,
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
    "processor.qkv_lora1": _IMAGE_QKV,
    "processor.proj_lora1": ("attn.to_out.0",),
    "processor.qkv_lora2": _TEXT_QKV,
    "processor.proj_lora2": ("attn.to_add_out",),
}
_SINGLE = {
    "linear1": (*_IMAGE_QKV, "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
    "processor.qkv_lora": _IMAGE_QKV,
    "processor.proj_lora": ("proj_out",),
}
_BLOCKS = (("double_blocks", "transformer_blocks", _DOUBLE), ("single_blocks", "single_transformer_blocks", _SINGLE))
_SWAPPED = "final_layer.adaLN_modulation.1"
"""BFL's has shift before scale: diffusers' AdaLayerNormContinuous has scale before shift."""

_NAME = re.compile(
    r"(?:base_model\.model\.)?"
    r"(?:(?P<clip>text_encoder\.|text_encoders\.clip_l\.transformer\.|clip_l\.|lora_te1?_)"
    r"|(?:model\.)?diffusion_model\.|transformer\.|lora_unet_|lora_transformer_|lycoris_)?"
    r"(?:base_model\.model\.)?(?P<layer>.+)",
    re.DOTALL,
)
_ADAPTER = r"(?:\.[A-Za-z_]\w*)?"  # PEFT's name of the adapter, usually `default`
_KEYS: Mapping[Part, re.Pattern[str]] = {
    "down": re.compile(
        rf"(.+?)\.(?:(?:lora_A|lora_down){_ADAPTER}|lora\.down|lora_linear_layer\.down|down)\.weight", re.DOTALL
    ),
    "up": re.compile(rf"(.+?)\.(?:(?:lora_B|lora_up){_ADAPTER}|lora\.up|lora_linear_layer\.up|up)\.weight", re.DOTALL),
    "bias": re.compile(rf"(.+?)\.(?:lora_B|lora_up){_ADAPTER}\.bias", re.DOTALL),
    "alpha": re.compile(r"(.+)\.alpha", re.DOTALL),
}


def split_key(key: str) -> tuple[str, Part] | None:
    """The layer that a key is about, as the file names it, and which part of the LoRA it is; None if it is none."""
    for part, pattern in _KEYS.items():
        if match := pattern.fullmatch(key):
            return match[1], part
    return None


def split_name(name: str) -> tuple[Network, str]:
    """The network that a layer in a file is of, and its name in there, without the words in front."""
    match = _NAME.fullmatch(name)
    if match is None:
        return "transformer", name
    return "text_encoder" if match["clip"] else "transformer", match["layer"]


def find_place(name: str, places: Places) -> Place | None:
    """What a layer in a file stands for; None if the model has nothing of that name."""
    network, layer = split_name(name)
    return places.get((network, _flat(layer)))


def name_places(components: Components) -> Places:
    """Every name that a file may have for a linear layer of the model."""
    linears = linear_layers(components)
    places: dict[tuple[Network, str], Place] = {}
    for network, names in linears.items():
        places |= {(network, _flat(name)): Place(network, (name,)) for name in names}
    for name in linears["text_encoder"]:
        short = name.removeprefix("text_model.")  # transformers 5 has it without
        for each in (short, f"text_model.{short}"):
            places["text_encoder", _flat(each)] = Place("text_encoder", (name,))
    for name, layers in _bfl_names(components.transformer):
        if linears["transformer"].keys() >= set(layers):
            places["transformer", _flat(name)] = Place("transformer", layers, is_swapped=name == _SWAPPED)
    return places


def linear_layers(components: Components) -> Linears:
    """What LoRAs can be added to, by network and name."""
    networks: dict[Network, nn.Module] = {
        "transformer": components.transformer,
        "text_encoder": components.text_encoder,
    }
    return {
        network: {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}
        for network, module in networks.items()
    }


def _bfl_names(transformer: nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from _OUTER.items()
    for theirs, ours, parts in _BLOCKS:
        for index, _ in transformer.get_submodule(ours).named_children():
            for name, layers in parts.items():
                full = tuple(f"{ours}.{index}.{layer}" for layer in layers)
                yield f"{theirs}.{index}.{name}", full
                if len(full) > 1:  # OneTrainer numbers what BFL has in one
                    yield from ((f"{theirs}.{index}.{name}.{number}", (each,)) for number, each in enumerate(full))


def _flat(name: str) -> str:
    return name.replace(".", "_").strip("_")
