"""What a stranger's file may do to the terminal that shows it: nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safelight.cli.output import OutputFormat
from safelight.cli.pictures.inspect import inspect
from safelight.errors import InvalidRequest
from safelight.picture.files import encode
from safelight.picture.recipe import Recipe
from tests.recipes import RECIPE


def picture_of(recipe: Recipe, folder: Path) -> Path:
    path = folder / "picture.png"
    path.write_bytes(encode(np.zeros((48, 64, 3), np.uint8), image_format="png", recipe=recipe))
    return path


def test_control_characters_and_markup_of_a_prompt_are_shown_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = picture_of(replace(RECIPE, prompt="[red]fox[/] \x1b[2J\r狐", model="\x9b31m"), tmp_path)

    inspect(image=image, output=OutputFormat.TABLE)

    shown = capsys.readouterr().out
    assert "[red]fox[/] \\x1b[2J\\r狐" in shown
    assert "\\x9b31m" in shown
    assert not {"\x1b", "\r", "\x9b"} & set(shown)


def test_what_is_withheld_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(image=picture_of(RECIPE.without_prompts(), tmp_path), output=OutputFormat.TABLE)

    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["withheld", "prompt, negative_prompt"] in [[name, value.rstrip()] for name, value in lines]


@pytest.mark.parametrize("changes", [{"num_threads": 10**9}, {"image_quality": 0}])
def test_a_recipe_out_of_all_bounds_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match=f"picture.png carries a recipe by Safelight .*{next(iter(changes))}"):
        inspect(image=picture_of(replace(RECIPE, **changes), tmp_path))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read: Is a directory"):
        inspect(image=tmp_path)
