"""What each parameter of a network is called in a single file, and which of its rows are the parameter's.

Tables built from a component's config: diffusers' or transformers' name -> where it lies. The originals: BFL's
`flux/modules` (https://github.com/black-forest-labs/flux), llama.cpp's `gguf-py/gguf/constants.py`, transformers' T5
and CLIP as ComfyUI saves them, and the autoencoder of latent diffusion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a parameter lies."""

    name: str
    """Of the tensor in the file."""
    rows: tuple[tuple[int, int], ...] | None = None
    """Ranges of its rows, in the order in which they make up the parameter; None: all."""
    is_convolution: bool = False
    """A linear layer that the file has as a convolution of one pixel."""


Table = Mapping[str, Source]
_Entries = Iterator[tuple[str, Source]]


def bfl_transformer(config: Config) -> Table:
    """The transformer as Black Forest Labs saves it: q, k and v, and what reads the same input, are one tensor."""
    return dict(_bfl_transformer(config))


def llama_t5(config: Config) -> Table:
    """T5's encoder as llama.cpp converts it."""
    return dict(_llama_t5(config))


def transformers_t5(config: Config) -> Table:
    """T5's encoder as transformers saves it."""
    return {name: Source(name) for name in llama_t5(config)}


def transformers_clip(config: Config) -> Table:
    """CLIP's text model as transformers saved it up to version 4, and everybody else does."""
    return {name: Source(f"text_model.{name}") for name in _clip_names(config)}


def bare_clip(config: Config) -> Table:
    """CLIP's text model as transformers 5 saves it."""
    return {name: Source(name) for name in _clip_names(config)}


def ldm_autoencoder(config: Config) -> Table:
    """The autoencoder in the names of latent diffusion, which BFL's `ae.safetensors` has."""
    return dict(_ldm_autoencoder(config))


def as_saved(table: Callable[[Config], Table]) -> Callable[[Config], Table]:
    """The same parameters, under the names that diffusers gives them."""
    return lambda config: {name: Source(name) for name in table(config)}


_BFL_LAYERS = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
}
_BFL_GUIDANCE = {
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
}
_BFL_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_BFL_DOUBLE_SPLIT = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_BFL_DOUBLE_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}
_BFL_SINGLE = {"norm.linear": "modulation.lin", "proj_out": "linear2"}
_BFL_SINGLE_SPLIT = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
_BFL_SINGLE_NORMS = {"attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"}
MLP_RATIO = 4


def _bfl_transformer(config: Config) -> _Entries:
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    layers = _BFL_LAYERS | (_BFL_GUIDANCE if config.get("guidance_embeds") else {})
    yield from _layers("", "", layers)
    # Both halves shift and scale; diffusers has them the other way round.
    yield from _layer("norm_out.linear", "final_layer.adaLN_modulation.1", ((width, 2 * width), (0, width)))
    for number in range(int(config["num_layers"])):
        ours, theirs = f"transformer_blocks.{number}.", f"double_blocks.{number}."
        yield from _layers(ours, theirs, _BFL_DOUBLE)
        for name, parts in _BFL_DOUBLE_SPLIT.items():
            yield from _split(ours, theirs + name, parts, width)
        yield from _norms(ours, theirs, _BFL_DOUBLE_NORMS)
    for number in range(int(config["num_single_layers"])):
        ours, theirs = f"single_transformer_blocks.{number}.", f"single_blocks.{number}."
        yield from _layers(ours, theirs, _BFL_SINGLE)
        yield from _split(ours, f"{theirs}linear1", _BFL_SINGLE_SPLIT, width)
        yield from _norms(ours, theirs, _BFL_SINGLE_NORMS)


def _layers(ours: str, theirs: str, names: Mapping[str, str]) -> _Entries:
    for name, its_name in names.items():
        yield from _layer(ours + name, theirs + its_name)


def _layer(ours: str, theirs: str, rows: tuple[tuple[int, int], ...] | None = None) -> _Entries:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", Source(f"{theirs}.{kind}", rows)


def _split(ours: str, theirs: str, parts: tuple[str, ...], width: int) -> _Entries:
    """The parts one after another; what comes after q, k and v is the first layer of the MLP."""
    for number, part in enumerate(parts):
        length = width * (MLP_RATIO if number == 3 else 1)
        yield from _layer(ours + part, theirs, ((number * width, number * width + length),))


def _norms(ours: str, theirs: str, names: Mapping[str, str]) -> _Entries:
    for name, its_name in names.items():
        yield f"{ours}{name}.weight", Source(f"{theirs}{its_name}.scale")


_LLAMA_T5_BLOCK = {
    "layer.0.SelfAttention.q": "attn_q",
    "layer.0.SelfAttention.k": "attn_k",
    "layer.0.SelfAttention.v": "attn_v",
    "layer.0.SelfAttention.o": "attn_o",
    "layer.0.layer_norm": "attn_norm",
    "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up",
    "layer.1.DenseReluDense.wo": "ffn_down",
    "layer.1.layer_norm": "ffn_norm",
}


def _llama_t5(config: Config) -> _Entries:
    yield "shared.weight", Source("token_embd.weight")
    for number in range(int(config["num_layers"])):
        for name, its_name in _LLAMA_T5_BLOCK.items():
            yield f"encoder.block.{number}.{name}.weight", Source(f"enc.blk.{number}.{its_name}.weight")
    yield (
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        Source("enc.blk.0.attn_rel_b.weight"),
    )
    yield "encoder.final_layer_norm.weight", Source("enc.output_norm.weight")


_CLIP_BLOCK = (
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")),
    *("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"),
)


def _clip_names(config: Config) -> Iterator[str]:
    yield "embeddings.token_embedding.weight"
    yield "embeddings.position_embedding.weight"
    for number in range(int(config["num_hidden_layers"])):
        yield from (f"encoder.layers.{number}.{name}.{kind}" for name in _CLIP_BLOCK for kind in ("weight", "bias"))
    yield "final_layer_norm.weight"
    yield "final_layer_norm.bias"


_LDM_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _ldm_autoencoder(config: Config) -> _Entries:
    channels, depth = config["block_out_channels"], int(config["layers_per_block"])
    for layer in ("quant_conv", "post_quant_conv"):
        if config.get(f"use_{layer}", True):
            yield from _layer(layer, layer)
    for side in ("encoder", "decoder"):
        yield from _ldm_ends(f"{side}.")
    last = len(channels) - 1
    for level in range(len(channels)):
        ours, theirs = f"encoder.down_blocks.{level}.", f"encoder.down.{level}."
        yield from _resnets(ours, theirs, depth, channels[max(level - 1, 0)] != channels[level])
        if level < last:
            yield from _layer(f"{ours}downsamplers.0.conv", f"{theirs}downsample.conv")
        ours, theirs = f"decoder.up_blocks.{last - level}.", f"decoder.up.{level}."
        yield from _resnets(ours, theirs, depth + 1, channels[min(level + 1, last)] != channels[level])
        if level > 0:
            yield from _layer(f"{ours}upsamplers.0.conv", f"{theirs}upsample.conv")


def _ldm_ends(side: str) -> _Entries:
    """What comes before, between and after the levels."""
    yield from _layers(side, side, {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"})
    for number in (0, 1):
        yield from _resnet(f"{side}mid_block.resnets.{number}.", f"{side}mid.block_{number + 1}.")
    for name, its_name in _LDM_ATTENTION.items():
        ours, theirs = f"{side}mid_block.attentions.0.{name}", f"{side}mid.attn_1.{its_name}"
        yield f"{ours}.weight", Source(f"{theirs}.weight", is_convolution=name != "group_norm")
        yield f"{ours}.bias", Source(f"{theirs}.bias")


def _resnets(ours: str, theirs: str, count: int, changes_channels: bool) -> _Entries:
    for number in range(count):
        yield from _resnet(f"{ours}resnets.{number}.", f"{theirs}block.{number}.")
    if changes_channels:
        yield from _layer(f"{ours}resnets.0.conv_shortcut", f"{theirs}block.0.nin_shortcut")


def _resnet(ours: str, theirs: str) -> _Entries:
    yield from _layers(ours, theirs, {name: name for name in ("norm1", "conv1", "norm2", "conv2")})
