"""The config of a part in a file: what is published, with the sizes that the file's tensors have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from safelight.errors import UnsupportedModel
from safelight.model.single_files.names import Config
from safelight.model.single_files.parts import TITLES, Part

Sizes = dict[str, Any]


def read_config(part: Part, published: Config) -> Config:
    """`published` with the sizes of the part. Raises UnsupportedModel for one that cannot be FLUX.1's."""
    return {**published, **_READERS[part.component](part, published)}


def _transformer(part: Part, published: Config) -> Sizes:
    layers = _count(part, r"^(?:double_blocks|transformer_blocks)\.(\d+)\.")
    single = _count(part, r"^(?:single_blocks|single_transformer_blocks)\.(\d+)\.")
    guidance = any("guidance_in" in name or "guidance_embedder" in name for name in part.tensor_names)
    shape = _shapes(part, {**published, "num_layers": layers, "num_single_layers": single})
    width, channels = shape("x_embedder.weight", 2)
    head = shape("transformer_blocks.0.attn.norm_q.weight", 1)[0]
    made = shape("proj_out.weight", 2)[0]
    if channels != made:
        kind = {384: "FLUX.1 Fill", 128: "a FLUX.1 with a control picture (Canny or Depth)"}.get(
            channels, "another model"
        )
        raise UnsupportedModel(
            f"{part.path} is of {kind}: its transformer takes {channels} channels and makes {made}; Safelight serves "
            "FLUX.1 [schnell] and [dev]"
        )
    turned = sum(published["axes_dims_rope"])
    if turned != head:
        whose = "FLUX.1's" if turned == _FLUX1_HEAD else "those of the checkpoint beside it"
        raise UnsupportedModel(
            f"{part.path} has attention heads of {head}, and {whose} have {turned}: it is another model"
        )
    return {
        "in_channels": channels,
        "num_layers": layers,
        "num_single_layers": single,
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shape("context_embedder.weight", 2)[1],
        "pooled_projection_dim": shape("time_text_embed.text_embedder.linear_1.weight", 2)[1],
        "guidance_embeds": guidance,
    }


_FLUX1_HEAD = 128


def _vae(part: Part, published: Config) -> Sizes:
    levels = _count(part, r"^encoder\.(?:down|down_blocks)\.(\d+)\.")
    depth = _count(part, r"^encoder\.(?:down\.0\.block|down_blocks\.0\.resnets)\.(\d+)\.")
    names = set(part.tensor_names)
    found = {
        "layers_per_block": depth,
        "use_quant_conv": "quant_conv.weight" in names,
        "use_post_quant_conv": "post_quant_conv.weight" in names,
    }
    shape = _shapes(part, {**published, **found, "block_out_channels": [0] * levels})
    return {
        **found,
        "block_out_channels": [
            shape(f"encoder.down_blocks.{level}.resnets.0.conv1.weight", 4)[0] for level in range(levels)
        ],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": shape("decoder.conv_in.weight", 4)[1],
    }


def _text_encoder(part: Part, published: Config) -> Sizes:
    layers = _count(part, r"^(?:text_model\.)?encoder\.layers\.(\d+)\.")
    shape = _shapes(part, {**published, "num_hidden_layers": layers})
    words, width = shape("embeddings.token_embedding.weight", 2)
    return {
        "hidden_size": width,
        "intermediate_size": shape("encoder.layers.0.mlp.fc1.weight", 2)[0],
        "max_position_embeddings": shape("embeddings.position_embedding.weight", 2)[0],
        "num_hidden_layers": layers,
        "vocab_size": words,
    }


def _text_encoder_2(part: Part, published: Config) -> Sizes:
    layers = _count(part, r"^(?:encoder\.block|enc\.blk)\.(\d+)\.")
    _check_t5(part)
    shape = _shapes(part, {**published, "num_layers": layers})
    words, width = shape("shared.weight", 2)
    buckets, heads = shape("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 2)
    return {
        "d_model": width,
        "d_ff": shape("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 2)[0],
        "d_kv": shape("encoder.block.0.layer.0.SelfAttention.q.weight", 2)[0] // heads,
        "num_heads": heads,
        "num_layers": layers,
        "relative_attention_num_buckets": buckets,
        "vocab_size": words,
        **_OF_VERSION_1_1,
    }


_OF_VERSION_1_1 = {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True}


def _check_t5(part: Part) -> None:
    names = set(part.tensor_names)
    if any(re.search(r"(?:block|blk)\.1\..*(?:relative_attention_bias|attn_rel_b)\.", name) for name in names):
        raise UnsupportedModel(
            f"{part.path} is a UMT5, of another model; FLUX.1 reads T5-XXL of version 1.1: use its encoder"
        )
    if not any(re.search(r"wi_0\.|ffn_gate\.", name) for name in names):
        raise UnsupportedModel(
            f"{part.path} is a T5 of version 1.0; FLUX.1 reads T5-XXL of version 1.1: use its encoder"
        )


_READERS: Mapping[str, Callable[[Part, Config], Sizes]] = {
    "transformer": _transformer,
    "vae": _vae,
    "text_encoder": _text_encoder,
    "text_encoder_2": _text_encoder_2,
}


def _count(part: Part, pattern: str) -> int:
    """One more than the greatest number of a block."""
    found = [int(match[1]) for name in part.tensor_names if (match := re.match(pattern, name))]
    greatest = max(found, default=-1)
    if greatest >= _MOST_BLOCKS:
        raise UnsupportedModel(f"{part.path} numbers its blocks up to {greatest}: it is no {TITLES[part.component]}")
    return greatest + 1


_MOST_BLOCKS = 1000


def _shapes(part: Part, config: Config) -> Callable[[str, int], tuple[int, ...]]:
    """What tells the shape of a parameter that is not made of a part of its tensor, with so many dimensions."""
    table = part.table(config)

    def shape(parameter: str, num_dimensions: int) -> tuple[int, ...]:
        source = table.get(parameter)
        head = part.head.tensors.get(source.name) if source else None
        if head is None or len(head.shape) != num_dimensions or 0 in head.shape:
            raise UnsupportedModel(
                f"{part.path} has no {source.name if source else parameter}, or one of another kind: it is not whole, "
                f"or no {TITLES[part.component]} of FLUX.1; use another file"
            )
        return head.shape

    return shape
