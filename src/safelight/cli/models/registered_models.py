"""The models that a user has registered with the running server, beside those that need none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safelight.cli.arm import Arm, RequestRefused
from safelight.cli.az.resource_files import note
from safelight.errors import ConfigurationError, ModelNotFound
from safelight.model.catalog import Model, find_model, list_models, registered_model
from safelight.model.other_formats import looks_like_path

JsonObject = dict[str, Any]


def find_registered(reference: str, data_dir: Path | None) -> Model:
    """A model by any name that commands take. The server is asked only about what is not known without it."""
    try:
        return find_model(reference)
    except ModelNotFound:
        if looks_like_path(reference):
            raise
        return find_model(reference, registered_models(data_dir))


def registered_models(data_dir: Path | None) -> list[Model]:
    """All versions of the user's own models, oldest first; without a server none, and a note that says why."""
    known = {model.name for model in list_models()}
    try:
        arm = Arm(data_dir)
        names = [row["name"] for row in arm.list("/models") if row["name"] not in known]
        versions = {name: arm.list(f"/models/{name}/versions") for name in names}
    except (ConfigurationError, RequestRefused) as error:
        note(f"registered models are not shown: {error.message}")
        return []
    return [_from_arm(name, row) for name in names for row in reversed(versions[name])]


def _from_arm(name: str, row: JsonObject) -> Model:
    properties = row["properties"]
    return registered_model(
        name=name,
        version=properties["latestVersion"],
        path=properties["properties"]["hubId"] or properties["modelUri"],
        description=properties["description"],
    )
