"""FLUX.1 as narrow as its published configs allow, so that its files need no config: what they do not tell is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentencepiece
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from safelight.model.single_files import configs
from tests.tiny_flux import clip_tokenizer, t5_tokenizer

WIDTH = 32
"""Of T5."""
CLIP_WIDTH = 48
"""It has twelve heads."""


def save_slim_flux(folder: Path) -> Path:
    """Write it in the diffusers layout; the same weights each time."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    transformer = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1, "joint_attention_dim": WIDTH}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    clip = {"hidden_size": CLIP_WIDTH, "intermediate_size": 64, "num_hidden_layers": 1}
    t5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    pipeline = FluxPipeline(
        transformer=FluxTransformer2DModel(
            **_published("transformer"), **transformer, pooled_projection_dim=CLIP_WIDTH
        ),
        vae=AutoencoderKL(**_published("vae", "block_out_channels"), block_out_channels=[32] * 4, **blocks),
        text_encoder=CLIPTextModel(CLIPTextConfig(**_published("text_encoder") | clip)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=T5EncoderModel(T5Config(**_published("text_encoder_2") | t5)),
        tokenizer_2=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )
    torch.set_rng_state(state)
    pipeline.save_pretrained(folder)
    return folder


def _published(component: str, *without: str) -> dict[str, Any]:
    sizes = {"num_layers", "num_single_layers", "num_attention_heads", "joint_attention_dim", "pooled_projection_dim"}
    left_out = {"_class_name", "architectures", *without, *(sizes if component == "transformer" else ())}
    return {key: value for key, value in configs.COMPONENTS[component].items() if key not in left_out}


def save_public_tokenizers(folder: Path) -> dict[str, Path]:
    """Hub id -> a folder as the public repositories have it: CLIP's in three spellings, T5's as sentencepiece only."""
    clip, t5 = folder / "clip", folder / "t5"
    clip_tokenizer().save_pretrained(clip)
    (clip / "vocab.json").write_text("{}")
    (clip / "merges.txt").write_text("")
    (clip / "model.safetensors").write_text("not asked for")
    t5.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red cat on a blue mat", "an astronaut riding a horse"] * 20),
        model_prefix=str(t5 / "spiece"),
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (t5 / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 100}')
    return {"openai/clip-vit-large-patch14": clip, "google/t5-v1_1-xxl": t5}
