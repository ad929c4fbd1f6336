"""Which paths are OpenAI's, and which one was meant: a base URL is easily one `/v1` too short or too long."""

from __future__ import annotations

import re

from safelight.api.dialect import address_behind_endpoint, segments_of

_ROUTE = re.compile(r"images/(generations|edits|variations)|models(/.+)?")
_ROOTS = ("v1", "openai")


def owns_path(path: str) -> bool:
    return path == "/v1" or path.startswith(("/v1/", "/openai/")) or address_of(path) is not None


def deployment_in(path: str) -> str | None:
    """The name in `/openai/deployments/NAME/...`."""
    match = re.match(r"/openai/deployments/([^/]+)/", path)
    return None if match is None else match[1]


def takes_model(path: str) -> bool:
    """Whether it is a route whose body may name a model."""
    return re.fullmatch(r"(/openai)?/v1/images/(generations|edits|variations)", path) is not None


def takes_upload(path: str) -> bool:
    """Whether it is one whose body holds an image."""
    return not path.endswith("/generations")


def address_of(path: str) -> str | None:
    """The route's own path, for one whose slashes, `v1` or `openai` are wrong; None if it names no route of ours."""
    return address_behind_endpoint(path, _address_here) or _address_here(path)


def _address_here(path: str) -> str | None:
    parts = segments_of(path)
    if "deployments" in parts[:3]:
        return _address_in_deployment(parts[parts.index("deployments") + 1 :])
    route = "/".join(_without_roots(parts))
    if _ROUTE.fullmatch(route) and (parts[0] in _ROOTS or not route.startswith("models/")):  # /models/ID: Hugging Face
        return f"/openai/v1/{route}" if "openai" in parts[: -len(route.split("/"))] else f"/v1/{route}"
    return None


def _address_in_deployment(parts: list[str]) -> str | None:
    """Of what follows `deployments`."""
    route = "/".join(_without_roots(parts[1:]))
    return f"/openai/deployments/{parts[0]}/{route}" if re.fullmatch(r"images/(generations|edits)", route) else None


def _without_roots(parts: list[str]) -> list[str]:
    while parts[:1] and parts[0] in _ROOTS:
        parts = parts[1:]
    return parts
