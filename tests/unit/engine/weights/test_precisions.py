"""Every precision keeps the promises of the plain one: same picture alone and in a batch, LoRAs row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from safelight.engine.batch_invariance import RowStableLinear
from safelight.engine.engine import Engine, load_engine
from safelight.engine.weights.placement import place
from safelight.engine.weights.stored_linear import StoredLinear
from safelight.model.checkpoint import read_model_spec
from safelight.model.memory.plan import AS_STORED
from safelight.model.spec import LoraFile
from safelight.settings import EngineOptions
from tests.tiny_loras import save_lora
from tests.unit.engine.drive import denoise, paint, start

Load = Callable[[str], Engine]
LORA = {"loras": (("film", 1.0),)}


@pytest.fixture(scope="module")
def lora(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoraFile:
    file = save_lora(tmp_path_factory.mktemp("lora") / "film", base=tiny_flux_folder, seed=1)
    return LoraFile(name="film", file=str(file))


@pytest.fixture(scope="module")
def load(tiny_flux_folder: Path, lora: LoraFile) -> Load:
    spec = replace(read_model_spec(tiny_flux_folder), loras=(lora,))
    engines: dict[str, Engine] = {}

    def load(precision: str) -> Engine:
        if precision not in engines:
            options = EngineOptions.model_validate(
                {"device": "cpu", "dtype": "float32", "quantization": precision, "text_encoder_2_quantization": "int8"}
            )
            engines[precision] = load_engine(tiny_flux_folder, options, spec=spec)
        return engines[precision]

    return load


@pytest.mark.parametrize("precision", ["none", "int8", "fp8", "nf4"])
def test_a_generation_among_others_is_the_one_alone(load: Load, precision: str) -> None:
    engine = load(precision)
    alone, with_lora = paint(engine, num_inference_steps=4), paint(engine, num_inference_steps=4, **LORA)

    generation, adapted = start(engine, num_inference_steps=4), start(engine, num_inference_steps=4, **LORA)
    others = [start(engine, prompt=f"other {seed}", seed=seed, num_inference_steps=3 + seed) for seed in range(3)]
    denoise(engine, *others, generation, adapted)

    assert np.array_equal(engine.decode(generation), alone)
    assert np.array_equal(engine.decode(adapted), with_lora)
    assert not np.array_equal(alone, with_lora)


@pytest.mark.parametrize(("precision", "far"), [("int8", 1.0), ("fp8", 4.0), ("nf4", 8.0)])
def test_a_picture_is_close_to_the_plain_one_and_not_the_same(load: Load, precision: str, far: float) -> None:
    plain, quantized = paint(load("none")), paint(load(precision))

    difference = np.abs(plain.astype(int) - quantized.astype(int)).mean()

    assert 0 < difference < far


@pytest.mark.parametrize("precision", ["int8", "fp8", "nf4"])
def test_a_lora_is_added_to_a_quantized_layer_as_it_is_to_a_plain_one(load: Load, precision: str) -> None:
    """The plain model is given the very numbers that the quantized one stands for."""
    quantized = load(precision)
    expected = paint(quantized, **LORA)

    transformer = quantized._components.transformer
    stored = {name: layer for name, layer in transformer.named_modules() if isinstance(layer, StoredLinear)}
    try:
        for name, layer in stored.items():
            transformer.set_submodule(name, _plain(layer))
        assert np.array_equal(paint(quantized, **LORA), expected)
    finally:
        for name, layer in stored.items():
            transformer.set_submodule(name, layer)


def _plain(layer: StoredLinear) -> nn.Linear:
    with torch.device("meta"):
        plain = RowStableLinear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight = nn.Parameter(layer.stored.rows(0, layer.out_features, torch.float32), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias, requires_grad=False)
    return plain


@pytest.mark.parametrize("offload", ["encoders", "model", "layers"])
def test_what_waits_in_memory_makes_the_same_picture(tiny_flux_folder: Path, load: Load, offload: str) -> None:
    """Here it waits where it works; that the hooks leave the arithmetic alone is seen all the same."""
    options = EngineOptions(device="cpu", dtype="float32", quantization="int8", text_encoder_2_quantization="int8")
    engine = load_engine(tiny_flux_folder, options)
    parts = engine._components
    networks = {
        "text_encoder": parts.text_encoder,
        "text_encoder_2": parts.text_encoder_2,  # type: ignore[attr-defined]
        "transformer": parts.transformer,
        "vae": parts.autoencoder,
    }

    place(networks, replace(AS_STORED, offload=offload), torch.device("cpu"))  # type: ignore[arg-type]

    assert np.array_equal(paint(engine), paint(load("int8")))
    assert np.array_equal(paint(engine, seed=3), paint(load("int8"), seed=3))


def test_a_picture_larger_than_a_tile_is_decoded_in_tiles(tiny_flux_folder: Path) -> None:
    options = EngineOptions(device="cpu", dtype="float32", vae_tiling="on")

    autoencoder = load_engine(tiny_flux_folder, options)._components.autoencoder

    assert autoencoder.use_tiling
    assert autoencoder.tile_sample_min_size == 512
