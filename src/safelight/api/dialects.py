"""The dialects that are spoken: one line each."""

from __future__ import annotations

from safelight.api import jobs as jobs_routes
from safelight.api.azure import routes as azure
from safelight.api.dialect import AnyDialect, Dialect, Served
from safelight.api.huggingface import routes as huggingface
from safelight.api.openai import routes as openai

PICTURES: tuple[Dialect[Served], ...] = (openai.DIALECT, huggingface.DIALECT)
"""Those that ask for pictures. The last one words the errors of paths that belong to none."""
CONTROL_PLANE: Dialect[azure.Workspace] = azure.DIALECT
JOBS: Dialect[jobs_routes.KeptJobs] = jobs_routes.DIALECT


def all_dialects() -> tuple[AnyDialect, ...]:
    """In the order in which they are asked whose a path is."""
    return (CONTROL_PLANE, JOBS, *PICTURES)


def is_for_pictures(method: str, path: str) -> bool:
    """Whether it asks for pictures, and not for what there is."""
    return method == "POST" and any(each.owns_path(path) for each in PICTURES)


def is_open(path: str) -> bool:
    """Whether a path of a model may be read without its key."""
    return any(each.is_open(path) for each in PICTURES)


def titles() -> str:
    """Of those that ask for pictures, in words."""
    *others, last = sorted(each.title for each in PICTURES)
    return f"{', '.join(others)} and {last}"
