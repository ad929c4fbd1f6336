"""The JSON files of a model's folder, read, and named as their user knows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safelight.errors import ModelLoadError
from safelight.model.revision import hub_id_of

INDEX = "model_index.json"
MAX_SIZE = 2**31
"""Whatever a config counts, it has fewer."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder. Raises ModelLoadError naming the file."""
    try:
        text = _read_text(path)
        value = json.loads(text)
        if "\\ud" in text.lower():  # halves of characters, which can be neither shown nor sent
            json.dumps(value, ensure_ascii=False).encode()
    except FileNotFoundError:
        raise ModelLoadError(
            f"{path} is missing: {path.parent} is not a complete checkpoint in the diffusers layout"
        ) from None
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}; download it again") from None
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} must hold a JSON object; download it again")
    return value


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no file")
    with path.open("rb") as file:
        content = file.read(_MAX_JSON_BYTES + 1)
    if len(content) > _MAX_JSON_BYTES:
        raise ValueError("it is too large for JSON of a checkpoint")
    return content.decode("utf-8")


_MAX_JSON_BYTES = 16 * 1024**2
"""An index of all of FLUX.1's tensors has a hundredth of it."""


def class_in_index(index: Mapping[str, Any], component: str) -> str | None:
    """The class of a component; model_index.json has [library, class] for each, and [null, null] for none."""
    entry = index.get(component)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None else None


def config_of(folder: Path, component: str) -> tuple[str, dict[str, Any]]:
    """What the config is called, and what it says."""
    return named(folder, f"{component}/config.json"), read_json(folder / component / "config.json")


def read_size(path: str, config: Mapping[str, Any], key: str, default: int, *, most: int = MAX_SIZE) -> int:
    """What a config counts, which is `most` at the most. Raises ModelLoadError."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or not 1 <= value <= most:
        raise ModelLoadError(
            f"{path} has {key} {shortened(value)}, not a number from 1 to {most}; download the checkpoint again"
        )
    return value


def shortened(value: object) -> str:
    """What a config has where it should have something else, which may be long."""
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


_MAX_SHOWN = 80


def list_names(folder: Path) -> list[str]:
    """Of what lies in a folder; none if there is no folder. Raises ModelLoadError if it may not be read."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelLoadError(f"{folder} cannot be read: {error.strerror}") from None


def named(folder: Path, file: str = "") -> str:
    """The folder, or a file in it, as its user knows it: by the hub id, if it lies in the hub's cache."""
    return "/".join(filter(None, (hub_id_of(folder) or str(folder), file)))
