"""A checkpoint that cannot be loaded is refused with the file and the remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from safelight.engine.engine import load_engine
from safelight.errors import ModelLoadError
from safelight.model_spec import Guidance, read_model_spec
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
    expected = paint(load_engine(folder, device="cpu", dtype="float32"))
    _split_into_shards(folder / "transformer")

    engine = load_engine(folder, device="cpu", dtype="float32")

    assert (paint(engine) == expected).all()


def test_files_and_names_as_in_the_published_checkpoints_are_loaded(folder: Path) -> None:
    """FLUX.1-schnell was saved by older libraries: prefixed CLIP weights, vocab.json, both T5 embeddings."""
    expected = paint(load_engine(folder, device="cpu", dtype="float32"))
    clip, t5 = folder / "text_encoder" / "model.safetensors", folder / "text_encoder_2" / "model.safetensors"
    clip_weights = {f"text_model.{name}": weight for name, weight in load_file(clip).items()}
    save_file(clip_weights | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, clip)
    t5_weights = load_file(t5)
    save_file(t5_weights | {"encoder.embed_tokens.weight": t5_weights["shared.weight"].clone()}, t5)
    _save_tokenizer_as_vocabulary_and_merges(folder / "tokenizer")
    _edit(
        folder / "tokenizer_2" / "tokenizer_config.json", lambda config: config | {"tokenizer_class": "T5TokenizerFast"}
    )

    engine = load_engine(folder, device="cpu", dtype="float32")

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

    with pytest.raises(ModelLoadError, match=f"{name} cannot be loaded"):
        load_engine(folder)


@pytest.mark.parametrize(
    ("name", "sizes"), [("transformer", {"joint_attention_dim": 48}), ("text_encoder", {"hidden_size": 64})]
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

    with pytest.raises(ModelLoadError, match="StableDiffusionPipeline, not a FluxPipeline"):
        load_engine(folder)


def _edit(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _save_tokenizer_as_vocabulary_and_merges(folder: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer.json").unlink()
    _edit(folder / "tokenizer_config.json", lambda config: config | {"do_lower_case": True, "errors": "replace"})


def _split_into_shards(folder: Path) -> None:
    whole = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(whole)
    names = sorted(weights)
    shards = {"shard-1.safetensors": names[::2], "shard-2.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: weights[name] for name in members}, folder / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    index = {"metadata": {"total_size": whole.stat().st_size}, "weight_map": weight_map}
    (folder / f"{whole.name}.index.json").write_text(json.dumps(index))
    whole.unlink()
