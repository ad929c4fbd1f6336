"""What `NAME=SOURCE[:SCALE]` may be, and what is said of one that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from safelight.errors import ConfigurationError, ModelLoadError, SafelightError
from safelight.model.loras import locate_loras
from safelight.settings import load_settings

SECRET = "c2VjcmV0LXRva2Vu"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "film.safetensors").write_bytes(b"film")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "any name.safetensors").write_bytes(b"one")
    (tmp_path / "several").mkdir()
    for name in ("pytorch_lora_weights.safetensors", "checkpoint.safetensors"):
        (tmp_path / "several" / name).write_bytes(b"several")
    for name, file in {"upper": "FILM.SAFETENSORS", "nameless": "film v1.2"}.items():
        (tmp_path / name).mkdir()
        save_file({"x": np.ones(3)}, tmp_path / name / file)
        (tmp_path / name / "README.md").write_text("{not what it seems to be}")
        (tmp_path / name / "empty").touch()
        (tmp_path / name / "sub").mkdir()
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
        ("x={}/upper", "x", "upper/FILM.SAFETENSORS", 1.0),
        ("x={}/nameless:2", "x", "nameless/film v1.2", 2.0),
        ("x={}/nameless/film v1.2", "x", "nameless/film v1.2", 1.0),
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
        (["film"], ConfigurationError, "NAME=PATH_OR_HUB_ID[:SCALE], and LoRA 1 of 1 is not"),
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


@pytest.mark.parametrize(
    "entry",
    [
        "{}",
        "{}=",
        "{}==",
        "{}=x:9",
        "fi lm={}",
        "film={}",
        "film={}:9",
        "film=https://{}@hub.example/acme/film",
        "film=https://user:{}@hub.example/acme/film:2",
        "film=https://hub.example/acme/film?token={}",
        "film=acme/film?token={}",
        "film=hub.example:8000/{}/film",
        "film=/missing/{}/film.safetensors",
        "film=~{}/film",
    ],
)
def test_an_entry_that_is_a_secret_or_has_one_is_not_repeated(entry: str) -> None:
    with pytest.raises((ConfigurationError, ModelLoadError)) as caught:
        locate_loras([entry.format(SECRET), "other=/missing"])

    assert SECRET not in caught.value.message
    assert "LoRA 1 of 2" in caught.value.message


@pytest.mark.parametrize("change", ["written", "changed", "removed"])
def test_the_settings_beside_a_lora_are_part_of_its_revision(folder: Path, change: str) -> None:
    entry, settings = f"x={folder}/one", folder / "one" / "adapter_config.json"
    if change != "written":
        settings.write_text('{"lora_alpha": 8}')
    (before,) = locate_loras([entry])

    settings.write_text('{"lora_alpha": 16}')
    if change == "removed":
        settings.unlink()
    (after,) = locate_loras([entry])

    assert before.revision != after.revision
    assert after == locate_loras([entry])[0]


def test_settings_beside_a_lora_that_cannot_be_read_are_refused(folder: Path) -> None:
    (folder / "one" / "adapter_config.json").write_bytes(b"\xff\xfe")

    with pytest.raises(ModelLoadError, match=r"any name\.safetensors: "):
        locate_loras([f"x={folder}/one"])


def test_the_environment_lists_them_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFELIGHT_LORAS", "a=one.safetensors,b=org/name:0.5,")

    assert load_settings().loras == ("a=one.safetensors", "b=org/name:0.5")
