"""A plugin, `pytest -p tests.fast`: what runs in a minute, since it starts no process and no server, and has no torch.

Whatever in it does so all the same fails and says so, unless it is named here; so the set stays what it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LEFT_OUT = (
    "unit/engine",
    "unit/serving/backends",
    "unit/cli/test_commands.py",
    *(f"unit/model/test_{name}.py" for name in ("card", "file_sets", "hub", "single_files")),
    *(f"api/test_{name}.py" for name in ("connections", "disconnect", "full_disk", "held_while_loading", "hosts")),
    *(f"api/test_{name}.py" for name in ("image_links_s3", "job_webhooks", "jobs", "pressure", "strict_http")),
    "api/test_upload_budget.py",
)
"""Folders and files of tests. In those that are left in, PostgreSQL is left out, which SQLite stands for."""
PROCESSES = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system")
MODULES = ("torch", "transformers", "diffusers", "tests.live_server")

_is_watching = False


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if any(collection_path == TESTS / each for each in LEFT_OUT) else None


def pytest_collection() -> None:
    _watch(True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [each for each in items if "postgresql" not in each.name]


def pytest_unconfigure() -> None:
    _watch(False)


def _watch(is_watching: bool) -> None:
    global _is_watching  # noqa: PLW0603  an audit hook cannot be taken away
    _is_watching = is_watching


def _check(event: str, arguments: tuple[object, ...]) -> None:
    if not _is_watching:
        return
    if event in PROCESSES or (event == "import" and arguments[0] in MODULES):
        pytest.fail(f"not fast: {event} {arguments[0]!r}; name this test's file in {__name__}.LEFT_OUT")


sys.addaudithook(_check)
