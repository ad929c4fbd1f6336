"""Fixtures that any test may use: checkpoints built on the spot, once a session. torch loads only when one is used."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.own_home import move_in, move_out

LONGEST_FIRST = ("training", "ray", "test_own_home.py", "e2e", "compat", "page")
"""Folders of this one, and files: what takes longest is begun first, so that no worker is left with it at the end."""
OWN_FOLDER = None if "PYTEST_XDIST_WORKER" in os.environ else move_in()
"""At import, before anything can read the environment. A worker of pytest-xdist is in its controller's already."""
if OWN_FOLDER is not None:
    warm.begin()


def pytest_configure() -> None:
    """A shell that runs tests in the background has them ignore Ctrl-C, and so would the commands that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One more than there are cores, as tests of processes wait for much: deadlines, disks, each other."""
    return None if config.pluginmanager.has_plugin("tests.fast") else (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files, as `--dist loadfile` hands them out; those of one folder stay as they are."""
    order = {name: index for index, name in enumerate(LONGEST_FIRST)}
    tests = Path(__file__).parent
    items.sort(key=lambda item: order.get(item.path.relative_to(tests).parts[0], len(order)))


def pytest_sessionfinish(exitstatus: int) -> None:
    """What a failed run left can be looked at."""
    if OWN_FOLDER is None:
        return
    warm.end()
    if exitstatus == pytest.ExitCode.OK:
        move_out(OWN_FOLDER)


@pytest.fixture(scope="module", autouse=True)
def _cold(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module starts that is COLD is not forked: see `tests.warm`."""
    with warm.cold() if getattr(request.module, "COLD", False) else nullcontext():
        yield


@pytest.fixture
def cold() -> Iterator[None]:
    """What a test starts that asks for this first is not forked."""
    with warm.cold():
        yield


@pytest.fixture(scope="session")
def tiny_flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random FLUX.1-schnell of half a megabyte: no embedded guidance, AutoencoderKL, 64x64."""
    return _save(tmp_path_factory, "tiny-flux")


@pytest.fixture(scope="session")
def tiny_flux_dev_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built like FLUX.1-dev: embedded guidance, and a shift that grows with the image."""
    schedule = {"shift": 3.0, "use_dynamic_shifting": True}
    return _save(tmp_path_factory, "tiny-flux-dev", guidance_embeds=True, schedule=schedule)


@pytest.fixture(scope="session")
def tiny_flux_taef_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an AutoencoderTiny of five levels, as sprite has: sizes are multiples of 32."""
    return _save(tmp_path_factory, "tiny-flux-taef", tiny_autoencoder=True, num_levels=5)


def _save(tmp_path_factory: pytest.TempPathFactory, name: str, **options: Any) -> Path:
    from tests.tiny_flux import save_tiny_flux  # noqa: PLC0415 - it imports torch

    return save_tiny_flux(tmp_path_factory.mktemp("models") / name, **options)
