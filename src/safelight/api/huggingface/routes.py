"""The Hugging Face dialect: `{"inputs", "parameters"}` in, image bytes or a base64 string out.

What `huggingface_hub.InferenceClient`, `@huggingface/inference` and Azure ML's scoring clients speak. `inputs` is a
prompt, or for image-to-image a base64 image, which may also be the whole body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from safelight.api.dialect import Dialect, ErrorReport, JsonObject, Served, address_behind_endpoint, segments_of
from safelight.api.generate import generate, held_while_loading, refuse_if_full, refuse_stream_in_job
from safelight.api.http.event_stream import EVENT_STREAM, EventStream
from safelight.api.http.negotiation import negotiate
from safelight.api.http.openapi import ACCEPTED, GENERATION_ERRORS, error_responses, picture_response, request_body
from safelight.api.huggingface.answers import JSON, event_renderer, render
from safelight.api.huggingface.bodies import read_body
from safelight.api.huggingface.readers import is_hugging_face_js, offers_to
from safelight.api.huggingface.wire import TextToImageBody, to_generation_request
from safelight.picture.files import MEDIA_TYPES

TITLE = "Hugging Face"
OFFERS: Mapping[str, tuple[str, ...]] = {
    "/": (*MEDIA_TYPES.values(), JSON, EVENT_STREAM),
    "/predict": (*MEDIA_TYPES.values(), JSON, EVENT_STREAM),
    "/score": (JSON, *MEDIA_TYPES.values(), EVENT_STREAM),
}
"""Route -> media types, favourite first: Azure's clients call /score without a preference and read JSON."""


class TextError(BaseModel):
    """An error on `/` and `/predict`."""

    error: str


class CodedMessage(BaseModel):
    """A short name of the cause, and a text for the reader."""

    code: str
    message: str


class ScoreError(BaseModel):
    """An error on `/score`, as Azure's clients read it."""

    error: CodedMessage


def create_router(served: Served) -> APIRouter:
    """The routes of this dialect."""
    router = APIRouter(tags=[TITLE])
    dispatcher, settings, timeout_s = served.dispatcher, served.settings, served.deployment.request_timeout_s

    async def text_to_image(request: Request, offers: Sequence[str]) -> Response:
        refuse_if_full(request, dispatcher)
        media_type = negotiate(request.headers.getlist("accept"), offers_to(request, offers))
        generation_request = to_generation_request(
            await read_body(request, dispatcher.spec, settings, served.uploads, timeout_s),
            dispatcher.spec,
            id=request.state.generation_id,
            media_type=media_type,
            timeout_s=timeout_s,
            fits_size=settings.fit_sizes,
        )
        if media_type == EVENT_STREAM:
            refuse_stream_in_job(request, "Accept")
        generation_request = await held_while_loading(request, dispatcher, generation_request)
        if media_type == EVENT_STREAM:
            return EventStream(request, dispatcher.stream(generation_request), event_renderer(generation_request))
        result = await generate(request, dispatcher, generation_request)
        return render(generation_request, result, media_type)

    def add_route(path: str, offers: Sequence[str]) -> None:
        @router.post(path, **_documentation(path))
        async def text_to_image_here(request: Request) -> Response:
            return await text_to_image(request, offers)

    for path, offers in OFFERS.items():
        add_route(path, offers)
    return router


def _error_body(path: str, report: ErrorReport) -> JsonObject:
    if (_address_of(path) or "").endswith("/score") and not is_hugging_face_js(report.user_agent):
        return {"error": {"code": report.code, "message": report.message}}
    return {"error": report.message}


def _address_of(path: str) -> str | None:
    return address_behind_endpoint(path, _address_here) or _address_here(path)


def _address_here(path: str) -> str | None:
    address = "/" + "/".join(segments_of(path))
    return address if address in OFFERS else None


DIALECT = Dialect(
    name="huggingface",
    title=TITLE,
    create_router=create_router,
    owns_path=lambda path: _address_of(path) is not None,
    error_body=_error_body,
    address_of=_address_of,
)


EXAMPLES: Mapping[str, Mapping[str, object]] = {
    "A prompt": {"inputs": "a red ball on green grass"},
    "Every parameter of the card": {
        "inputs": "a red ball on green grass",
        "parameters": {
            "guidance_scale": 3.0,
            "negative_prompt": "a tree",
            "num_inference_steps": 4,
            "width": 256,
            "height": 256,
            "scheduler": "FlowMatchEulerDiscreteScheduler",
            "seed": 7,
        },
    },
}

_REQUEST_BODY = request_body(TextToImageBody, EXAMPLES)


def _documentation(path: str) -> dict[str, Any]:
    content: dict[str, object] = {
        media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES.values()
    }
    content[JSON] = {"schema": {"type": "string", "description": "base64 of a PNG"}}
    content[EVENT_STREAM] = {}  # events: step, preview, completed, error
    favourite = "JSON" if OFFERS[path][0] == JSON else "image bytes"
    return {
        "operation_id": f"text_to_image_at_{path.strip('/') or 'root'}",
        "summary": f"Make a picture ({favourite} unless `Accept` says otherwise)",
        "description": "`Accept` chooses between image/png, image/jpeg, image/webp, application/json and "
        "text/event-stream.",
        "response_class": Response,
        "responses": {200: picture_response("The picture", content)}
        | ACCEPTED
        | error_responses(ScoreError if path == "/score" else TextError, GENERATION_ERRORS),
        "openapi_extra": _REQUEST_BODY,
    }
