"""A FLUX.1 checkpoint small enough for tests: random weights, the real component classes, the diffusers layout.

Nothing is downloaded: weights are random, and the tokenizers know single characters. The autoencoder of four levels
scales by 8 as FLUX's does, so sizes are multiples of 16.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers import FluxTransformer2DModel as FluxTransformer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from safelight.model.checkpoint import SIDECAR

SIZES = {"default_width": 64, "default_height": 64, "min_size": 32, "max_size": 256, "max_sequence_length": 64}

CHARACTERS = string.ascii_lowercase + string.digits + ",.'!?-"


def save_tiny_flux(
    folder: Path,
    *,
    guidance_embeds: bool = False,
    tiny_autoencoder: bool = False,
    num_levels: int = 4,
    schedule: dict[str, Any] | None = None,
) -> Path:
    """Write a random FLUX checkpoint to `folder`; the same arguments give the same weights."""
    random_state = torch.get_rng_state()
    torch.manual_seed(0)
    latent_channels = 4
    pipeline = FluxPipeline(
        transformer=_transformer(latent_channels, guidance_embeds),
        vae=_tiny_autoencoder(latent_channels, num_levels) if tiny_autoencoder else _autoencoder(latent_channels),
        text_encoder=_clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(**(schedule or {"shift": 1.0})),
    )
    torch.set_rng_state(random_state)
    pipeline.save_pretrained(folder)
    (folder / SIDECAR).write_text(json.dumps(SIZES))
    return folder


def clip_tokenizer() -> CLIPTokenizer:
    pieces = ["<|startoftext|>", "<|endoftext|>", *CHARACTERS, *(f"{character}</w>" for character in CHARACTERS)]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *CHARACTERS]
    return T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0, model_max_length=512)


def _transformer(latent_channels: int, guidance_embeds: bool) -> FluxTransformer:
    return _spread(
        FluxTransformer(
            in_channels=latent_channels * 4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        )
    )


def _clip() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return _spread(CLIPTextModel(config))


def _t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(t5_tokenizer()), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, dropout_rate=0.0
    )
    return T5EncoderModel(config)


def _autoencoder(latent_channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=2,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )


def _tiny_autoencoder(latent_channels: int, num_levels: int) -> AutoencoderTiny:
    return _spread(
        AutoencoderTiny(
            latent_channels=latent_channels,
            encoder_block_out_channels=(8,) * num_levels,
            decoder_block_out_channels=(8,) * num_levels,
            num_encoder_blocks=(1,) * num_levels,
            num_decoder_blocks=(1,) * num_levels,
            scaling_factor=0.5,
            shift_factor=0.1,
        )
    )


def _spread(network: Any) -> Any:
    """Random weights large enough that prompts, timesteps and guidance all show in the picture."""
    for name, weight in network.named_parameters():
        if weight.ndim > 1 and "embedding." not in name:
            weight.data.mul_(2.0)
    return network
