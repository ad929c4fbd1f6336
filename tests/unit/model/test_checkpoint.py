"""A folder is served for what its configs say, or refused by name before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.checkpoint import check_checkpoint
from safelight.model.families.flux1 import PIPELINES
from tests.checkpoint_files import write_checkpoint

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


def test_a_folder_that_is_not_complete_may_be_so_another_time(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model_index\.json is missing") as caught:
        check_checkpoint(tmp_path)

    assert not isinstance(caught.value, UnsupportedModel)


def test_a_model_of_the_hub_is_refused_by_its_hub_id(tmp_path: Path) -> None:
    folder = tmp_path / "models--acme--Fill" / "snapshots" / "0123"

    assert refusal(write_checkpoint(folder, {"model_index.json": {"_class_name": "FluxFillPipeline"}})).startswith(
        "acme/Fill holds a FluxFillPipeline"
    )
