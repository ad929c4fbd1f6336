"""Recipes that cannot be replayed here, and the one line that says why; and the verdict on two pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safelight.cli.pictures.remake import report
from safelight.cli.pictures.replay import replay
from safelight.errors import ConfigurationError, InvalidRequest
from safelight.model.catalog import sprite_folder
from safelight.model.checkpoint import revision_of
from safelight.picture.files import encode
from safelight.picture.recipe import Recipe, digest
from tests.recipes import RECIPE

BLACK = np.zeros((256, 256, 3), np.uint8)


@pytest.fixture
def recipe() -> Recipe:
    """One that sprite can make here."""
    return replace(RECIPE, model="sprite", revision=revision_of(sprite_folder()), width=256, height=256)


def picture_of(recipe: Recipe | None, folder: Path, pixels: np.ndarray = BLACK) -> Path:
    path = folder / "picture.png"
    path.write_bytes(encode(pixels, image_format="png", recipe=recipe))
    return path


def refusal(image: Path, **options: Any) -> str:
    with pytest.raises((InvalidRequest, ConfigurationError)) as caught:
        replay(image=image, **options)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_picture_without_a_recipe_cannot_be_replayed(tmp_path: Path) -> None:
    assert "picture.png carries no recipe" in refusal(picture_of(None, tmp_path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.png") == f"{tmp_path / 'no.png'} cannot be read: No such file or directory"


def test_a_prompt_that_was_left_out_must_be_given(recipe: Recipe, tmp_path: Path) -> None:
    image = picture_of(recipe.without_prompts(), tmp_path)

    assert refusal(image) == "the prompt was left out of this picture; give it with --prompt"
    assert "--negative-prompt" in refusal(image, prompt="a fox")


def test_a_prompt_that_the_recipe_has_is_not_replaced(recipe: Recipe, tmp_path: Path) -> None:
    assert "leave --prompt out" in refusal(picture_of(recipe, tmp_path), prompt="a fox")


def test_another_revision_of_the_model_is_refused_and_both_are_named(recipe: Recipe, tmp_path: Path) -> None:
    message = refusal(picture_of(replace(recipe, revision="sha256:0123"), tmp_path))

    assert "revision sha256:0123 of sprite" in message
    assert f"here is revision {recipe.revision}" in message


def test_a_local_model_that_is_not_known_by_name_is_asked_for(recipe: Recipe, tmp_path: Path) -> None:
    message = refusal(picture_of(replace(recipe, model="my model"), tmp_path))

    assert f"my model at revision {recipe.revision}" in message
    assert "give its folder with --model" in message


def test_a_hub_model_that_was_not_downloaded_is_not_downloaded_now(recipe: Recipe, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"

    message = refusal(picture_of(replace(recipe, model="no-such-org/no-such-model", revision=commit), tmp_path))

    assert message.endswith(f"fetch it with: hf download no-such-org/no-such-model --revision {commit}")


def test_the_source_of_an_edit_must_be_given_and_be_the_right_one(recipe: Recipe, tmp_path: Path) -> None:
    edit = replace(recipe, source=digest(BLACK.tobytes()), strength=0.5)
    image = picture_of(edit, tmp_path)
    right, wrong = tmp_path / "right.png", tmp_path / "wrong.png"
    right.write_bytes(encode(BLACK, image_format="png"))
    wrong.write_bytes(encode(BLACK + 1, image_format="png"))

    assert "give that with --source" in refusal(image)
    assert "wrong.png is not the image that this picture was made from" in refusal(image, source=wrong)
    masked = picture_of(replace(edit, mask="0" * 64), tmp_path)
    assert "give it with --mask" in refusal(masked, source=right)


def test_a_picture_that_is_no_edit_takes_no_source(recipe: Recipe, tmp_path: Path) -> None:
    image = picture_of(recipe, tmp_path)

    assert "is no edit" in refusal(image, source=image)


def test_a_picture_that_was_scaled_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    assert "128x128, but its recipe makes 256x256" in refusal(picture_of(recipe, tmp_path, BLACK[:128, :128]))


@pytest.mark.parametrize("changes", [{"num_inference_steps": 10**6}, {"scheduler": "ddim"}, {"seed": -1}])
def test_a_recipe_that_asks_for_the_impossible_is_refused(
    recipe: Recipe, tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert next(iter(changes)) in refusal(picture_of(replace(recipe, **changes), tmp_path))


def test_a_place_that_cannot_be_written_is_found_out_first(recipe: Recipe, tmp_path: Path) -> None:
    assert "cannot be written" in refusal(picture_of(recipe, tmp_path), output=tmp_path / "no folder" / "new.png")


def test_equal_pictures_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(BLACK, BLACK.copy(), []) == 0
    assert "the same picture: every pixel is equal" in capsys.readouterr().out


def test_other_pictures_say_by_how_much_and_what_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    other = BLACK.copy()
    other[0, 0, 0] = 51

    assert report(BLACK, other, ["torch 2.12 then, 2.13 now"]) == 3
    out = capsys.readouterr().out
    assert "another picture: pixels differ by 51 of 255 at most, by 0.000259 on average (PSNR 66.9 dB)" in out
    assert "torch 2.12 then, 2.13 now" in out
