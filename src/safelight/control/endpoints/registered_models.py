"""Models that the user registers: a folder in the diffusers layout, or a hub id, under a name and a version."""

from __future__ import annotations

import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from safelight.control.store.tables import RegisteredModel
from safelight.errors import Conflict, InvalidRequest, ModelNotFound
from safelight.model.catalog import Model, find_folder, find_hub_model, list_models, registered_model
from safelight.model.checkpoint import read_model_spec

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,29}")


def register_model(
    session: Session, *, name: str, path: str, version: str | None = None, description: str = ""
) -> Model:
    """Add a model; without a version, the next one. Raises InvalidRequest, Conflict or ModelLoadError."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"model name {name!r} is not possible: lower-case letters, digits, dots, dashes and underscores",
            field="name",
        )
    if version is not None and not _VERSION.fullmatch(version):
        raise InvalidRequest(
            f"model version {version[:64]!r} is not possible: 1 to 30 letters, digits, dots, dashes and underscores",
            field="version",
        )
    if name in {model.name for model in list_models()}:
        raise Conflict(f"'{name}' is a model of the catalogue; choose another name")
    versions = [row.version for row in session.scalars(select(RegisteredModel).where(RegisteredModel.name == name))]
    version = version or str(max((int(each) for each in versions if each.isdecimal()), default=0) + 1)
    if version in versions:
        raise Conflict(f"model '{name}' has a version {version} already; versions never change, so give another one")
    row = RegisteredModel(name=name, version=version, path=_checked_path(path), description=description)
    session.add(row)
    session.flush()
    return _model(row)


def list_registered_models(session: Session) -> list[Model]:
    """Oldest first."""
    return [_model(row) for row in session.scalars(select(RegisteredModel).order_by(RegisteredModel.created_at))]


def _checked_path(path: str) -> str:
    try:
        folder = find_folder(path)
    except ModelNotFound as error:
        raise InvalidRequest(error.message, field="path") from None
    if folder is not None:
        read_model_spec(folder)
        return str(folder)
    if find_hub_model(path) is not None:
        return path
    raise InvalidRequest(
        f"path {path[:256]!r} is neither a folder on this machine nor a hub id such as org/name or org/name@REVISION",
        field="path",
    )


def _model(row: RegisteredModel) -> Model:
    return registered_model(name=row.name, version=row.version, path=row.path, description=row.description)
