"""One more backend takes a module and a line of the registry: a second one goes all the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from safelight.errors import ConfigurationError
from safelight.picture.generation import Step
from safelight.serving.backends import registry
from safelight.serving.backends.protocol import Launch, Replicas
from safelight.serving.backends.registry import find_factory
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.start import create_dispatcher
from safelight.settings import Settings
from tests.fakes import FAKE_SPEC, expected_pixels, fake_request, until
from tests.second_backend import LEARNED_NAME, ThreadReplicas

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def second_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[str, str]", registry.RUNTIMES), "threads", "tests.second_backend")


@asynccontextmanager
async def dispatched(**settings: object) -> AsyncIterator[tuple[Dispatcher, ThreadReplicas]]:
    chosen = Settings(runtime="threads", **settings)  # type: ignore[arg-type]
    made: list[Replicas] = []

    def create_replicas(launch: Launch) -> Replicas:
        made.append(find_factory(chosen)(launch))
        return made[-1]

    dispatcher = create_dispatcher(create_replicas, chosen, Path("/nowhere"), FAKE_SPEC)
    await dispatcher.start()
    try:
        await dispatcher.wait_until_ready()
        assert isinstance(made[0], ThreadReplicas)
        yield dispatcher, made[0]
    finally:
        await dispatcher.drain(1.0)


async def test_a_second_backend_makes_the_picture_and_tells_of_itself_in_its_own_words() -> None:
    request = fake_request()
    async with dispatched(replicas=2) as (dispatcher, _):
        result = await dispatcher.generate(request)
        (told,) = dispatcher.snapshot().replicas

        assert dispatcher.spec.description == LEARNED_NAME
        assert told.whereabouts == {"node": "elsewhere", "replicas": 2}
        assert dispatcher.snapshot().counters.steps_run == request.num_inference_steps
    pixels = np.asarray(Image.open(BytesIO(result.images[0].content)))
    assert np.array_equal(pixels, expected_pixels(request, request.seed))


async def test_leaving_the_stream_of_a_second_backend_drops_the_work() -> None:
    async with dispatched() as (dispatcher, _):
        async with aclosing(dispatcher.stream(fake_request(num_inference_steps=100_000, timeout_s=3600.0))) as events:
            async for event in events:
                if isinstance(event, Step):
                    break

        await until(lambda: dispatcher.snapshot().counters.steps_saved > 0)


async def test_a_replica_that_comes_later_takes_those_who_wait() -> None:
    endless = fake_request(num_inference_steps=100_000, timeout_s=3600.0)
    async with dispatched(max_concurrent_requests_per_instance=1) as (dispatcher, replicas):
        running = asyncio.create_task(dispatcher.generate(endless))
        waiting = asyncio.create_task(dispatcher.generate(fake_request(prompt="it waits")))
        await until(lambda: (dispatcher.snapshot().running, dispatcher.snapshot().queued) == (1, 1))

        replicas.scale(2)

        assert len((await waiting).images) == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_runtime_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"^runtime: 'moon' is none; give local or ray or threads$"):
        find_factory(Settings(runtime="moon"))
