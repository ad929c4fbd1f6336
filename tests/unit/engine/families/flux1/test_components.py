"""A checkpoint that cannot be loaded is refused with the file and the remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from safelight.engine.engine import load_engine
from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.checkpoint import read_model_spec
from safelight.model.spec import Guidance
from safelight.settings import EngineOptions
from tests.unit.engine.drive import paint


@pytest.fixture
def folder(tiny_flux_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_flux_folder, tmp_path / "checkpoint"))


def test_the_spec_is_read_off_the_checkpoint(tiny_flux_folder: Path, tiny_flux_dev_folder: Path) -> None:
    assert read_model_spec(tiny_flux_folder).guidance is Guidance.NONE
    assert read_model_spec(tiny_flux_folder).size_multiple == 16
    assert read_model_spec(tiny_flux_dev_folder).guidance is Guidance.EMBEDDED


def test_sharded_weights_are_loaded(folder: Path) -> None:
    expected = paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32")))
    _split_into_shards(folder / "transformer")

    engine = load_engine(folder, EngineOptions(device="cpu", dtype="float32"))

    assert (paint(engine) == expected).all()


def test_files_and_names_as_in_the_published_checkpoints_are_loaded(folder: Path) -> None:
    """FLUX.1-schnell was saved by older libraries: prefixed CLIP weights, vocab.json, both T5 embeddings."""
    expected = paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32")))
    clip, t5 = folder / "text_encoder" / "model.safetensors", folder / "text_encoder_2" / "model.safetensors"
    clip_weights = {f"text_model.{name}": weight for name, weight in load_file(clip).items()}
    inert = {"text_model.embeddings.position_ids": torch.arange(77)[None], "logit_scale": torch.tensor(4.6)}
    save_file(clip_weights | inert | {"text_projection.weight": torch.eye(32)}, clip)
    t5_weights = load_file(t5)
    save_file(t5_weights | {"encoder.embed_tokens.weight": t5_weights["shared.weight"].clone()}, t5)
    _save_tokenizer_as_vocabulary_and_merges(folder / "tokenizer")
    _edit(
        folder / "tokenizer_2" / "tokenizer_config.json", lambda config: config | {"tokenizer_class": "T5TokenizerFast"}
    )

    engine = load_engine(folder, EngineOptions(device="cpu", dtype="float32"))

    assert (paint(engine) == expected).all()


@pytest.mark.parametrize("name", ["transformer", "vae", "text_encoder", "text_encoder_2"])
def test_a_missing_component_is_named(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)

    with pytest.raises(ModelLoadError, match=rf"/{name}/.* is missing"):
        load_engine(folder)


@pytest.mark.parametrize("path", ["tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json"])
def test_a_missing_file_is_named(folder: Path, path: str) -> None:
    (folder / path).unlink()

    with pytest.raises(ModelLoadError, match=f"{path} is missing"):
        load_engine(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    _split_into_shards(folder / "transformer")
    (folder / "transformer" / "shard-2.safetensors").unlink()

    with pytest.raises(ModelLoadError, match=r"shard-2\.safetensors is missing.*download it again"):
        load_engine(folder)


def test_weights_that_can_run_code_are_refused(folder: Path) -> None:
    weights = folder / "text_encoder_2" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()

    with pytest.raises(ModelLoadError, match=r"pytorch_model\.bin, which can run code.*convert it"):
        load_engine(folder)


def test_another_class_than_flux_has_is_refused(folder: Path) -> None:
    _edit(folder / "model_index.json", lambda index: index | {"transformer": ["diffusers", "SD3Transformer2DModel"]})

    with pytest.raises(ModelLoadError, match=r"transformer is SD3Transformer2DModel.*has FluxTransformer2DModel"):
        load_engine(folder)


def test_a_scheduler_config_of_another_family_is_refused(folder: Path) -> None:
    _edit(folder / "scheduler" / "scheduler_config.json", lambda config: config | {"_class_name": "DDIMScheduler"})

    with pytest.raises(ModelLoadError, match=r"is for DDIMScheduler; FLUX\.1 needs a FlowMatchEulerDiscreteScheduler"):
        load_engine(folder)


@pytest.mark.parametrize("name", ["transformer", "text_encoder_2"])
def test_weights_that_are_not_complete_are_refused(folder: Path, name: str) -> None:
    path = next((folder / name).glob("*.safetensors"))
    weights = load_file(path)
    weights.pop(sorted(weights)[-1])
    save_file(weights, path, metadata={"format": "pt"})

    with pytest.raises(ModelLoadError, match=rf"{name} lacks \d of the weights"):
        load_engine(folder)


@pytest.mark.parametrize("name", ["transformer", "vae", "text_encoder"])
def test_a_truncated_weights_file_is_refused(folder: Path, name: str) -> None:
    path = next((folder / name).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ModelLoadError, match=rf"{name}/\w+\.safetensors cannot be read: its weights are not whole"):
        load_engine(folder)


@pytest.mark.parametrize(
    ("name", "sizes"), [("transformer", {"num_single_layers": 2}), ("text_encoder", {"intermediate_size": 64})]
)
def test_weights_of_another_shape_are_refused_with_an_example(folder: Path, name: str, sizes: dict[str, int]) -> None:
    _edit(folder / name / "config.json", lambda config: config | sizes)

    with pytest.raises(ModelLoadError, match=rf"/{name} .*.*download the checkpoint again") as caught:
        load_engine(folder)

    assert "ignore_mismatched_sizes" not in caught.value.message


def test_a_broken_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer_2" / "tokenizer.json").write_text("{")

    with pytest.raises(ModelLoadError, match="tokenizer_2 cannot be loaded"):
        load_engine(folder)


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_without_its_words_is_refused(folder: Path, name: str) -> None:
    (folder / name / "tokenizer.json").unlink()

    with pytest.raises(ModelLoadError, match=rf"{name} has no vocabulary \(tokenizer\.json, or"):
        load_engine(folder)


def test_an_index_entry_that_names_no_class_is_refused(folder: Path) -> None:
    _edit(folder / "model_index.json", lambda index: index | {"transformer": "FluxTransformer2DModel"})

    with pytest.raises(ModelLoadError, match="transformer is missing"):
        load_engine(folder)


def test_a_folder_of_another_pipeline_is_refused(folder: Path) -> None:
    _edit(folder / "model_index.json", lambda index: index | {"_class_name": "StableDiffusionPipeline"})

    with pytest.raises(ModelLoadError, match="holds a StableDiffusionPipeline, which Safelight does not serve"):
        load_engine(folder)


NETWORKS = ("transformer", "vae", "text_encoder", "text_encoder_2")


@pytest.mark.parametrize("variant", ["bf16", "fp16", "fp32"])
def test_a_folder_that_has_only_a_variant_is_loaded(folder: Path, variant: str) -> None:
    expected = paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32")))
    for name in NETWORKS:
        path = _weights_of(folder / name)
        path.rename(path.with_suffix(f".{variant}.safetensors"))
    _split_into_shards(folder / "transformer", variant=variant)
    _split_into_shards(folder / "text_encoder_2", variant=variant)

    engine = load_engine(folder, EngineOptions(device="cpu", dtype="float32"))

    assert (paint(engine) == expected).all()


def test_of_several_variants_the_one_without_a_name_is_read(folder: Path) -> None:
    expected = paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32")))
    for name in NETWORKS:
        path = _weights_of(folder / name)
        for variant in ("bf16", "fp16", "ema"):
            path.with_suffix(f".{variant}.safetensors").write_bytes(b"no weights")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text("{}")

    engine = load_engine(folder, EngineOptions(device="cpu", dtype="float32"))

    assert (paint(engine) == expected).all()


def test_the_only_file_of_a_component_is_read_whatever_its_name_says(folder: Path) -> None:
    expected = paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32")))
    vae, transformer = _weights_of(folder / "vae"), _weights_of(folder / "transformer")
    vae.rename(vae.with_suffix(".ema.safetensors"))
    transformer.rename(transformer.with_name("flux1-schnell-Q4_K_S.gguf"))

    assert (paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32"))) == expected).all()


def test_of_several_files_that_are_no_set_none_is_guessed(folder: Path) -> None:
    path = _weights_of(folder / "vae")
    for infix in ("ema", "tuned"):
        shutil.copy(path, path.with_suffix(f".{infix}.safetensors"))
    path.unlink()

    with pytest.raises(UnsupportedModel, match=r"vae has 2 files of weights that are no set .*ema\.safetensors"):
        load_engine(folder)


def test_scaled_fp8_is_refused_and_plain_fp8_is_read(folder: Path) -> None:
    """ComfyUI's scaled fp8: each layer divided by its scale; without the scale the picture is NaN or noise."""
    path = _weights_of(folder / "transformer")
    weights = load_file(path)
    plain = {name: weight.to(torch.float8_e4m3fn) for name, weight in weights.items()}
    save_file(plain, path, metadata={"format": "pt"})
    read = paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32")))
    upcast = {name: weight.float() for name, weight in plain.items()}
    save_file(upcast, path, metadata={"format": "pt"})
    expected = paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32")))

    assert (read == expected).all()

    scaled = dict(plain)
    for name, weight in weights.items():
        if name.endswith(".weight") and weight.ndim == 2:
            scale = weight.abs().max() / 448
            scaled[name] = (weight / scale).to(torch.float8_e4m3fn)
            scaled[f"{name.removesuffix('weight')}scale_weight"] = scale
    save_file(scaled | {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}, path, metadata={"format": "pt"})
    with pytest.raises(
        UnsupportedModel, match=rf"{path} is quantized with scaled fp8 \(.*scale_weight\), which is not"
    ):
        load_engine(folder, EngineOptions(device="cpu", dtype="float32"))


@pytest.mark.parametrize("component", NETWORKS)
@pytest.mark.parametrize(
    ("suffix", "method"),
    [
        ("scale_weight", "scaled fp8"),
        ("weight_scale", "scaled fp8"),
        ("comfy_quant", "scaled fp8"),
        ("weight.absmax", "bitsandbytes"),
        ("weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("SCB", "bitsandbytes"),
        ("weight._scale", "quanto"),
        ("_weight_qdata", "torchao"),
        ("zero_point", "SDNQ"),
        ("wscales", "Nunchaku"),
    ],
)
def test_what_a_quantizer_keeps_beside_its_weights_refuses_the_file(
    folder: Path, component: str, suffix: str, method: str
) -> None:
    path = _weights_of(folder / component)
    weights = load_file(path)
    layer = next(name for name in weights if name.endswith(".weight")).removesuffix("weight")
    save_file(weights | {f"{layer}{suffix}": torch.ones(4)}, path, metadata={"format": "pt"})

    with pytest.raises(UnsupportedModel) as caught:
        load_engine(folder)

    assert f"{path} is quantized with {method}" in caught.value.message
    assert f"({layer}{suffix})" in caught.value.message


@pytest.mark.parametrize("component", NETWORKS)
def test_weights_that_the_config_does_not_ask_for_refuse_the_file_by_name(folder: Path, component: str) -> None:
    path = _weights_of(folder / component)
    save_file(load_file(path) | {"adapter.0.weight": torch.ones(4, 4)}, path, metadata={"format": "pt"})

    with pytest.raises(UnsupportedModel, match=rf"{path} has 1 weights that .* does not ask for.*adapter\.0\.weight"):
        load_engine(folder)


def test_a_stranger_in_a_shard_is_refused_by_that_shards_name(folder: Path) -> None:
    _split_into_shards(folder / "transformer")
    shard = folder / "transformer" / "shard-2.safetensors"
    save_file(load_file(shard) | {"stranger": torch.ones(1)}, shard, metadata={"format": "pt"})

    with pytest.raises(UnsupportedModel, match=rf"{shard} has 1 weights .*such as stranger"):
        load_engine(folder)


@pytest.mark.parametrize("component", NETWORKS)
def test_weights_in_whole_numbers_are_refused(folder: Path, component: str) -> None:
    path = _weights_of(folder / component)
    weights = load_file(path)
    name = next(name for name, weight in weights.items() if weight.ndim == 2 or component == "vae")
    weights[name] = weights[name].to(torch.int8)
    save_file(weights, path, metadata={"format": "pt"})

    with pytest.raises(UnsupportedModel, match=rf"{path} has {name} as I8: it is quantized"):
        load_engine(folder)


def test_weights_that_read_guidance_where_the_config_has_none_are_refused(
    tiny_flux_dev_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_flux_dev_folder, tmp_path / "dev"))
    _edit(folder / "transformer" / "config.json", lambda config: config | {"guidance_embeds": False})

    with pytest.raises(
        UnsupportedModel, match=r"weights that read guidance \(.*guidance_embedder.*set guidance_embeds"
    ):
        load_engine(folder)


@pytest.mark.parametrize("method", ["bitsandbytes", "quanto", "sdnq", "torchao", "gguf", "modelopt", "of-tomorrow"])
@pytest.mark.parametrize("component", NETWORKS)
def test_a_quantized_component_is_refused_whether_or_not_its_library_is_here(
    folder: Path, component: str, method: str
) -> None:
    settings = {"quant_method": method}
    _edit(folder / component / "config.json", lambda config: config | {"quantization_config": settings})

    with pytest.raises(UnsupportedModel, match=rf"{component} is quantized with {method}, which is not read"):
        load_engine(folder)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("transformer/config.json", {"num_attention_heads": "two"}),
        ("transformer/config.json", {"axes_dims_rope": 5}),
        ("transformer/config.json", {"num_layers": None}),
        ("vae/config.json", {"block_out_channels": [8, 8]}),
        ("vae/config.json", {"norm_num_groups": 0}),
        ("text_encoder/config.json", {"num_attention_heads": 0}),
        ("text_encoder/config.json", {"hidden_act": "no such function"}),
        ("text_encoder_2/config.json", {"feed_forward_proj": 7}),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}),
        ("tokenizer_2/tokenizer_config.json", {"added_tokens_decoder": {"x": 5}}),
        ("tokenizer_2/tokenizer.json", {"model": {"type": "Unigram", "unk_id": 99, "vocab": []}}),
    ],
)
def test_whatever_a_library_raises_becomes_one_sentence_that_names_the_place(
    folder: Path, file: str, change: dict[str, object]
) -> None:
    _edit(folder / file, lambda config: config | change)

    with pytest.raises(ModelLoadError, match=str(folder / Path(file).parent)) as caught:
        load_engine(folder)

    assert "\n" not in caught.value.message


def test_a_file_of_a_tokenizer_that_is_as_large_as_a_model_is_not_read(folder: Path) -> None:
    with (folder / "tokenizer_2" / "tokenizer.json").open("wb") as file:
        file.truncate(1_000_000_000)

    with pytest.raises(ModelLoadError, match=r"tokenizer_2/tokenizer\.json is too large for a file of a tokenizer"):
        load_engine(folder)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer/tokenizer_config.json", {"model_max_length": []}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": "many"}),
        ("text_encoder/config.json", {"eos_token_id": [1]}),
    ],
)
def test_what_would_fail_each_prompt_fails_the_load(folder: Path, file: str, change: dict[str, object]) -> None:
    _edit(folder / file, lambda config: config | change)

    with pytest.raises(ModelLoadError, match=f"{folder}.* cannot be loaded") as caught:
        load_engine(folder)

    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"use_beta_sigmas": True, "use_karras_sigmas": True}, "FlowMatchEulerDiscreteScheduler"),
        ({"use_exponential_sigmas": True, "use_karras_sigmas": True}, "Only one of"),
        ({"time_shift_type": "sideways"}, "must either be 'exponential' or 'linear'"),
        ({"shift": None}, "FlowMatchEulerDiscreteScheduler"),
        ({"shift": 0}, ""),
        ({"shift": float("nan")}, ""),
        ({"shift_terminal": 1e30}, "shares of noise are not between 0 and 1"),
        ({"use_dynamic_shifting": True, "max_image_seq_len": 256}, "division by zero"),
    ],
)
def test_a_schedule_that_cannot_be_made_is_found_out_when_the_model_is_loaded(
    folder: Path, options: dict[str, object], expected: str
) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    _edit(path, lambda config: config | options)

    with pytest.raises(UnsupportedModel, match=rf"{path} makes no schedule with .*{expected}"):
        load_engine(folder)


@pytest.mark.skipif(find_spec("scipy") is not None, reason="with scipy these schedules can be made")
def test_a_schedule_that_needs_a_package_that_is_not_here_names_it(folder: Path) -> None:
    _edit(folder / "scheduler" / "scheduler_config.json", lambda config: config | {"use_beta_sigmas": True})

    with pytest.raises(UnsupportedModel, match=r"scheduler_config\.json makes no schedule .*install scipy") as caught:
        load_engine(folder)

    assert "use_beta_sigmas" in caught.value.message


@pytest.mark.parametrize("options", [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}])
def test_a_schedule_of_other_sigmas_is_loaded(folder: Path, options: dict[str, object]) -> None:
    _edit(folder / "scheduler" / "scheduler_config.json", lambda config: config | options)

    paint(load_engine(folder, EngineOptions(device="cpu", dtype="float32")))


def _weights_of(place: Path) -> Path:
    return next(place.glob("*.safetensors"))


def _edit(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _save_tokenizer_as_vocabulary_and_merges(folder: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer.json").unlink()
    _edit(folder / "tokenizer_config.json", lambda config: config | {"do_lower_case": True, "errors": "replace"})


def _split_into_shards(folder: Path, *, variant: str = "") -> None:
    whole = _weights_of(folder)
    weights = load_file(whole)
    names = sorted(weights)
    shards = {f"shard{variant}-1.safetensors": names[::2], f"shard{variant}-2.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: weights[name] for name in members}, folder / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    index = {"metadata": {"total_size": whole.stat().st_size}, "weight_map": weight_map}
    infix = f".{variant}" if variant else ""
    stem = whole.name.removesuffix(".safetensors").removesuffix(infix)
    (folder / f"{stem}.safetensors.index{infix}.json").write_text(json.dumps(index))
    whole.unlink()
