"""The JSON files of a model's folder, read, and named as their user knows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safelight.errors import ModelLoadError
from safelight.model.revision import hub_id_of

INDEX = "model_index.json"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder. Raises ModelLoadError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(
            f"{path} is missing: {path.parent} is not a complete checkpoint in the diffusers layout"
        ) from None
    except (ValueError, RecursionError, OSError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} must hold a JSON object")
    return value


def class_in_index(index: Mapping[str, Any], component: str) -> str | None:
    """The class of a component; model_index.json has [library, class] for each, and [null, null] for none."""
    entry = index.get(component)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None else None


def config_of(folder: Path, component: str) -> tuple[str, dict[str, Any]]:
    """What the config is called, and what it says."""
    return named(folder, f"{component}/config.json"), read_json(folder / component / "config.json")


def read_size(path: str, config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or value < 1:
        raise ModelLoadError(f"{path} has {key} {value!r}, not a number of at least 1; download the checkpoint again")
    return value


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
