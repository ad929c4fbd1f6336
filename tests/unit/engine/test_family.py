"""One more family takes a layout, a module and a line of the registry: a second one goes all the way, in a replica."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from safelight.errors import UnsupportedModel
from safelight.model.checkpoint import read_model_spec
from safelight.model.families import registry
from safelight.model.spec import LoraFile, ModelSpec
from safelight.picture.generation import Completed, GenerationRequest, Preview, Step
from safelight.picture.parameters import build_generation_request
from safelight.serving.backends.local import LocalReplicas
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.start import create_dispatcher
from safelight.settings import Settings
from tests.fakes import until
from tests.second_family.family import save_plain
from tests.second_family.layout import PLAIN

pytestmark = pytest.mark.anyio
COMMAND = (sys.executable, "-m", "tests.second_family.replica")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_plain(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def spec(folder: Path) -> ModelSpec:
    """With an adapter that requests may name."""
    file = folder.parent / "film.safetensors"
    save_file({"query.down": torch.ones(2, 32), "query.up": torch.ones(32, 2)}, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "LAYOUTS", (*registry.LAYOUTS, PLAIN))
        return replace(read_model_spec(folder), loras=(LoraFile(name="film", file=str(file)),))


@pytest.fixture(scope="module")
async def dispatcher(folder: Path, spec: ModelSpec) -> AsyncIterator[Dispatcher]:
    settings = Settings(device="cpu", dtype="float32", num_threads=1)
    dispatcher = create_dispatcher(partial(LocalReplicas, command=COMMAND), settings, folder, spec)
    await dispatcher.start()
    await dispatcher.wait_until_ready()
    yield dispatcher
    await dispatcher.stop()


def request(spec: ModelSpec, **parameters: object) -> GenerationRequest:
    given = {"id": "r", "prompt": "a red cat", "seed": 7, "image_format": "png"} | parameters
    return build_generation_request(spec, **given)  # type: ignore[arg-type]


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))


async def paint(dispatcher: Dispatcher, **parameters: object) -> np.ndarray:
    result = await dispatcher.generate(request(dispatcher.spec, **parameters))
    return pixels(result.images[0].content)


async def test_a_second_family_makes_pictures_that_its_parameters_change(dispatcher: Dispatcher) -> None:
    picture = await paint(dispatcher, width=48, height=32)

    assert picture.shape == (32, 48, 3)
    assert picture.std() > 0
    assert np.array_equal(picture, await paint(dispatcher, width=48, height=32))
    for changed in ({"seed": 8}, {"prompt": "a blue dog"}, {"loras": [("film", 1.0)]}, {"scheduler": "heun"}):
        assert not np.array_equal(picture, await paint(dispatcher, width=48, height=32, **changed)), changed


async def test_its_pictures_share_steps_and_each_is_the_one_it_would_be_alone(dispatcher: Dispatcher) -> None:
    asked = [{"seed": 1, "num_inference_steps": 300}, {"seed": 2, "num_inference_steps": 200, "negative_prompt": "dog"}]
    alone = [await paint(dispatcher, **each) for each in asked]
    shared_before = dispatcher.snapshot().counters.batch_sizes.get(3, 0)

    together = await asyncio.gather(*(paint(dispatcher, **each) for each in asked))

    assert dispatcher.snapshot().counters.batch_sizes.get(3, 0) > shared_before
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


async def test_it_shows_previews(dispatcher: Dispatcher) -> None:
    events = [event async for event in dispatcher.stream(request(dispatcher.spec, num_previews=2))]

    previews = [pixels(event.content) for event in events if isinstance(event, Preview)]
    assert len(previews) == 2
    assert all(preview.shape == (8, 8, 3) for preview in previews)
    assert isinstance(events[-1], Completed)


async def test_its_work_stops_when_nobody_waits_for_it(dispatcher: Dispatcher) -> None:
    async with aclosing(dispatcher.stream(request(dispatcher.spec, num_inference_steps=1000))) as events:
        async for event in events:
            if isinstance(event, Step):
                break

    await until(lambda: dispatcher.snapshot().counters.steps_saved > 0)


async def test_what_its_encoder_does_not_read_is_said(dispatcher: Dispatcher) -> None:
    result = await dispatcher.generate(request(dispatcher.spec, prompt="a very long story about a red cat"))

    assert "prompt is cut at 24 tokens" in result.warnings


def test_an_unknown_pipeline_is_refused_with_all_families_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedModel, match=r"holds a PlainPipeline, which Safelight does not serve; .* FluxPipe"):
        read_model_spec(folder)
    monkeypatch.setattr(registry, "LAYOUTS", (*registry.LAYOUTS, PLAIN))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "OtherPipeline"}))

    with pytest.raises(UnsupportedModel, match=r"FluxInpaintPipeline and Plain checkpoints .*: PlainPipeline"):
        read_model_spec(tmp_path)
