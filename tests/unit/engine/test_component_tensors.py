"""The parameters of a component come out of a single file as diffusers' own converters take them out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from safelight.engine.weights.component_tensors import component_tensors
from safelight.errors import UnsupportedModel
from safelight.model.families.flux1 import FLUX1
from safelight.model.single_files import configs, names
from tests.single_files import prefixed, renamed, save, save_gguf, scaled_fp8

NETWORKS = {network.name: network for network in FLUX1.networks}
TRUE = configs.COMPONENTS["transformer"] | {"num_layers": 2, "num_single_layers": 2}
"""At its real width, which diffusers' converter assumes; the matrices have next to no columns."""
COLUMNS = 4


def bfl_transformer(*, guidance: bool = True) -> dict[str, Tensor]:
    """Random, with the rows of the original: https://github.com/black-forest-labs/flux/blob/main/src/flux/model.py."""
    width, generator = 3072, torch.Generator().manual_seed(0)
    rows = {"img_in": width, "txt_in": width, "final_layer.linear": 64, "final_layer.adaLN_modulation.1": 2 * width}
    for name in ("time_in", "vector_in", *(["guidance_in"] if guidance else [])):
        rows |= {f"{name}.in_layer": width, f"{name}.out_layer": width}
    scales = []
    for number in range(2):
        for side in ("img", "txt"):
            block = f"double_blocks.{number}.{side}_"
            rows |= {f"{block}mod.lin": 6 * width, f"{block}attn.qkv": 3 * width, f"{block}attn.proj": width}
            rows |= {f"{block}mlp.0": 4 * width, f"{block}mlp.2": width}
            scales += [f"{block}attn.norm.{norm}_norm.scale" for norm in ("query", "key")]
        block = f"single_blocks.{number}."
        rows |= {f"{block}modulation.lin": 3 * width, f"{block}linear1": 7 * width, f"{block}linear2": width}
        scales += [f"{block}norm.{norm}_norm.scale" for norm in ("query", "key")]
    made = {f"{name}.weight": torch.randn(count, COLUMNS, generator=generator) for name, count in rows.items()}
    made |= {f"{name}.bias": torch.randn(count, generator=generator) for name, count in rows.items()}
    return made | {name: torch.randn(128, generator=generator) for name in scales}


def read(folder: Path, component: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = component_tensors(folder, NETWORKS[component], config)
    return {name: tensor.numbers(torch.float32) for name, tensor in tensors.items()}


def place(folder: Path, component: str) -> Path:
    (folder / component).mkdir()
    return folder / component


def assert_equal(made: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(made[name], tensor), name


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("guidance", [True, False])
def test_bfl_s_transformer_is_taken_apart_as_diffusers_does(tmp_path: Path, prefix: str, guidance: bool) -> None:
    original = bfl_transformer(guidance=guidance)
    save(place(tmp_path, "transformer") / "flux1.safetensors", prefixed(original, prefix))

    made = read(tmp_path, "transformer", TRUE | {"guidance_embeds": guidance})

    assert_equal(made, convert_flux_transformer_checkpoint_to_diffusers(dict(original)))
    with torch.device("meta"):
        network = FluxTransformer2DModel.from_config(dict(TRUE | {"guidance_embeds": guidance}))
    assert made.keys() == network.state_dict().keys()


def test_rows_of_scaled_fp8_are_the_rows_of_what_it_stands_for(tmp_path: Path) -> None:
    original = scaled_fp8(bfl_transformer())
    plain = {name: tensor for name, tensor in original.items() if "scale" not in name or name.endswith("norm.scale")}
    for name in [name for name in original if name.endswith(".scale_weight")]:
        weight = name.removesuffix(".scale_weight") + ".weight"
        plain[weight] = plain[weight].float() * original[name]
    save(place(tmp_path, "transformer") / "flux1-fp8.safetensors", original)

    made = read(tmp_path, "transformer", TRUE | {"guidance_embeds": True})

    wanted = convert_flux_transformer_checkpoint_to_diffusers({name: each.float() for name, each in plain.items()})
    assert_equal(made, wanted)


def test_bfl_s_autoencoder_is_renamed_as_diffusers_does(tmp_path: Path) -> None:
    sizes = {"block_out_channels": [8, 16, 16, 32], "norm_num_groups": 2, "latent_channels": 16, "layers_per_block": 2}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    config = {**configs.COMPONENTS["vae"], **sizes, **blocks}
    network = AutoencoderKL.from_config(config)
    original = renamed(network.state_dict(), names.ldm_autoencoder(config))
    save(place(tmp_path, "vae") / "ae.safetensors", original)

    made = read(tmp_path, "vae", config)

    assert_equal(made, convert_ldm_vae_checkpoint(dict(original), config))
    assert_equal(made, network.state_dict())


T5 = {
    **configs.COMPONENTS["text_encoder_2"],
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_heads": 4,
    "num_layers": 2,
    "vocab_size": 96,
}


def t5() -> T5EncoderModel:
    torch.manual_seed(0)
    return T5EncoderModel(T5Config(**{key: value for key, value in T5.items() if key != "architectures"}))


def without_alias(network: Any) -> dict[str, Tensor]:
    return {name: each for name, each in network.state_dict().items() if name != "encoder.embed_tokens.weight"}


def test_t5_has_the_names_that_llama_cpp_s_converter_gives_it(tmp_path: Path) -> None:
    network = t5()
    wanted = without_alias(network)
    theirs = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    original = {theirs.get_name(name, (".weight",)): tensor for name, tensor in wanted.items()}
    place(tmp_path, "text_encoder_2")
    save_gguf(tmp_path / "text_encoder_2" / "t5.gguf", original, lambda _: "F32", "t5encoder")

    assert_equal(read(tmp_path, "text_encoder_2", T5), wanted)


@pytest.mark.parametrize("dropped", ["shared.weight", "encoder.embed_tokens.weight"])
def test_t5_has_its_words_under_either_name(tmp_path: Path, dropped: str) -> None:
    network = t5()
    weights = {name: each.clone() for name, each in network.state_dict().items() if name != dropped}
    inert = {"logit_scale": torch.ones(()), "decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(2, 2)}
    save(place(tmp_path, "text_encoder_2") / "t5xxl.safetensors", weights | inert)

    assert_equal(read(tmp_path, "text_encoder_2", T5), without_alias(network))


@pytest.mark.parametrize("prefix", ["text_model.", ""])
def test_clip_s_text_model_comes_with_and_without_its_prefix(tmp_path: Path, prefix: str) -> None:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 86,
    }
    config = {**configs.COMPONENTS["text_encoder"], **sizes}
    network = CLIPTextModel(CLIPTextConfig(**{key: value for key, value in config.items() if key != "architectures"}))
    inert = {"logit_scale": torch.ones(()), "text_projection.weight": torch.ones(2, 2)}
    inert[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    save(place(tmp_path, "text_encoder") / "clip_l.safetensors", prefixed(network.state_dict(), prefix) | inert)

    assert_equal(read(tmp_path, "text_encoder", config), network.state_dict())


def test_a_tensor_that_is_left_over_or_missing_refuses_the_file_by_name(tmp_path: Path) -> None:
    path = place(tmp_path, "transformer") / "flux1.safetensors"
    original = bfl_transformer()
    config = TRUE | {"guidance_embeds": True}

    save(path, original | {"double_blocks.0.img_attn.extra.weight": torch.ones(2)})
    with pytest.raises(UnsupportedModel, match=r"no place for, such as double_blocks\.0\.img_attn\.extra\.weight"):
        read(tmp_path, "transformer", config)

    save(path, {name: each for name, each in original.items() if name != "single_blocks.1.linear2.bias"})
    with pytest.raises(UnsupportedModel, match=r"lacks 1 tensors .* such as single_blocks\.1\.linear2\.bias"):
        read(tmp_path, "transformer", config)

    short = {f"single_blocks.{index}.linear1.weight": torch.ones(100, COLUMNS) for index in range(2)}
    save(path, original | short)
    with pytest.raises(UnsupportedModel, match=r"linear1\.weight has the shape \[100, 4\], too small"):
        read(tmp_path, "transformer", config)

    save(path, original | {"single_blocks.1.linear1.weight": torch.ones(100, COLUMNS)})
    with pytest.raises(UnsupportedModel, match=r"linear1\.weight as \[100, 4\], and the same of its first block as "):
        read(tmp_path, "transformer", config)


def test_shards_and_variants_of_a_set_are_read_as_one(tmp_path: Path) -> None:
    network, folder = t5(), place(tmp_path, "text_encoder_2")
    weights = {name: each.bfloat16() for name, each in without_alias(network).items()}
    shards = {
        "model.bf16-00001-of-00002.safetensors": list(weights)[:5],
        "model.bf16-00002-of-00002.safetensors": list(weights)[5:],
    }
    for shard, held in shards.items():
        save(folder / shard, {name: weights[name] for name in held})
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.bf16.json").write_text(json.dumps(index))

    assert_equal(read(tmp_path, "text_encoder_2", T5), {name: each.float() for name, each in weights.items()})
