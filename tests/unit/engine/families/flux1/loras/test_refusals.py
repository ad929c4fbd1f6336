"""A LoRA file is read whole, or refused by a name that stands in it, saying what it is instead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from safelight.engine.families.flux1.components import Components
from tests.full_width import GOOD, WIDTH, Shapes, full_width_components, kohya, ones, peft, read, refusal, zeros


@pytest.fixture(scope="module")
def components() -> Components:
    return full_width_components()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "film.safetensors"


LOST: dict[str, dict[str, tuple[int, ...]]] = {
    "kohya's T5": kohya("lora_te3_encoder_block_0_layer_0_SelfAttention_q", 4096, 4096),
    "OneTrainer's T5": kohya("lora_te2_encoder_block_0_layer_0_SelfAttention_q", 4096, 4096),
    "OneTrainer's T5 by dots": kohya("t5.encoder.block.0.layer.0.SelfAttention.q", 4096, 4096),
    "ComfyUI's T5": kohya("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.k", 4096, 4096),
    "diffusers' T5": peft("text_encoder_2.encoder.block.0.layer.0.SelfAttention.q", 4096, 4096),
    "positions": kohya("text_encoders.clip_l.transformer.text_model.embeddings.position_embedding", 768, 77),
    "positions, whole": {"text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.diff": (77, 768)},
    "projection": kohya("lora_te1_text_projection", 768, 768),
    "projection by dots": kohya("clip_l.text_projection", 768, 768),
    "norms": {"diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale.diff": (128,)},
    "biases": {"diffusion_model.double_blocks.0.img_attn.proj.diff_b": (WIDTH,)},
    "embedding": {"bundle_emb.film.clip_l": (4, 768)},
    "embedding, kohya's": {"bundle_emb.film.string_to_param.*": (4, 768)},
    "embedding alone": {"emb_params": (4, 768)},
    "guidance": kohya("lora_unet_guidance_in_in_layer", 256, WIDTH),
    "another block": kohya("lora_unet_double_blocks_18_img_attn_proj"),
    "another network": peft("unet.proj_out"),
    "another naming": peft("model.layers.0.img_attn.proj"),
    "another part": {f"{GOOD}.lora_down.0.weight": (2, WIDTH)},
    "a stranger": {"temperature": (3,)},
}
"""Tensors that reach no layer of FLUX.1-schnell."""


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize(
    "beside", [kohya(GOOD), peft("transformer.proj_out", WIDTH, 64), {}], ids=["kohya", "peft", "none"]
)
def test_a_tensor_that_reaches_no_layer_refuses_the_file_by_its_name(
    file: Path, components: Components, kind: str, beside: Shapes
) -> None:
    message = refusal(file, components, ones(LOST[kind]) | ones(beside))

    assert next(iter(LOST[kind])) in message
    assert ("T5 weights" in message) == ("T5" in kind)


@pytest.mark.parametrize("kind", LOST)
def test_a_tensor_that_reaches_no_layer_and_is_all_zeros_is_no_loss(
    file: Path, components: Components, kind: str
) -> None:
    lora = read(file, components, zeros(LOST[kind]) | ones(kohya(GOOD)))

    assert list(lora.transformer) == ["transformer_blocks.0.attn.to_out.0"]


@pytest.mark.parametrize("zero", ["lora_up", "lora_down"])
def test_factors_that_make_nothing_are_no_loss(file: Path, components: Components, zero: str) -> None:
    """Who adapts every layer of CLIP writes its projection, which FLUX.1 never uses, as it began: one is zeros."""
    lost = ones(LOST["projection"])

    lora = read(
        file, components, lost | {name: each * 0 for name, each in lost.items() if zero in name} | ones(kohya(GOOD))
    )

    assert list(lora.transformer) == ["transformer_blocks.0.attn.to_out.0"]


@pytest.mark.parametrize("kind", ["kohya's T5", "biases", "a stranger"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_one_number_that_is_no_zero_is_a_loss(
    file: Path, components: Components, kind: str, value: float, dtype: torch.dtype
) -> None:
    tensors = {name: each.to(dtype) for name, each in zeros(LOST[kind]).items()}
    for each in tensors.values():
        if each.ndim:
            each.view(-1)[-1] = value

    assert next(iter(LOST[kind])) in refusal(file, components, tensors | ones(kohya(GOOD)))


SDXL = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"
MODELS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "FLUX.2 of diffusers": (
        "FLUX.2",
        peft("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 6144, 55296),
    ),
    "FLUX.2, out": ("FLUX.2", peft("transformer.single_transformer_blocks.0.attn.to_out", 4096, WIDTH)),
    "FLUX.2 of BFL": ("FLUX.2", peft("diffusion_model.single_stream_modulation.lin", 6144, 18432)),
    "FLUX.2 dev by width": ("FLUX.2 [dev]", peft("diffusion_model.double_blocks.0.img_attn.qkv", 6144, 18432)),
    "FLUX.2 klein 9B by width": (
        "FLUX.2 [klein] 9B",
        peft("diffusion_model.double_blocks.0.img_attn.qkv", 4096, 12288),
    ),
    "FLUX.2 klein 4B by gates": ("FLUX.2", peft("diffusion_model.double_blocks.0.img_mlp.0", WIDTH, 18432)),
    "FLUX.2 klein 4B, single": ("FLUX.2", kohya("lora_unet_single_blocks_0_linear1", WIDTH, 27648)),
    "FLUX.2 by its text": ("FLUX.2 [dev]", peft("transformer.context_embedder", 15360, 6144)),
    "SDXL of kohya": (
        "Stable Diffusion XL",
        kohya(SDXL, 2048, 640) | kohya("lora_te2_text_model_encoder_layers_0_mlp_fc1"),
    ),
    "SDXL of diffusers": (
        "Stable Diffusion XL",
        peft("unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k", 2048, 640),
    ),
    "SD 1.5 of kohya": (
        "Stable Diffusion 1",
        kohya("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 768, 640)
        | kohya("lora_te_text_model_encoder_layers_0_mlp_fc1", 768, WIDTH),
    ),
    "SD 1.5 of diffusers": (
        "Stable Diffusion 1",
        peft("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 1280, 1280),
    ),
    "SD3 of kohya": ("Stable Diffusion 3", kohya("lora_unet_joint_blocks_0_context_block_attn_qkv", 1536, 4608)),
    "SD3 of diffusers": ("Stable Diffusion 3", peft("transformer.transformer_blocks.0.attn.to_q", 1536, 1536)),
    "SD3 of diffusers, all 24 blocks": (
        "Stable Diffusion 3 (Medium)",
        peft("transformer.transformer_blocks.0.attn.to_q", 1536, 1536)
        | peft("transformer.transformer_blocks.23.attn.to_q", 1536, 1536),
    ),
    "SD3.5 Medium of diffusers, with its second attention": (
        "Stable Diffusion 3 (Medium)",
        peft("transformer.transformer_blocks.0.attn.to_q", 1536, 1536)
        | peft("transformer.transformer_blocks.0.attn2.to_q", 1536, 1536),
    ),
    "SD3.5 Large of OneTrainer, all 38 blocks": (
        "Stable Diffusion 3.5 (Large)",
        kohya("lora_transformer_transformer_blocks_0_attn_to_q", 2432, 2432)
        | kohya("lora_transformer_transformer_blocks_37_attn_to_q", 2432, 2432),
    ),
    "SD3.5": ("Stable Diffusion 3.5", peft("transformer.transformer_blocks.0.attn.add_k_proj", 2432, 2432)),
    "Qwen-Image": ("Qwen-Image", peft("transformer.transformer_blocks.0.img_mlp.net.0.proj", WIDTH, 12288)),
    "Qwen-Image of musubi": ("Qwen-Image", kohya("lora_unet_transformer_blocks_0_txt_mod_1", WIDTH, 18432)),
    "Qwen-Image, attention only": (
        "Qwen-Image",
        peft("transformer.transformer_blocks.0.attn.to_q") | peft("transformer.transformer_blocks.59.attn.to_q"),
    ),
    "Fill": ("FLUX.1 Fill", peft("transformer.x_embedder", 384)),
    "Fill of kohya": ("FLUX.1 Fill", kohya("lora_unet_img_in", 384)),
    "Control of diffusers": ("control picture", peft("transformer.x_embedder", 128)),
    "Control of BFL": (
        "control picture",
        peft("double_blocks.0.img_attn.proj") | {"double_blocks.0.img_attn.norm.query_norm.scale": (128,)},
    ),
    "Control of diffusers' training": (
        "control picture",
        peft("transformer.proj_out", WIDTH, 64) | {"transformer.transformer_blocks.0.attn.norm_q.weight": (128,)},
    ),
    "HunyuanVideo": ("HunyuanVideo", kohya("lora_unet_double_blocks_0_img_mlp_fc1", WIDTH, 12288)),
    "Wan": ("Wan", peft("diffusion_model.blocks.0.self_attn.q", 5120, 5120)),
    "Z-Image": ("Z-Image", peft("diffusion_model.layers.0.attention.to_q", 3840, 3840)),
    "Chroma": ("Chroma", peft("diffusion_model.distilled_guidance_layer.in_proj", 64, 5120)),
}
"""Name -> what is said, and keys as the model's files have them."""


@pytest.mark.parametrize("model", MODELS)
def test_a_lora_for_another_model_is_refused_by_that_models_name(
    file: Path, components: Components, model: str
) -> None:
    told, shapes = MODELS[model]

    message = refusal(file, components, ones(shapes))

    assert f"is a LoRA for {told}" in message or told in message.partition(", not for this model")[0]
    assert any(key.partition(".lora_")[0] in message for key in shapes)


@pytest.mark.parametrize(
    ("field", "told", "model"),
    [
        ("modelspec.architecture", "Flux.2-dev/lora", "FLUX.2"),
        ("ss_base_model_version", "flux2_klein_4b", "FLUX.2"),
    ],
)
def test_a_lora_that_fits_but_says_it_is_for_flux_2_is_refused(
    file: Path, components: Components, field: str, told: str, model: str
) -> None:
    message = refusal(
        file, components, ones(peft("diffusion_model.double_blocks.0.img_attn.qkv", WIDTH, 9216)), **{field: told}
    )

    assert f"is a LoRA for {model}" in message
    assert told.lower() in message


@pytest.mark.parametrize("told", ["flux-1-dev/lora", "flux-1-schnell/lora", "flux1", "Flux", "sdxl_base_v1-0"])
def test_what_a_file_that_fits_says_of_flux_1_or_wrongly_does_not_matter(
    file: Path, components: Components, told: str
) -> None:
    assert read(file, components, ones(kohya(GOOD)), ss_base_model_version=told).transformer


def test_what_fits_in_no_way_is_explained_by_what_the_file_says(file: Path, components: Components) -> None:
    message = refusal(file, components, ones(kohya("lora_unet_x")), **{"modelspec.architecture": "hunyuan-video/lora"})

    assert "is a LoRA for HunyuanVideo" in message


METHODS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "DoRA of kohya": ("a DoRA", kohya(GOOD) | {f"{GOOD}.dora_scale": (WIDTH, 1)}),
    "DoRA of PEFT": (
        "a DoRA",
        peft("transformer.proj_out", WIDTH, 64) | {"transformer.proj_out.lora_magnitude_vector": (64,)},
    ),
    "LoKr": ("LoKr", {f"{GOOD}.lokr_w1": (8, 8), f"{GOOD}.lokr_w2": (384, 384), f"{GOOD}.alpha": ()}),
    "LoKr, factored": ("LoKr", {"lycoris_proj_out.lokr_w1_a": (8, 2), "lycoris_proj_out.lokr_w1_b": (2, 8)}),
    "LoHa": ("LoHa", {f"{GOOD}.hada_w1_a": (WIDTH, 2), f"{GOOD}.hada_w1_b": (2, WIDTH), f"{GOOD}.alpha": ()}),
    "OFT of kohya": ("an OFT", {"oft_unet_single_blocks_0_linear1.oft_blocks": (4, 8, 8)}),
    "OFT of LyCORIS": ("an OFT", {f"{GOOD}.oft_blocks": (4, 8, 8), f"{GOOD}.alpha": ()}),
    "OFT of PEFT": ("an OFT", {"base_model.model.proj_out.oft_R.weight": (4, 28)}),
    "BOFT": ("a BOFT", {"base_model.model.proj_out.boft_R": (1, 4, 8, 8)}),
    "IA3 of PEFT": ("an IA3", {"base_model.model.proj_out.ia3_l": (64, 1)}),
    "IA3 of LyCORIS": ("an IA3", {f"{GOOD}.weight": (WIDTH, 1), f"{GOOD}.on_input": ()}),
    "GLoRA": ("GLoRA", {f"{GOOD}.a1.weight": (2, WIDTH), f"{GOOD}.a2.weight": (WIDTH, 2)}),
    "convolution": ("a convolution", kohya(GOOD) | {f"{GOOD}.lora_mid.weight": (2, 2, 3, 3)}),
    "whole differences": ("whole differences", {"diffusion_model.double_blocks.0.img_attn.proj.diff": (WIDTH, WIDTH)}),
    "replaced": ("whole weights", kohya(GOOD) | {f"{GOOD}.set_weight": (WIDTH,)}),
    "Nunchaku": (
        "Nunchaku",
        {
            "transformer_blocks.0.mlp_context_fc1.lora_down": (WIDTH, 2),
            "transformer_blocks.0.mlp_context_fc1.lora_up": (12288, 2),
        },
    ),
    "scaled fp8": ("scaled fp8", kohya(GOOD) | {f"{GOOD}.scale_weight": ()}),
    "IP-Adapter": (
        "an IP-Adapter",
        {"double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (WIDTH, 4096)},
    ),
    "ControlNet": ("a ControlNet", {"controlnet_blocks.0.weight": (WIDTH, WIDTH)}),
    "embedding": ("an embedding", {"clip_l": (4, 768), "t5xxl": (4, 4096)}),
    "whole model": ("whole weights", {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (9216, WIDTH)}),
    "whole model of diffusers": ("whole weights", {"transformer_blocks.0.attn.norm_q.weight": (128,)}),
}


@pytest.mark.parametrize("method", METHODS)
def test_another_method_is_refused_by_its_name(file: Path, components: Components, method: str) -> None:
    told, shapes = METHODS[method]

    message = refusal(file, components, ones(shapes))

    assert told in message
    assert any(key in message for key in shapes)


@pytest.mark.parametrize("kind", ["DoRA of kohya", "DoRA of PEFT", "IA3 of PEFT", "replaced"])
def test_zeros_that_are_not_added_but_multiplied_or_put_in_place_are_a_loss(
    file: Path, components: Components, kind: str
) -> None:
    told, shapes = METHODS[kind]

    assert told in refusal(file, components, zeros(shapes))
