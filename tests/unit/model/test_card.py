from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from safelight.errors import InvalidRequest, ModelLoadError
from safelight.model.card import model_card
from safelight.model.catalog import Model, find_model, spec_of
from safelight.model.spec import ModelSpec
from safelight.picture.parameters import build_generation_request


def known_spec(model: Model) -> ModelSpec:
    spec = spec_of(model)
    assert spec is not None
    return spec


def test_the_card_of_flux_says_all_that_its_card_on_the_hub_says() -> None:
    card = model_card(find_model("black-forest-labs/FLUX.1-schnell"))

    assert (card.is_gated, card.license, card.provider) == (True, "Apache-2.0", "Hugging Face")
    assert card.last_updated == "January 2026"
    assert card.access_page == "https://huggingface.co/black-forest-labs/FLUX.1-schnell"
    assert round(card.weights_bytes["bfloat16"] / 1e9, 1) == 33.7
    assert round(card.weights_bytes["float32"] / 1e9, 1) == 67.4
    assert [each.name for each in card.parameters if not each.has_effect] == ["guidance_scale"]


@pytest.mark.parametrize("name", ["sprite", "black-forest-labs-flux.1-schnell"])
@pytest.mark.parametrize("parameter", ["guidance_scale", "num_inference_steps", "width", "height", "seed"])
def test_the_ranges_of_a_card_are_those_that_are_checked(name: str, parameter: str) -> None:
    model = find_model(name)
    card = next(each for each in model_card(model).parameters if each.name == parameter)
    spec = known_spec(model)
    assert card.minimum is not None
    assert card.maximum is not None

    for value in (card.minimum, card.maximum):
        request = build_generation_request(spec, id="r", prompt="a cat", **{parameter: value})
        assert parameter == "guidance_scale" or getattr(request, parameter) == value
    for value in (card.minimum - (2 if parameter == "seed" else 1), card.maximum + 1):  # seed -1 draws one
        with pytest.raises(InvalidRequest):
            build_generation_request(spec, id="r", prompt="a cat", **{parameter: value})


@pytest.mark.parametrize("name", ["sprite", "black-forest-labs-flux.1-schnell"])
def test_the_defaults_of_a_card_are_those_in_force(name: str) -> None:
    model = find_model(name)
    request = build_generation_request(known_spec(model), id="r", prompt="a cat")

    for card in model_card(model).parameters:
        if card.default is not None:
            assert getattr(request, card.name) == card.default


def test_a_card_tells_how_many_steps_each_quality_has() -> None:
    cards = model_card(find_model("black-forest-labs-flux.1-schnell")).parameters

    steps = next(each for each in cards if each.name == "num_inference_steps")
    assert "quality low 2, medium 4, high 8, xhigh 12, max 16" in steps.effect


def test_a_folder_is_weighed_by_its_files(tiny_flux_folder: Path) -> None:
    card = model_card(find_model(str(tiny_flux_folder)))

    num_parameters = sum(card.num_parameters.values())
    assert set(card.num_parameters) == {"text_encoder", "text_encoder_2", "transformer", "vae"}
    assert card.weights_bytes["float32"] == 4 * num_parameters
    files = sum(path.stat().st_size for path in tiny_flux_folder.glob("*/*.safetensors"))
    assert 0.9 * files < card.weights_bytes["float32"] < files


def test_of_several_variants_one_is_weighed(model_folder: Path) -> None:
    for infix in ("", ".bf16", ".fp16"):
        path = model_folder / f"transformer/diffusion_pytorch_model{infix}.safetensors"
        save_file({"weight": np.ones((2, 3), np.float16)}, path)

    assert model_card(find_model(str(model_folder))).num_parameters["transformer"] == 6


def test_a_broken_file_of_weights_is_named(model_folder: Path) -> None:
    (model_folder / "transformer/diffusion_pytorch_model.safetensors").write_bytes(b"no weights")

    with pytest.raises(ModelLoadError, match=r"diffusion_pytorch_model.safetensors cannot be read"):
        model_card(find_model(str(model_folder)))


def test_what_a_hub_model_is_shows_only_when_its_files_are_here() -> None:
    card = model_card(find_model("acme/flux"))

    assert (card.is_gated, card.parameters, card.weights_bytes) == (None, (), {})
