"""A request that is identical in every parameter and seed is answered from what was made before, if that is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safelight.api.http.headers import picture_headers
from safelight.picture.generation import (
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    LoraWeight,
    SourceImage,
    Timings,
)
from safelight.serving.result_cache import HELD_BYTES, ResultCache
from safelight.telemetry.names import RequestNames
from tests.fakes import FakeDeployment, fake_request, running_dispatcher

REQUEST = fake_request()
SOURCE = SourceImage(pixels=bytes(64 * 64 * 3), strength=0.5)
pytestmark = pytest.mark.anyio
OTHERS = [
    replace(REQUEST, seed=8),
    replace(REQUEST, prompt="a red square "),
    replace(REQUEST, negative_prompt=""),
    replace(REQUEST, num_inference_steps=5),
    replace(REQUEST, num_images_per_prompt=2),
    replace(REQUEST, image_format="webp"),
    replace(REQUEST, image_quality=94),
    replace(REQUEST, source=SOURCE),
    replace(REQUEST, source=replace(SOURCE, strength=0.6)),
    replace(REQUEST, source=replace(SOURCE, pixels=b"\1" + SOURCE.pixels[1:])),
    replace(REQUEST, source=replace(SOURCE, mask=bytes(64 * 64))),
    replace(REQUEST, loras=(LoraWeight(name="film", scale=1.0),)),
    replace(REQUEST, warnings=("width 60 became 64",)),
]


async def test_an_identical_request_is_answered_with_the_same_bytes_and_says_so() -> None:
    async with running_dispatcher(FakeDeployment(result_cache_bytes=1_000_000)) as dispatcher:
        first = await dispatcher.generate(REQUEST)
        steps = dispatcher.snapshot().counters.steps_run

        second = await dispatcher.generate(replace(REQUEST, id="another", timeout_s=5.0, names=RequestNames("another")))

    assert second.images == first.images
    assert dispatcher.snapshot().counters.steps_run == steps
    assert ("cache-status", "safelight; hit") in picture_headers(REQUEST, second)
    assert "cache-status" not in dict(picture_headers(REQUEST, first))


@pytest.mark.parametrize("other", OTHERS)
async def test_a_request_that_differs_in_anything_is_made_anew(other: GenerationRequest) -> None:
    async with running_dispatcher(FakeDeployment(result_cache_bytes=10_000_000)) as dispatcher:
        await dispatcher.generate(REQUEST)

        assert not (await dispatcher.generate(other)).is_repeated


async def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    async with running_dispatcher() as dispatcher:
        await dispatcher.generate(REQUEST)

        assert not (await dispatcher.generate(REQUEST)).is_repeated


async def test_what_is_kept_is_bounded_by_bytes_and_the_oldest_goes_first() -> None:
    async with running_dispatcher(FakeDeployment()) as dispatcher:
        num_bytes = len((await dispatcher.generate(REQUEST)).images[0].content) + 2 * HELD_BYTES
    async with running_dispatcher(FakeDeployment(result_cache_bytes=num_bytes * 5 // 2)) as dispatcher:
        for seed in (1, 2, 3):
            await dispatcher.generate(replace(REQUEST, seed=seed))

        repeated = [(await dispatcher.generate(replace(REQUEST, seed=seed))).is_repeated for seed in (3, 2, 1)]

    assert repeated == [True, True, False]


@pytest.mark.parametrize("warnings", [(), ("x" * 400,) * 16])
def test_pictures_of_next_to_nothing_take_no_more_room_than_they_are_given(warnings: tuple[str, ...]) -> None:
    cache = ResultCache(100_000)
    result = GenerationResult(images=(GeneratedImage(content=b"tiny", seed=1),), warnings=warnings, timings=Timings())

    for seed in range(1_000):
        cache.keep(replace(REQUEST, seed=seed), result)

    kept = sum(cache.find(replace(REQUEST, seed=seed)) is not None for seed in range(1_000))
    assert 0 < kept * (1_000 + sum(map(len, warnings))) <= 100_000
