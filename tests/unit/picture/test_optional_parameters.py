"""A parameter that is named once is known wherever a picture is asked for, told of, and made again."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from safelight.api.http.headers import parameters_in_force
from safelight.api.parameters import PictureParameters
from safelight.cli.pictures.generate import generate
from safelight.picture.generation import GenerationRequest, OptionalParameters
from safelight.picture.parameters import build_generation_request
from safelight.picture.recipe import PROMPTS, Recipe
from tests.fakes import FAKE_SPEC

NAMES = set(OptionalParameters.__annotations__)


@pytest.mark.parametrize(
    "known",
    [
        {field.name for field in fields(GenerationRequest)},
        {field.name for field in fields(Recipe)},
        set(PictureParameters.model_fields),
        set(inspect.signature(generate).parameters),
    ],
    ids=["request", "recipe", "dialects", "command line"],
)
def test_an_optional_parameter_is_known(known: set[str]) -> None:
    assert known >= NAMES


def test_an_answer_tells_each_but_what_the_user_wrote() -> None:
    told = parameters_in_force(build_generation_request(FAKE_SPEC, id="1", prompt="a fox", seed=7))

    assert set(told) == NAMES - set(PROMPTS)
    assert told["seed"] == 7
