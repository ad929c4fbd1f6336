"""What the page must know of the served model to show its parameters, and no others."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from safelight import __version__
from safelight.limits import MAX_IMAGES_PER_PROMPT, MAX_LORA_SCALE, MAX_LORAS, MAX_PROMPT_CHARACTERS
from safelight.model.card import parameters_of
from safelight.model.spec import QUALITY_STEPS, ModelSpec
from safelight.server.web.page import PATH
from safelight.serving.dispatcher import Dispatcher

MODEL_PATH = f"{PATH}model.json"


def create_router(dispatcher: Dispatcher, *, is_endpoint: bool = False) -> APIRouter:
    """`/app/model.json`, behind the same key as the pictures; an endpoint's page is for making pictures alone."""
    router = APIRouter(tags=["Page"])

    @router.get(MODEL_PATH, summary="What the served model can do: each parameter with its range, default and effect")
    async def model() -> JSONResponse:
        return JSONResponse(
            _describe(dispatcher.spec) | {"is_endpoint": is_endpoint}, headers={"cache-control": "no-store"}
        )

    return router


def _describe(spec: ModelSpec) -> dict[str, object]:
    return {
        "safelight": __version__,
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "license": spec.license,
        "guidance": spec.guidance.value,
        "parameters": [asdict(each) for each in parameters_of(spec)],
        "max_pixels": spec.max_pixels,
        "max_images": MAX_IMAGES_PER_PROMPT,
        "max_prompt_characters": MAX_PROMPT_CHARACTERS,
        "qualities": {name: spec.steps_for(name) for name in QUALITY_STEPS},
        "loras": [{"name": each.name, "scale": each.scale} for each in spec.loras],
        "max_loras": MAX_LORAS,
        "max_lora_scale": MAX_LORA_SCALE,
        "examples": list(spec.examples),
    }
