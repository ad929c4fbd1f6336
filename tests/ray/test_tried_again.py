"""Replicas that cannot be started: which of them are given up, for how long, and what comes when the cause passes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.serving.backends.ray import replica
from safelight.serving.backends.ray.cluster import RayCluster
from tests.fakes import FakeEngineOptions, fake_request, until
from tests.ray.dispatchers import gateway, starting_gateway

COLD = True
"""What runs on other nodes is not forked here: see `tests.warm`."""


class Trouble:
    """While it lasts, no replica can be started."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.options = FakeEngineOptions(raise_on_load=str(file))

    def begin(self) -> None:
        self._file.write_text("the disk is full")

    def pass_by(self) -> None:
        self._file.unlink()


@pytest.fixture
def trouble(tmp_path: Path) -> Trouble:
    return Trouble(tmp_path / "trouble")


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "FIRST_RETRY_S", 0.1)


@pytest.mark.usefixtures("_soon")
def test_what_could_not_be_started_is_failed_and_tried_again_until_it_can(nodes: RayCluster, trouble: Trouble) -> None:
    trouble.begin()

    async def wait() -> int:
        async with starting_gateway(nodes, "troubled", trouble.options) as dispatcher:
            with pytest.raises(ModelLoadError, match="ended with status"):
                await dispatcher.wait_until_ready()
            trouble.pass_by()
            await until(lambda: dispatcher.is_ready)
            return len((await dispatcher.generate(fake_request())).images)

    assert asyncio.run(wait()) == 1


@pytest.mark.usefixtures("_soon")
def test_a_model_that_can_never_be_loaded_is_not_tried_again(nodes: RayCluster) -> None:
    options = FakeEngineOptions(load_error="it is of another family", is_unsupported=True)

    def is_tried() -> bool:
        return any(task.get_name() == "line to replica 0" for task in asyncio.all_tasks())

    async def wait() -> None:
        async with starting_gateway(nodes, "hopeless", options) as dispatcher:
            await until(lambda: not is_tried())
            await dispatcher.wait_until_ready()

    with pytest.raises(UnsupportedModel, match="it is of another family"):
        asyncio.run(wait())


def test_a_model_that_left_memory_is_not_given_up_when_it_cannot_be_brought_back_at_once(
    nodes: RayCluster, trouble: Trouble
) -> None:
    async def come_back() -> set[str]:
        async with gateway(nodes, "unloaded", trouble.options) as dispatcher:
            replicas = dispatcher._replicas
            await replicas.stop()
            trouble.begin()
            await replicas.start()
            await until(lambda: isinstance(replicas.members[0].error, ModelLoadError))
            trouble.pass_by()
            states: set[str] = set()
            await until(lambda: states.add(str(replicas.members[0].state)) or dispatcher.is_ready)
            return states

    assert "failed" not in asyncio.run(come_back())
