"""A LoRA file is read whole, or refused by a name that stands in it, saying what it is instead."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from safelight.engine.components import Components
from safelight.engine.lora_files import Lora, read_lora
from safelight.errors import ModelLoadError
from safelight.model_spec import LoraFile

WIDTH = 3072
GOOD = "lora_unet_double_blocks_0_img_attn_proj"
Shapes = Mapping[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def components() -> Components:
    """FLUX.1-schnell with one block of each kind and no weights."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
        clip = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=12)
        )
    unused: dict[str, Any] = dict.fromkeys(
        ("autoencoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler_config")
    )
    return Components(
        transformer=transformer, text_encoder=clip, device=torch.device("cpu"), dtype=torch.float32, **unused
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "film.safetensors"


def kohya(name: str, inputs: int = WIDTH, outputs: int = WIDTH) -> dict[str, tuple[int, ...]]:
    return {f"{name}.lora_down.weight": (2, inputs), f"{name}.lora_up.weight": (outputs, 2), f"{name}.alpha": ()}


def peft(name: str, inputs: int = WIDTH, outputs: int = WIDTH) -> dict[str, tuple[int, ...]]:
    return {f"{name}.lora_A.weight": (2, inputs), f"{name}.lora_B.weight": (outputs, 2)}


def ones(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.ones(shape) for name, shape in shapes.items()}


def zeros(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.full(shape, float(name.endswith(".alpha"))) for name, shape in shapes.items()}


def read(file: Path, components: Components, tensors: Mapping[str, Tensor], **metadata: str) -> Lora:
    save_file(dict(tensors), file, metadata=metadata or None)
    return read_lora(LoraFile(name="film", file=str(file)), components)


def refusal(file: Path, components: Components, tensors: Mapping[str, Tensor], **metadata: str) -> str:
    """What is said of a file, which begins with its path and is one line."""
    with pytest.raises(ModelLoadError) as caught:
        read(file, components, tensors, **metadata)
    message = caught.value.message
    assert message.startswith(f"{file} ")
    assert message.isprintable()
    assert len(message) < 1500 + len(str(file))
    return message


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


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"use_dora": True}, "is a DoRA"),
        ({"peft_type": "LOHA"}, "is a LOHA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
        ({"init_lora_weights": "olora"}, "convert it to a plain LoRA"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern '('"),
        ({"alpha_pattern": {"(.*)" * 12 + r"\3\d$": 1}}, "takes too long"),
        ({"alpha_pattern": {"a" * 5000 + "(": 1}}, "makes no sense"),
        ({"alpha_pattern": [1]}, "is no LoRA that can be read"),
        ({"lora_alpha": [1]}, "is no LoRA that can be read"),
        ({"lora_alpha": "much"}, "is no LoRA that can be read"),
        ({"lora_alpha": float("inf")}, "is NaN or infinite"),
    ],
)
@pytest.mark.parametrize("place", ["inside", "beside"])
def test_settings_that_are_not_a_plain_loras_or_make_no_sense_are_refused(
    file: Path, components: Components, config: dict[str, Any], told: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safelight.engine.lora_settings.MATCHING_S", 0.2)
    metadata = {}
    if place == "beside":
        (file.parent / "adapter_config.json").write_text(json.dumps(config))
    else:
        own = {f"transformer.{name}": value for name, value in config.items()}
        metadata["lora_adapter_metadata"] = json.dumps(own)

    assert told in refusal(file, components, ones(peft("base_model.model.transformer_blocks.0.attn.to_q")), **metadata)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{", "[" * 100_000, "\ud800".encode("utf-8", "surrogatepass"), "1" * 5000]
)
def test_settings_that_are_no_json_object_are_refused(file: Path, components: Components, text: str | bytes) -> None:
    (file.parent / "adapter_config.json").write_bytes(text.encode() if isinstance(text, str) else text)

    assert "is no LoRA that can be read" in refusal(
        file, components, ones(peft("base_model.model.proj_out", WIDTH, 64))
    )


def test_settings_that_are_very_large_are_refused(file: Path, components: Components) -> None:
    (file.parent / "adapter_config.json").write_text(json.dumps({"x": "x" * 2_000_000}))

    assert "is too large" in refusal(file, components, ones(peft("base_model.model.proj_out", WIDTH, 64)))


def test_two_alphas_of_one_layer_are_refused(file: Path, components: Components) -> None:
    name = "transformer.transformer_blocks.0.attn.to_q"
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8})}
    tensors = ones(peft(name)) | {f"{name}.alpha": torch.tensor(4.0)}

    assert f"says alpha 8 of {name} in its settings, and 4 beside it" in refusal(file, components, tensors, **metadata)


@pytest.mark.parametrize(
    "others",
    [
        peft("diffusion_model.double_blocks.0.img_attn.proj"),
        peft("transformer.transformer_blocks.0.attn.to_out.0"),
        {f"{GOOD}.lora_A.weight": (2, WIDTH)},
        {f"{GOOD}.lora_down.default.weight": (2, WIDTH)},
        {"double_blocks.0.img_attn.proj.alpha": ()},
        kohya("lora_transformer_transformer_blocks_0_attn_to_out_0"),
    ],
)
def test_two_namings_of_one_layer_are_refused_by_both(file: Path, components: Components, others: Shapes) -> None:
    message = refusal(file, components, ones(kohya(GOOD)) | ones(others))

    assert "for the same layer" in message
    assert GOOD in message
    assert any(key in message for key in others)


def test_a_fused_layer_beside_one_of_its_parts_is_refused_by_both_names(file: Path, components: Components) -> None:
    fused, part = "lora_unet_double_blocks_0_img_attn_qkv", "transformer.transformer_blocks.0.attn.to_k"

    message = refusal(file, components, ones(kohya(fused, WIDTH, 9216)) | ones(peft(part)))

    assert f"{fused} and {part} are both for transformer_blocks.0.attn.to_k" in message


def test_two_namings_of_different_layers_are_both_read(file: Path, components: Components) -> None:
    lora = read(file, components, ones(kohya(GOOD)) | ones(peft("transformer.proj_out", WIDTH, 64)))

    assert set(lora.transformer) == {"transformer_blocks.0.attn.to_out.0", "proj_out"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({f"{GOOD}.lora_down.weight": torch.ones(3, WIDTH)}, f"{GOOD}.lora_up.weight is {WIDTH}x2, not {WIDTH}x3"),
        ({f"{GOOD}.lora_up.weight": torch.ones(WIDTH, 3)}, f"{GOOD}.lora_up.weight is {WIDTH}x3, not {WIDTH}x2"),
        ({f"{GOOD}.lora_down.weight": torch.ones(2, 99)}, f"{GOOD}.lora_down.weight is 2x99, not 2x{WIDTH}"),
        ({f"{GOOD}.lora_down.weight": torch.ones(0, WIDTH)}, f"{GOOD}.lora_down.weight is 0x{WIDTH}, of rank 0"),
        ({f"{GOOD}.lora_down.weight": torch.ones(())}, f"{GOOD}.lora_down.weight is one number, of rank 0"),
        ({f"{GOOD}.lora_down.weight": torch.ones(2)}, f"{GOOD}.lora_down.weight is 2, not 2x{WIDTH}"),
        ({f"{GOOD}.lora_down.weight": torch.ones(2, WIDTH, 1, 1)}, f"2x{WIDTH}x1x1, not 2x{WIDTH}"),
        ({f"{GOOD}.lora_up.bias": torch.ones(7)}, f"{GOOD}.lora_up.bias is 7, not {WIDTH}"),
        ({f"{GOOD}.alpha": torch.ones(2)}, f"{GOOD}.alpha is 2 of F32, not one number"),
        ({f"{GOOD}.alpha": torch.ones(1, dtype=torch.complex64)}, f"{GOOD}.alpha is 1 of C64, not one number"),
        ({f"{GOOD}.alpha": torch.tensor(float("nan"))}, f"{GOOD} is NaN or infinite in float32"),
        ({f"{GOOD}.lora_up.weight": torch.full((WIDTH, 2), float("inf"))}, f"{GOOD} is NaN or infinite in float32"),
        ({f"{GOOD}.lora_up.weight": torch.full((WIDTH, 2), 1e300, dtype=torch.float64)}, f"{GOOD} is NaN or infinite"),
        ({f"{GOOD}.lora_up.weight": torch.ones(WIDTH, 2).int()}, "is made of I32, not of floating-point numbers"),
        ({f"{GOOD}.lora_up.weight": torch.ones(WIDTH, 2).bool()}, "is made of BOOL, not of floating-point numbers"),
        ({f"{GOOD}.lora_up.weight": torch.ones(WIDTH, 2).to(torch.complex64)}, "is made of C64, not of"),
    ],
)
def test_factors_that_do_not_fit_are_refused_with_what_would(
    file: Path, components: Components, change: Mapping[str, Tensor], expected: str
) -> None:
    assert expected in refusal(file, components, ones(kohya(GOOD)) | change)


@pytest.mark.parametrize("part", ["lora_up.weight", "lora_down.weight"])
def test_half_of_a_layer_is_refused(file: Path, components: Components, part: str) -> None:
    tensors = ones(kohya(GOOD))
    del tensors[f"{GOOD}.{part}"]

    assert f"{GOOD} lacks" in refusal(file, components, tensors)


@pytest.mark.parametrize("name", [GOOD, "lora_te3_x"])
def test_an_alpha_alone_is_refused(file: Path, components: Components, name: str) -> None:
    tensors = ones(kohya("lora_unet_img_in", 64)) | {f"{name}.alpha": torch.tensor(1.0)}

    assert f"{name}.alpha" in refusal(file, components, tensors)


@pytest.mark.parametrize(
    "tensors", [{}, zeros(LOST["kohya's T5"]), zeros(LOST["biases"])], ids=["none", "T5", "biases"]
)
def test_a_file_with_nothing_in_it_is_refused(
    file: Path, components: Components, tensors: Mapping[str, Tensor]
) -> None:
    assert refusal(file, components, tensors) == f"{file} holds no LoRA"


def _head(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


ODD_TYPE = json.dumps({"x": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is no safetensors file"),
        (b"\x80\x02}q\x00.", "is no safetensors file: a pickle, which can run code"),
        (b"PK\x03\x04" + b"\0" * 100, "is no safetensors file: a zip archive, as PyTorch's pickles are"),
        (b"GGUF\x03\0\0\0" + b"\0" * 100, "is no safetensors file: a GGUF file"),
        (_head(b"{}", 2**40), "is no safetensors file"),
        (_head(b"{}", 90_000_000), "is no safetensors file"),
        (_head(b"[" * 10_000), "is no safetensors file"),
        (_head(b'{"x":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), "is no safetensors file"),
        (_head(b'{"x":{"dtype":"F32","shape":[99999999999,99999999999],"data_offsets":[0,4]}}') + b"\0" * 4, "is no"),
        (_head(ODD_TYPE) + b"\0" * 3, "holds no LoRA, but whole weights or something else (x)"),
    ],
)
def test_what_is_no_safetensors_file_or_an_odd_one_is_refused(
    file: Path, components: Components, content: bytes, expected: str
) -> None:
    file.write_bytes(content)

    with pytest.raises(ModelLoadError) as caught:
        read_lora(LoraFile(name="film", file=str(file)), components)

    assert expected in caught.value.message


@pytest.mark.parametrize(
    "name", ["up_blocks." * 20_000 + "lora_A.weight", "down." * 50_000 + "weight", "lora_A" * 50_000]
)
def test_names_of_any_length_are_looked_at_in_no_time(file: Path, components: Components, name: str) -> None:
    assert name[:100] in refusal(file, components, {name: torch.ones(2, 2)} | ones(kohya(GOOD)))


@pytest.mark.parametrize("suffix", [".SAFETENSORS", "", ".v1.2", ".txt"])
def test_a_file_is_read_whatever_its_ending(tmp_path: Path, components: Components, suffix: str) -> None:
    assert read(tmp_path / f"film{suffix}", components, ones(kohya(GOOD))).transformer
