"""What `NAME=SOURCE[:SCALE]` may be, and what is said of one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from safelight.errors import ConfigurationError, ModelLoadError, SafelightError
from safelight.serving.lora_sources import locate_loras
from safelight.settings import load_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "film.safetensors").write_bytes(b"film")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "any name.safetensors").write_bytes(b"one")
    (tmp_path / "several").mkdir()
    for name in ("pytorch_lora_weights.safetensors", "checkpoint.safetensors"):
        (tmp_path / "several" / name).write_bytes(b"several")
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "lora.bin").write_bytes(b"pickle")
    return tmp_path


@pytest.mark.parametrize(
    ("entry", "name", "file", "scale"),
    [
        ("film={}/film.safetensors", "film", "film.safetensors", 1.0),
        ("film={}/film.safetensors:0.75", "film", "film.safetensors", 0.75),
        ("a-b.c={}/film.safetensors:-2", "a-b.c", "film.safetensors", -2.0),
        ("x={}/one", "x", "one/any name.safetensors", 1.0),
        ("x={}/several:.5", "x", "several/pytorch_lora_weights.safetensors", 0.5),
    ],
)
def test_a_file_is_found(folder: Path, entry: str, name: str, file: str, scale: float) -> None:
    (lora,) = locate_loras([entry.format(folder)])

    assert (lora.name, Path(lora.file), lora.scale) == (name, folder / file, scale)
    assert lora.revision.startswith("sha256:")


@pytest.mark.parametrize(
    ("entries", "error", "expected"),
    [
        (["film"], ConfigurationError, "NAME=PATH_OR_HUB_ID[:SCALE], not 'film'"),
        (["fi lm=x"], ConfigurationError, "NAME=PATH_OR_HUB_ID"),
        (["film={}/film.safetensors:9"], ConfigurationError, "between -4 and 4"),
        (["film={}/film.safetensors", "film={}/one"], ConfigurationError, "two LoRAs are called 'film'"),
        (["film={}/missing.safetensors"], ModelLoadError, "neither a file, nor a folder, nor a hub id"),
        (["film=loras/film.safetensors"], ModelLoadError, "neither a file, nor a folder, nor a hub id"),
        (["film=/" + "x" * 5000], ModelLoadError, "neither a file, nor a folder, nor a hub id"),
        (["film=~nobody-of-that-name/x"], ModelLoadError, "neither a file, nor a folder, nor a hub id"),
        (["film=x\0y"], ModelLoadError, "neither a file, nor a folder, nor a hub id"),
        (["film={}/pickle"], ModelLoadError, "it has: none"),
        (["film={}"], ModelLoadError, ""),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(
    folder: Path, entries: list[str], error: type[SafelightError], expected: str
) -> None:
    (folder / "other.safetensors").write_bytes(b"other")

    with pytest.raises(error) as caught:
        locate_loras([entry.format(folder) for entry in entries])

    assert expected in caught.value.message


def test_the_environment_lists_them_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_LORAS", "a=one.safetensors,b=org/name:0.5,")

    assert load_settings().loras == ("a=one.safetensors", "b=org/name:0.5")
