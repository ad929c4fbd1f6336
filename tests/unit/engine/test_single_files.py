"""Pictures from files as people have them: the same as from the diffusers layout, or as near as the format is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.engine.engine import Engine, load_engine
from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.catalog import Model
from safelight.model.file_sets import GivenFiles, assemble
from safelight.settings import EngineOptions
from tests.single_files import (
    as_bfl,
    config_of,
    save,
    scaled_fp8,
    with_gated_t5,
    write_all_in_one,
    write_ggufs,
    write_single_files,
)
from tests.slim_flux import save_slim_flux
from tests.unit.engine.drive import denoise, paint, start

FP32 = EngineOptions(device="cpu", dtype="float32")


class NoHub:
    def fetch(self, model: Model | None, components: Collection[str]) -> Path:
        raise AssertionError("the hub was asked")

    def fetch_tokenizer(self, hub_id: str, words: Collection[str]) -> Path:
        raise AssertionError("the hub was asked")


@pytest.fixture(scope="module")
def checkpoint(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_gated_t5(tiny_flux_folder, tmp_path_factory.mktemp("gated") / "tiny")


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> Engine:
    return load_engine(checkpoint, FP32)


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_slim_flux(tmp_path_factory.mktemp("slim") / "slim")


@pytest.fixture(scope="module")
def slim_plain(slim: Path) -> Engine:
    return load_engine(slim, FP32)


def engine_of(files: Mapping[str, Path], checkpoint: Path, place: Path) -> Engine:
    parts = {name: path for name, path in files.items() if name != "transformer"}
    given = GivenFiles(model=files["transformer"], parts=parts, base=Model(name="tiny", folder=checkpoint))
    return load_engine(assemble(given, place / "sets", NoHub()), FP32)


def velocity(engine: Engine) -> torch.Tensor:
    generation = start(engine, num_inference_steps=1, width=64, height=64)
    before = engine._denoising[generation].latents.clone()
    denoise(engine, generation)
    made = before - engine._denoising[generation].latents
    engine.release(generation)
    return made


def error(engine: Engine, plain: Engine) -> float:
    wanted = velocity(plain)
    return float((velocity(engine) - wanted).norm() / wanted.norm())


def test_single_files_of_all_parts_make_the_same_picture(checkpoint: Path, plain: Engine, tmp_path: Path) -> None:
    engine = engine_of(write_single_files(checkpoint, tmp_path / "files"), checkpoint, tmp_path)

    np.testing.assert_array_equal(paint(engine), paint(plain))


def test_an_all_in_one_makes_the_same_picture(checkpoint: Path, plain: Engine, tmp_path: Path) -> None:
    engine = engine_of(
        {"transformer": write_all_in_one(checkpoint, tmp_path / "all.safetensors")}, checkpoint, tmp_path
    )

    np.testing.assert_array_equal(paint(engine), paint(plain))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q4_0"])
def test_a_gguf_makes_what_its_numbers_make(checkpoint: Path, plain: Engine, tmp_path: Path, kind: str) -> None:
    engine = engine_of(write_ggufs(checkpoint, tmp_path / "files", kind), checkpoint, tmp_path)
    numbers = engine_of(write_ggufs(checkpoint, tmp_path / "numbers", kind, as_numbers=True), checkpoint, tmp_path)

    assert error(engine, numbers) < 3e-3  # blocks come back in fp16
    assert error(engine, plain) < {"F32": 1e-6, "Q5_1": 0.2, "Q4_0": 0.4}.get(kind, 0.02)


@pytest.mark.parametrize("kind", ["Q6_K", "Q5_K", "Q4_K"])
def test_a_k_quant_makes_what_its_numbers_make(slim: Path, slim_plain: Engine, tmp_path: Path, kind: str) -> None:
    engine = engine_of(write_ggufs(slim, tmp_path / "files", kind), slim, tmp_path)
    numbers = engine_of(write_ggufs(slim, tmp_path / "numbers", kind, as_numbers=True), slim, tmp_path)

    assert error(engine, numbers) < 3e-3
    assert error(engine, slim_plain) < {"Q6_K": 0.03, "Q5_K": 0.06, "Q4_K": 0.12}[kind]


def cast_fp8(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: each.to(torch.float8_e4m3fn) if each.ndim == 2 else each for name, each in tensors.items()}


def as_numbers(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What fp8 stands for."""
    scales = {f"{name.rpartition('.')[0]}.weight": each for name, each in tensors.items() if "scale_weight" in name}
    return {
        name: each.float() * scales.get(name, 1)
        for name, each in tensors.items()
        if name != "scaled_fp8" and not name.endswith(("scale_weight", "scale_input"))
    }


@pytest.mark.parametrize("quantize", [cast_fp8, scaled_fp8])
def test_fp8_makes_what_its_numbers_times_its_scales_make(
    checkpoint: Path, plain: Engine, tmp_path: Path, quantize: Callable[..., dict[str, torch.Tensor]]
) -> None:
    engine = engine_of(write_single_files(checkpoint, tmp_path / "files", quantize), checkpoint, tmp_path)
    files = write_single_files(checkpoint, tmp_path / "numbers", lambda tensors: as_numbers(quantize(tensors)))

    assert error(engine, engine_of(files, checkpoint, tmp_path)) < 1e-4
    assert error(engine, plain) < 0.2


def test_a_batch_of_quantized_rows_is_each_row_alone(checkpoint: Path, tmp_path: Path) -> None:
    engine = engine_of(write_ggufs(checkpoint, tmp_path / "files", "Q8_0"), checkpoint, tmp_path)
    alone = [paint(engine, seed=seed) for seed in (1, 2, 3)]

    together = [start(engine, seed=seed) for seed in (1, 2, 3)]
    denoise(engine, *together)

    for generation, picture in zip(together, alone, strict=True):
        np.testing.assert_array_equal(engine.decode(generation), picture)


def test_fp8_that_is_nan_keeps_the_model_from_loading(checkpoint: Path, tmp_path: Path) -> None:
    tensors = cast_fp8(as_bfl(checkpoint, "transformer", config_of(checkpoint, "transformer")))
    tensors["single_blocks.0.linear2.weight"].view(torch.uint8)[-1, -1] = 0x7F
    file = save(tmp_path / "nan.safetensors", tensors)

    with pytest.raises(
        ModelLoadError, match=r"nan\.safetensors: single_blocks\.0\.linear2\.weight has numbers that are"
    ):
        engine_of({"transformer": file}, checkpoint, tmp_path)


def test_a_tensor_of_another_shape_keeps_the_model_from_loading(checkpoint: Path, tmp_path: Path) -> None:
    tensors = as_bfl(checkpoint, "transformer", config_of(checkpoint, "transformer"))
    file = save(tmp_path / "odd.safetensors", tensors | {"double_blocks.0.img_mlp.0.weight": torch.zeros(4, 4)})

    with pytest.raises(
        UnsupportedModel,
        match=r"odd\.safetensors: double_blocks\.0\.img_mlp\.0\.weight is \[4, 4\],",
    ):
        engine_of({"transformer": file}, checkpoint, tmp_path)


def test_every_shape_is_compared_before_any_number_is_read(checkpoint: Path, tmp_path: Path) -> None:
    tensors = cast_fp8(as_bfl(checkpoint, "transformer", config_of(checkpoint, "transformer")))
    tensors["single_blocks.0.linear2.weight"].view(torch.uint8)[-1, -1] = 0x7F
    found_when_read = save(tmp_path / "nan.safetensors", tensors)
    t5 = as_bfl(checkpoint, "text_encoder_2", config_of(checkpoint, "text_encoder_2"))
    odd = save(tmp_path / "odd.safetensors", t5 | {"encoder.final_layer_norm.weight": torch.zeros(4)})

    with pytest.raises(UnsupportedModel, match=r"odd\.safetensors: encoder\.final_layer_norm\.weight is \[4\]"):
        engine_of({"transformer": found_when_read, "text_encoder_2": odd}, checkpoint, tmp_path)
