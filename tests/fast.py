"""A plugin, `pytest -p tests.fast`: what runs in a minute, since it starts no process and no server, and has no torch.

Whatever in it does so all the same fails and says so, unless it is named here; so the set stays what it is. Left out
too are requests that are drawn at random: a quarter of all the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LEFT_OUT = (
    *("unit/engine", "unit/test_benchmark_rows.py"),
    "unit/serving/backends",
    *(f"unit/serving/test_{name}.py" for name in ("dispatcher", "provenance", "result_cache", "start")),
    *(f"unit/server/endpoints/test_{name}.py" for name in ("starter", "wiring")),
    *("unit/control/test_kill.py", "unit/cli/test_commands.py", "unit/cli/test_status.py"),
    *(f"unit/cli/models/test_{name}.py" for name in ("model_plan", "plan_of_files")),
    *(f"unit/model/test_{name}.py" for name in ("card", "file_sets", "hub", "single_files")),
    *(f"api/test_{name}.py" for name in ("azure_changes", "azure_replicas", "connections", "disconnect", "full_disk")),
    *(f"api/test_{name}.py" for name in ("held_while_loading", "hosts", "image_links_s3", "job_webhooks", "jobs")),
    *(f"api/test_{name}.py" for name in ("logs", "pressure", "properties", "status", "strict_http", "traces")),
    *(f"api/test_{name}.py" for name in ("unload_when_idle", "upload_budget")),
)
"""Folders and files of tests. In those that are left in, PostgreSQL is left out, which SQLite stands for."""
PROCESSES = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system")
MODULES = ("torch", "transformers", "diffusers", "tests.live_server")

_is_watching = False
_started: list[str] = []


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if any(collection_path == TESTS / each for each in LEFT_OUT) else None


def pytest_collection() -> None:
    assert all((TESTS / each).exists() for each in LEFT_OUT)
    _watch(True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [each for each in items if "postgresql" not in f"{each.name} {getattr(each, 'fixturenames', '')}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Also of what was raised where nobody looks, such as in a task of a server."""
    yield
    if _started:
        what = ", ".join(_started)
        _started.clear()
        pytest.fail(f"{what} makes this slow; name the file in LEFT_OUT of {__name__}", pytrace=False)


def pytest_unconfigure() -> None:
    _watch(False)


def _watch(is_watching: bool) -> None:
    global _is_watching  # noqa: PLW0603  an audit hook cannot be taken away
    _is_watching = is_watching


def _check(event: str, arguments: tuple[object, ...]) -> None:
    if _is_watching and (event in PROCESSES or (event == "import" and arguments[0] in MODULES)):
        _started.append(f"{event} {arguments[0]!r}")
        raise RuntimeError(f"in the fast tests there is no {event} {arguments[0]!r}")


sys.addaudithook(_check)
