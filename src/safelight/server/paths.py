"""Where an endpoint stands in a path."""

from __future__ import annotations

PATH_PREFIX = "/endpoints/"


def inner_path(path: str) -> str:
    """A path without the endpoint in front of it: what its dialect is told by."""
    if not path.startswith(PATH_PREFIX):
        return path
    return "/" + path.removeprefix(PATH_PREFIX).partition("/")[2]
