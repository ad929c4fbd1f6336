"""A folder is served for what its configs say, or refused by name before anything is loaded."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from safelight.errors import ConfigurationError, ModelLoadError, UnsupportedModel
from safelight.model.checkpoint import check_checkpoint, read_model_spec
from safelight.model.families.flux1 import PIPELINES
from safelight.model.memory.plan import DeviceFacts, choose_plan, describe_plan
from safelight.model.memory.stored_parts import describe_parts
from safelight.model.spec import ModelSpec
from safelight.model.weight_files import list_shards
from safelight.settings import EngineOptions
from tests.checkpoint_files import CONFIGS, WEIGHTS, write_checkpoint

REFUSED_PIPELINES = (
    "FluxFillPipeline",
    "FluxKontextPipeline",
    "FluxKontextInpaintPipeline",
    "FluxControlPipeline",
    "FluxControlImg2ImgPipeline",
    "FluxControlInpaintPipeline",
    "FluxControlNetPipeline",
    "FluxControlNetImg2ImgPipeline",
    "FluxControlNetInpaintPipeline",
    "FluxPriorReduxPipeline",
    "Flux2Pipeline",
    "Flux2KleinPipeline",
    "Flux2KleinInpaintPipeline",
    "StableDiffusionPipeline",
    "StableDiffusion3Pipeline",
    "ChromaPipeline",
    "FluxPipelineOfMyOwn",
    "fluxpipeline",
)


def refusal(folder: Path) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        check_checkpoint(folder)
    return caught.value.message


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_pipelines_of_the_same_networks_are_served(tmp_path: Path, pipeline: str) -> None:
    check_checkpoint(write_checkpoint(tmp_path, {"model_index.json": {"_class_name": pipeline}}))


@pytest.mark.parametrize("pipeline", [*REFUSED_PIPELINES, None, 5, ["FluxPipeline"]])
def test_every_other_pipeline_is_refused_by_its_name_first_and_says_which_are_served(
    tmp_path: Path, pipeline: object
) -> None:
    write_checkpoint(tmp_path, {"model_index.json": {"_class_name": pipeline}})
    shutil.rmtree(tmp_path / "text_encoder_2")

    said = refusal(tmp_path)

    assert str(pipeline or "without a name") in said
    assert "FluxPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline" in said


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ({"in_channels": 384, "out_channels": 64}, "takes 384 channels and makes 64: a model such as FLUX.1 Fill"),
        ({"in_channels": 128, "out_channels": 64}, "takes 128 channels and makes 64: a model such as FLUX.1 Fill"),
        ({"patch_size": 2}, "takes 64 channels and makes 256"),
    ],
)
def test_a_transformer_that_does_not_make_what_it_takes_is_refused(
    tmp_path: Path, channels: dict[str, int], expected: str
) -> None:
    assert expected in refusal(write_checkpoint(tmp_path, {"transformer/config.json": channels}))


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("vae/config.json", {"latent_channels": 32}, "in_channels 64, but latent_channels of the vae makes 128"),
        ("text_encoder/config.json", {"hidden_size": 1280}, "pooled_projection_dim 768, but hidden_size"),
        ("text_encoder_2/config.json", {"d_model": 2048}, "joint_attention_dim 4096, but d_model"),
    ],
)
def test_components_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, file: str, change: dict[str, int], expected: str
) -> None:
    assert expected in refusal(write_checkpoint(tmp_path, {file: change}))


@pytest.mark.parametrize("axes", [5, "16", [16, 56], [16, 56, "56"], [16, 56, 60]])
def test_positions_that_fit_no_attention_head_are_refused(tmp_path: Path, axes: object) -> None:
    write_checkpoint(tmp_path, {"transformer/config.json": {"axes_dims_rope": axes}})

    with pytest.raises(ModelLoadError, match=r"transformer/config\.json has axes_dims_rope"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("scaling_factor", value) for value in (None, 0, -1, "1", {}, float("nan"), float("inf"))),
        ("shift_factor", [1]),
    ],
)
def test_an_autoencoder_whose_scale_makes_no_picture_is_refused(tmp_path: Path, key: str, value: object) -> None:
    """Loaded, it would fail with torch's own words, or make every request a 500."""
    write_checkpoint(tmp_path, {"vae/config.json": {key: value}})

    with pytest.raises(ModelLoadError, match=rf"vae/config\.json has {key}"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize("value", ["64", 0, -64, 6.4, [64]])
def test_a_size_that_is_none_is_named(tmp_path: Path, value: object) -> None:
    write_checkpoint(tmp_path, {"transformer/config.json": {"in_channels": value}})

    with pytest.raises(ModelLoadError, match=r"transformer/config\.json has in_channels"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("component", "class_name"),
    [
        ("controlnet", "FluxControlNetModel"),
        ("image_encoder", "CLIPVisionModelWithProjection"),
        ("image_embedder", "ReduxImageEncoder"),
        ("transformer_2", "FluxTransformer2DModel"),
    ],
)
def test_a_component_that_would_be_left_out_is_refused_by_name(tmp_path: Path, component: str, class_name: str) -> None:
    said = refusal(write_checkpoint(tmp_path, {"model_index.json": {component: ["diffusers", class_name]}}))

    assert f"would leave it out: {component} ({class_name})" in said


def test_a_component_of_another_class_than_the_index_says_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"transformer/config.json": {"_class_name": "Flux2Transformer2DModel"}})

    assert "is of a Flux2Transformer2DModel, but model_index.json says FluxTransformer2DModel" in refusal(tmp_path)


@pytest.mark.parametrize("component", ["transformer", "text_encoder_2"])
@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes in fp4"),
        ({"load_in_4bit": True}, "bitsandbytes in fp4"),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes"),
        ({"quant_method": "quanto", "weights_dtype": "int8"}, "quanto"),
        ({"quant_method": "sdnq", "weights_dtype": "uint4"}, "sdnq"),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
            "torchao as Int4WeightOnlyConfig",
        ),
        ({"quant_method": "torchao", "quant_type": "int8wo"}, "torchao as int8wo"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "gguf", "compute_dtype": "bfloat16"}, "gguf"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"bits": 4}, "a method that its config.json does not name"),
        ("int8", "a method that its config.json does not name"),
    ],
)
def test_a_quantized_component_is_refused_with_its_method(
    tmp_path: Path, component: str, settings: object, method: str
) -> None:
    said = refusal(write_checkpoint(tmp_path, {f"{component}/config.json": {"quantization_config": settings}}))

    assert f"/{component} is quantized with {method}, which is not read; use the weights that it was made from" in said


@pytest.mark.parametrize(
    ("file", "method"),
    [("quanto_qmap.json", "quanto"), ("quantization_config.json", "SDNQ"), ("hf_quant_config.json", "ModelOpt")],
)
def test_what_a_quantizer_leaves_beside_the_weights_tells_of_it(tmp_path: Path, file: str, method: str) -> None:
    write_checkpoint(tmp_path, {f"transformer/{file}": {"a layer": {"weights": "qint8"}}})

    assert f"is quantized with {method}, which is not read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"modular_model_index.json": {}}, "is a modular pipeline"),
        ({"config.json": {}, "diffusion_pytorch_model.safetensors": None}, "is one component, not a checkpoint"),
        ({"flux1-schnell-Q4_K_S.gguf": None}, "holds GGUF files without the rest of a checkpoint"),
        ({"pytorch_lora_weights.safetensors": None}, "is a LoRA: serve the model that it changes"),
        ({"flux1-schnell.safetensors": None}, "holds no model_index.json, only flux1-schnell.safetensors"),
    ],
)
def test_a_folder_of_another_layout_is_refused_for_what_it_is(
    tmp_path: Path, files: dict[str, Any], expected: str
) -> None:
    for name, content in files.items():
        if content is None:
            save_file({"weight": np.zeros(2, np.float32)}, tmp_path / name)
        else:
            (tmp_path / name).write_text(json.dumps(content))

    assert expected in refusal(tmp_path)


JUNK = (None, True, -1, 0, 10**400, 1e308, float("inf"), "x", [], [[]], {}, {"a": {}}, 2**63, [None] * 100, "\ud800")


@pytest.mark.parametrize("file", [*(name for name in CONFIGS if "tokenizer" not in name), "safelight.json"])
def test_whatever_a_config_says_is_served_or_refused_in_a_sentence(tmp_path: Path, file: str) -> None:
    write_checkpoint(tmp_path)
    whole = CONFIGS.get(file, {})
    keys = {*whole, *MORE_KEYS.get(file, ())}

    for key in keys:
        for value in JUNK:
            (tmp_path / file).write_text(json.dumps({**whole, key: value}))
            said = plan_or_refusal(tmp_path)
            assert len(said) < 1000, (key, value)
            assert "\n" not in said, (key, value)


MORE_KEYS = {
    "transformer/config.json": ("num_attention_heads", "attention_head_dim", "out_channels", "quantization_config"),
    "vae/config.json": ("scaling_factor", "shift_factor"),
    "text_encoder/config.json": ("text_config",),
    "text_encoder_2/config.json": ("d_ff", "text_config"),
    "safelight.json": tuple(field.name for field in fields(ModelSpec)),
}


def plan_or_refusal(folder: Path) -> str:
    device = DeviceFacts(type="cuda", free_bytes=48 * 10**9, number_bytes=2)
    try:
        spec = read_model_spec(folder)
        plan = choose_plan(describe_parts(folder), check_checkpoint(folder).work(folder, spec), device, EngineOptions())
    except (ModelLoadError, ConfigurationError) as error:
        return error.message
    return describe_plan(plan)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("transformer/config.json", "num_layers"),
        ("transformer/config.json", "num_single_layers"),
        ("text_encoder/config.json", "num_hidden_layers"),
        ("text_encoder/config.json", "max_position_embeddings"),
        ("text_encoder_2/config.json", "num_layers"),
        ("vae/config.json", "layers_per_block"),
        ("scheduler/scheduler_config.json", "num_train_timesteps"),
    ],
)
def test_what_would_be_made_without_end_is_refused_by_its_config(tmp_path: Path, file: str, key: str) -> None:
    write_checkpoint(tmp_path, {file: {key: 10**9}})

    with pytest.raises(ModelLoadError, match=rf"{file} has {key} 1000000000, not a number from 1 to 10*; download"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("component", "names", "said"),
    [
        ("transformer", ["decoder.mid_block.resnets.0.conv1.weight"], "holds FLUX.1's autoencoder (VAE), not its"),
        ("vae", ["transformer_blocks.0.attn.add_q_proj.weight"], "holds FLUX.1's transformer, not its autoencoder"),
        ("text_encoder", ["encoder.block.0.layer.0.SelfAttention.q.weight"], "holds FLUX.1's T5 encoder, not its CLIP"),
        ("text_encoder_2", ["text_model.encoder.layers.0.self_attn.q_proj.weight"], "holds FLUX.1's CLIP text encoder"),
        ("transformer", ["down_blocks.0.attentions.0.norm.weight", "add_embedding.linear_1.weight"], "Diffusion XL"),
        ("transformer", ["transformer_blocks.0.attn.to_q.lora_A.weight"], "is a LoRA"),
    ],
)
def test_the_files_of_another_part_or_model_are_called_what_they_are(
    tmp_path: Path, component: str, names: list[str], said: str
) -> None:
    write_checkpoint(tmp_path)
    path = next(tmp_path / name for name in WEIGHTS if name.startswith(f"{component}/"))
    save_file({name: np.zeros(2, np.float32) for name in names}, path)

    with pytest.raises(UnsupportedModel) as caught:
        describe_parts(tmp_path)

    assert caught.value.message.startswith(f"{path} ")
    assert said in caught.value.message


def test_a_weight_in_two_shards_is_refused_with_both(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    place = tmp_path / "transformer"
    for name in ("one", "two"):
        save_file({"x.weight": np.zeros(2, np.float32), name: np.zeros(1, np.float32)}, place / f"{name}.safetensors")
    index = {"weight_map": {"x.weight": "one.safetensors", "one": "one.safetensors", "two": "two.safetensors"}}
    (place / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelLoadError, match=r"two\.safetensors has x\.weight, and so has .*one\.safetensors;"):
        describe_parts(tmp_path)


@pytest.mark.parametrize("file", ["model_index.json", "vae/config.json", "safelight.json"])
def test_json_that_is_too_large_for_any_is_not_read(tmp_path: Path, file: str) -> None:
    write_checkpoint(tmp_path)
    with (tmp_path / file).open("wb") as content:
        content.truncate(200_000_000)

    with pytest.raises(ModelLoadError, match=rf"{file} cannot be read: it is too large for JSON"):
        read_model_spec(tmp_path)


def test_json_is_not_waited_for_and_says_where_it_may_not_be_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "vae" / "config.json").unlink()
    os.mkfifo(tmp_path / "vae" / "config.json")

    with pytest.raises(ModelLoadError, match=r"vae/config\.json cannot be read: it is no file; download it again"):
        check_checkpoint(tmp_path)


@pytest.mark.parametrize("shards", [{"a": ["x"]}, {"a": {}}, {"a": None}, {"a": "../x"}, {"a": 5}, [], {}, "x"])
def test_an_index_that_lists_no_files_is_refused_by_its_name(tmp_path: Path, shards: object) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))

    with pytest.raises(ModelLoadError, match=r"index\.json (has no weight_map|lists what is no file beside it);"):
        list_shards(index)


def test_a_folder_that_is_not_complete_may_be_so_another_time(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model_index\.json is missing") as caught:
        check_checkpoint(tmp_path)

    assert not isinstance(caught.value, UnsupportedModel)


def test_a_model_of_the_hub_is_refused_by_its_hub_id(tmp_path: Path) -> None:
    folder = tmp_path / "models--acme--Fill" / "snapshots" / "0123"

    assert refusal(write_checkpoint(folder, {"model_index.json": {"_class_name": "FluxFillPipeline"}})).startswith(
        "acme/Fill holds a FluxFillPipeline"
    )
