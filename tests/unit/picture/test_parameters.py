"""From what a client gave to the request in force, on models with each kind of guidance."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from safelight.errors import InvalidRequest
from safelight.limits import MAX_PROMPT_CHARACTERS, MAX_SEED
from safelight.model.spec import SCHEDULER_ALIASES, Guidance, ModelSpec
from safelight.picture.generation import GenerationRequest
from safelight.picture.parameters import build_generation_request
from safelight.picture.recipe import parse_recipe
from tests.recipes import RECIPE

SCHNELL = ModelSpec(
    name="schnell",
    default_num_inference_steps=4,
    max_num_inference_steps=100,
    default_width=1024,
    default_height=512,
    min_size=64,
    max_size=2048,
    max_pixels=1024 * 1024,
    size_multiple=16,
    max_sequence_length=256,
    guidance=Guidance.NONE,
    default_guidance_scale=0.0,
)
DEV = replace(SCHNELL, name="dev", guidance=Guidance.EMBEDDED, default_guidance_scale=3.5)
SPRITE = replace(SCHNELL, name="sprite", guidance=Guidance.TRAINED, default_guidance_scale=3.0)


def build(spec: ModelSpec = SCHNELL, **given: Any) -> GenerationRequest:
    return build_generation_request(spec, **{"id": "1", "prompt": "a fox"} | given)


def refusal(**given: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        build(**given)
    return caught.value


def test_what_is_not_given_comes_from_the_model() -> None:
    request = build()

    assert (request.width, request.height, request.num_inference_steps) == (1024, 512, 4)
    assert request.scheduler == "FlowMatchEulerDiscreteScheduler"
    assert request.warnings == ()


def test_a_seed_that_is_not_given_is_drawn() -> None:
    seeds = {build().seed for _ in range(20)}

    assert len(seeds) == 20


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_a_seed_that_is_given_is_kept(seed: int) -> None:
    assert build(seed=seed).seed == seed


@pytest.mark.parametrize("seed", [-2, -(2**63), MAX_SEED + 1, 10**100])
def test_a_seed_out_of_range_is_refused_with_the_range(seed: int) -> None:
    error = refusal(seed=seed)

    assert error.field == "seed"
    assert str(MAX_SEED) in error.message


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    assert refusal(prompt=prompt).field == "prompt"


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_texts_have_a_greatest_length(field: str) -> None:
    error = refusal(**{field: "x" * (MAX_PROMPT_CHARACTERS + 1)})

    assert error.field == field
    assert str(MAX_PROMPT_CHARACTERS) in error.message


@pytest.mark.parametrize(
    ("pixels", "nearest"), [(500, 496), (505, 512), (1, 64), (0, 64), (-256, 64), (99999, 2048), (10**300, 2048)]
)
@pytest.mark.parametrize("side", ["width", "height"])
def test_an_impossible_side_is_refused_with_the_nearest_possible_one(side: str, pixels: int, nearest: int) -> None:
    error = refusal(**{side: pixels})

    assert error.field == side
    assert f"the nearest is {nearest}" in error.message


def test_possible_sides_that_make_too_many_pixels_are_refused() -> None:
    error = refusal(width=2048, height=2048)

    assert error.field == "width"
    assert "at most 1048576" in error.message


@pytest.mark.parametrize("steps", [0, -4, 101, 10**30])
def test_step_counts_out_of_range_are_refused_with_the_range(steps: int) -> None:
    error = refusal(num_inference_steps=steps)

    assert error.field == "num_inference_steps"
    assert "between 1 and 100" in error.message


@pytest.mark.parametrize(("alias", "class_name"), SCHEDULER_ALIASES.items())
def test_a_scheduler_goes_by_its_alias_and_by_its_class_name(alias: str, class_name: str) -> None:
    assert build(scheduler=alias).scheduler == build(scheduler=class_name).scheduler == class_name


def test_an_unknown_scheduler_is_refused_with_those_the_model_takes() -> None:
    spec = replace(SCHNELL, schedulers=("FlowMatchEulerDiscreteScheduler",))

    error = refusal(spec=spec, scheduler="heun")

    assert error.field == "scheduler"
    assert error.message.endswith("use one of: FlowMatchEulerDiscreteScheduler (euler)")


@pytest.mark.parametrize("name", ["guidance_scale", "true_cfg_scale"])
@pytest.mark.parametrize("scale", [-0.1, 100.1, float("nan"), float("inf")])
def test_scales_out_of_range_are_refused(name: str, scale: float) -> None:
    error = refusal(**{name: scale})

    assert error.field == name
    assert "between 0 and 100" in error.message


@pytest.mark.parametrize("count", [0, 11, -1])
def test_the_number_of_images_has_limits(count: int) -> None:
    assert refusal(num_images_per_prompt=count).field == "num_images_per_prompt"


def test_guidance_scale_without_effect_is_answered_by_a_warning() -> None:
    request = build(guidance_scale=7.5)

    assert not request.is_guided
    assert [warning.split(" on ")[0] for warning in request.warnings] == ["guidance_scale has no effect"]


def test_guidance_scale_zero_asks_for_nothing_and_warns_of_nothing() -> None:
    assert build(guidance_scale=0.0).warnings == ()


def test_true_cfg_scale_without_a_negative_prompt_is_answered_by_a_warning() -> None:
    assert "true_cfg_scale has no effect" in build(true_cfg_scale=4.0).warnings[0]


def test_a_negative_prompt_runs_classifier_free_guidance_and_says_what_it_costs() -> None:
    request = build(negative_prompt="fog")

    assert request.is_guided
    assert (request.negative_prompt, request.true_cfg_scale) == ("fog", 4.0)
    assert "costs twice as much" in request.warnings[0]


def test_guidance_scale_is_the_strength_of_a_negative_prompt_where_none_is_embedded() -> None:
    assert build(negative_prompt="fog", guidance_scale=6.0).true_cfg_scale == 6.0


def test_embedded_guidance_and_the_strength_of_a_negative_prompt_are_two_things() -> None:
    request = build(DEV, negative_prompt="fog", guidance_scale=6.0, true_cfg_scale=2.0)

    assert (request.guidance_scale, request.true_cfg_scale) == (6.0, 2.0)


def test_guidance_scale_next_to_true_cfg_scale_is_said_to_have_no_effect_where_none_is_embedded() -> None:
    request = build(negative_prompt="fog", guidance_scale=6.0, true_cfg_scale=2.0)

    assert request.true_cfg_scale == 2.0
    assert any("guidance_scale has no effect" in warning for warning in request.warnings)


@pytest.mark.parametrize("spec", [SCHNELL, DEV, SPRITE])
def test_a_negative_prompt_without_strength_is_said_to_have_no_effect(spec: ModelSpec) -> None:
    request = build(spec, negative_prompt="fog", true_cfg_scale=1.0)

    assert not request.is_guided
    assert "negative_prompt has no effect" in request.warnings[0]


def test_an_empty_negative_prompt_is_none() -> None:
    assert not build(negative_prompt="").is_guided


def test_an_empty_negative_prompt_with_a_true_cfg_scale_runs_as_it_does_in_diffusers() -> None:
    request = build(negative_prompt="", true_cfg_scale=2.0)

    assert request.is_guided
    assert request.negative_prompt == ""


def test_a_model_trained_for_guidance_is_guided_by_default() -> None:
    request = build(SPRITE)

    assert request.is_guided
    assert (request.true_cfg_scale, request.warnings) == (3.0, ())


def test_a_negative_prompt_costs_nothing_more_on_a_model_that_is_always_guided() -> None:
    request = build(SPRITE, negative_prompt="fog")

    assert (request.negative_prompt, request.true_cfg_scale, request.warnings) == ("fog", 3.0, ())


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_model_trained_for_guidance_runs_without_it_on_demand(scale: float) -> None:
    assert not build(SPRITE, guidance_scale=scale).is_guided


def test_embedded_guidance_takes_the_scale_that_was_given() -> None:
    request = build(DEV, guidance_scale=5.0)

    assert (request.guidance_scale, request.is_guided, request.warnings) == (5.0, False, ())


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_what_is_no_text_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{name} is no text"):
        build_generation_request(DEV, id="1", **{"prompt": "a fox", "true_cfg_scale": 3.0, name: "a \udcff fox"})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [None, -1])
def test_minus_one_draws_a_seed_as_none_does(seed: int | None) -> None:
    seeds = {build(seed=seed).seed for _ in range(20)}

    assert len(seeds) == 20
    assert min(seeds) >= 0


def test_a_request_says_once_that_its_prompts_have_syntax_of_other_programs() -> None:
    warnings = build(prompt="(red:1.5) fox (big:1.2)", negative_prompt="(dog:1.5)", guidance_scale=3).warnings

    assert len([each for each in warnings if "syntax of other programs" in each]) == 1


def test_a_recipe_names_a_seed_and_draws_none() -> None:
    text = json.dumps({**RECIPE.as_dict(), "seed": -1})

    with pytest.raises(InvalidRequest, match="seed"):
        parse_recipe(text)
