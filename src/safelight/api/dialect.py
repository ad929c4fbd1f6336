"""All that the server needs of a dialect: its routes, which paths are its own, how it words an error, its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Never, TypeVar

from fastapi import APIRouter

from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.disk import Disk
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import DeploymentSettings, Settings

JsonObject = Mapping[str, object]
N_contra = TypeVar("N_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport:
    """An error on its way to the client: what `server/error_handlers.py` decided, before a dialect words it."""

    status: int
    message: str
    type: str
    code: str
    param: str | None = None
    """The field as the client wrote it."""
    user_agent: str = ""
    """Who reads it, where two kinds of clients call the same path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model that is served, and what routes to it stand on, whatever they speak."""

    dispatcher: Dispatcher
    settings: Settings
    deployment: DeploymentSettings
    """What the deployment decides; for the server's own model the settings themselves."""
    uploads: UploadBudget
    disk: Disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect(Generic[N_contra]):
    """One wire format, and what its routes stand on: `Served`, if they make pictures."""

    name: str
    """In metrics."""
    title: str
    """In `/docs`."""
    create_router: Callable[[N_contra], APIRouter]
    owns_path: Callable[[str], bool]
    error_body: Callable[[str, ErrorReport], JsonObject]
    """(path, report) -> the JSON that this dialect's clients read an error from."""
    address_of: Callable[[str], str | None] | None = None
    """The path of the route that a path was meant to be, with one slash too many or a part too few."""
    is_open: Callable[[str], bool] = lambda _: False
    """Whether a path may be read without a key."""


AnyDialect = Dialect[Never]


def owner_of(path: str, dialects: Sequence[AnyDialect]) -> AnyDialect | None:
    """The dialect that a path belongs to, whether there is a route or not."""
    return next((each for each in dialects if each.owns_path(path)), None)


def segments_of(path: str) -> list[str]:
    """What is between the slashes of a path, however many there are."""
    return [each for each in path.split("/") if each]


def address_behind_endpoint(path: str, address_of: Callable[[str], str | None]) -> str | None:
    """`address_of` what stands behind `/endpoints/NAME`; None if the path does not begin like this."""
    parts = segments_of(path)
    if parts[:1] != ["endpoints"] or len(parts) < 3:
        return None
    inner = address_of("/" + "/".join(parts[2:]))
    return None if inner is None else f"/endpoints/{parts[1]}{inner}"
