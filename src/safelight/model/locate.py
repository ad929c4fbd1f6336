"""From a model to its folder and its spec; what is not here is asked of whoever fetches, and how is their matter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safelight.errors import ModelLoadError, ModelNotFound
from safelight.model.catalog import Model, find_model
from safelight.model.checkpoint import read_model_spec
from safelight.model.revision import hub_id_of
from safelight.model.spec import ModelSpec

Fetch = Callable[[str, str | None], Path]
"""(hub id, revision or None for the newest) -> the local folder."""


def locate(model: Model, fetch: Fetch) -> tuple[Path, ModelSpec]:
    """Where a model is, and what it can do. Raises ModelLoadError, or what `fetch` raises."""
    folder = locate_folder(model, fetch)
    return folder, spec_in(folder, model)


def locate_folder(model: Model, fetch: Fetch) -> Path:
    """Where a model is. Raises ModelLoadError, or what `fetch` raises."""
    if model.folder is not None:
        return model.folder
    if model.hub_id is None:
        raise ModelLoadError(f"model {model.name} has neither a folder nor a hub id")
    return fetch(model.hub_id, model.revision)


def spec_in(folder: Path, model: Model | str) -> ModelSpec:
    """The catalogue's word on a model that it knows by its name or by its hub id, else what the folder says."""
    if isinstance(model, Model):
        return model.spec or read_model_spec(folder)
    for reference in (model, hub_id_of(folder)):
        with suppress(ModelNotFound):
            if reference is not None and (known := find_model(reference).spec) is not None:
                return known
    return read_model_spec(folder)
