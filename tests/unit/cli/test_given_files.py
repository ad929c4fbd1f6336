"""What a command is given as a model is looked at before anything is started for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from safelight.cli.given_files import locate_given
from safelight.errors import ModelLoadError
from safelight.settings import load_settings
from tests.checkpoint_files import WEIGHTS, write_checkpoint


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_folder_whose_weights_are_cut_short_is_refused_without_a_replica(tmp_path: Path, file: str) -> None:
    folder = write_checkpoint(tmp_path / "flux")
    whole = (folder / file).read_bytes()
    settings = load_settings(model=str(folder))
    assert locate_given(settings)[0] == folder

    for length in (0, 4, 8, len(whole) - 1):
        (folder / file).write_bytes(whole[:length])
        with pytest.raises(ModelLoadError, match=rf"{file} cannot be read: its head is not whole; download it again"):
            locate_given(settings)


def test_a_model_whose_weights_are_elsewhere_is_not_asked_for_them(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "flux")
    (folder / WEIGHTS[0]).unlink()

    assert locate_given(load_settings(model=str(folder)), ())[0] == folder
