"""What the pictures of a replica carry: the recipe, with prompts or without, and a signature where one is set."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import c2pa
import pytest

from safelight.errors import ConfigurationError
from safelight.picture.content_credentials import verify
from safelight.picture.files import MEDIA_TYPES, decode
from safelight.picture.generation import GenerationRequest, ImageFormat, Preview
from safelight.picture.recipe import Recipe
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.start import create_dispatcher
from safelight.settings import Settings
from tests.fakes import FAKE_SPEC, expected_pixels, fake_replicas, fake_request
from tests.signing import write_signing_files

FORMATS: tuple[ImageFormat, ...] = ("png", "jpeg", "webp")

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def dispatcher_for(folder: Path, **settings: Any) -> AsyncIterator[Dispatcher]:
    dispatcher = create_dispatcher(fake_replicas(), Settings(**settings), folder, FAKE_SPEC)
    await dispatcher.start()
    try:
        await dispatcher.wait_until_ready()
        yield dispatcher
    finally:
        await dispatcher.stop()


def asked_for(prompt: str = "a fox", **changes: Any) -> GenerationRequest:
    return replace(fake_request(prompt), seed=7, **changes)


async def test_each_picture_carries_its_own_recipe(tmp_path: Path) -> None:
    request = asked_for(num_images_per_prompt=2, negative_prompt="grass", true_cfg_scale=2.0, num_inference_steps=3)
    async with dispatcher_for(tmp_path) as dispatcher:
        result = await dispatcher.generate(request)

    first, second = (decode(image.content).recipe for image in result.images)
    assert first is not None
    assert second == replace(first, seed=8)
    assert (first.prompt, first.negative_prompt, first.seed, first.withheld) == ("a fox", "grass", 7, ())
    assert (first.width, first.height, first.num_inference_steps) == (request.width, request.height, 3)
    assert (first.model, first.device, first.dtype) == ("fake", "cpu", "float32")


async def test_the_revision_changes_with_the_models_files(tmp_path: Path) -> None:
    revisions = set()
    for content in ("a", "b"):
        (tmp_path / content / "transformer").mkdir(parents=True)
        (tmp_path / content / "transformer" / "config.json").write_text(content)
        async with dispatcher_for(tmp_path / content) as dispatcher:
            result = await dispatcher.generate(asked_for())
        revisions.add(recipe_in(result.images[0].content).revision)

    assert len(revisions) == 2


@pytest.mark.parametrize("image_format", FORMATS)
async def test_private_prompts_are_in_no_picture_and_no_preview(tmp_path: Path, image_format: ImageFormat) -> None:
    request = asked_for(
        "a secret fox",
        negative_prompt="secret grass",
        true_cfg_scale=2.0,
        num_inference_steps=40,
        image_format=image_format,
        num_previews=2,
    )
    async with dispatcher_for(tmp_path, private_prompts=True) as dispatcher:
        pictures = [event.content async for event in dispatcher.stream(request) if isinstance(event, Preview)]
        pictures.append((await dispatcher.generate(request)).images[0].content)

    assert len(pictures) >= 2
    assert not any(b"secret" in content for content in pictures)
    assert recipe_in(pictures[-1]).withheld == ("prompt", "negative_prompt")


@pytest.mark.parametrize("image_format", FORMATS)
async def test_a_signed_picture_is_read_by_c2pas_own_verifier(tmp_path: Path, image_format: ImageFormat) -> None:
    files = write_signing_files(tmp_path / "signing")
    request = asked_for(image_format=image_format)
    async with dispatcher_for(tmp_path, **files.settings) as dispatcher:
        content = (await dispatcher.generate(request)).images[0].content

    trust = {"trust": {"trust_anchors": files.root.read_text()}}
    reader = c2pa.Reader(MEDIA_TYPES[image_format], io.BytesIO(content), context=c2pa.Context.from_dict(trust))
    assert reader.get_validation_state() == "Trusted"
    manifest = json.loads(reader.json())["manifests"][json.loads(reader.json())["active_manifest"]]
    assertions = {each["label"]: each["data"] for each in manifest["assertions"]}
    (action,) = assertions["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert manifest["claim_generator_info"][0]["name"] == "Safelight"
    assert assertions["safelight.picture.recipe"] == recipe_in(content).as_dict()
    if image_format == "png":
        assert (decode(content).pixels == expected_pixels(request, 7)).all()


async def test_signed_pictures_with_private_prompts_have_none_in_their_manifest(tmp_path: Path) -> None:
    files = write_signing_files(tmp_path / "signing")
    async with dispatcher_for(tmp_path, private_prompts=True, **files.settings) as dispatcher:
        content = (await dispatcher.generate(asked_for("a secret fox"))).images[0].content

    assert b"secret" not in content
    assert verify(content).state == "valid"


async def test_unsigned_is_the_default(tmp_path: Path) -> None:
    async with dispatcher_for(tmp_path) as dispatcher:
        content = (await dispatcher.generate(asked_for())).images[0].content

    assert verify(content).state == "none"


def test_a_certificate_that_cannot_sign_starts_no_replica(tmp_path: Path) -> None:
    files = write_signing_files(tmp_path, starts_in_days=-9, ends_in_days=-2)

    with pytest.raises(ConfigurationError, match="expired on"):
        create_dispatcher(fake_replicas(), Settings(**files.settings), tmp_path, FAKE_SPEC)  # type: ignore[arg-type]


def recipe_in(content: bytes) -> Recipe:
    recipe = decode(content).recipe
    assert recipe is not None
    return recipe
