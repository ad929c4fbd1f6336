"""The OpenAI dialect: `/v1/images/*` and `/v1/models`, as the official clients speak them (bodies: `openai_wire`).

Also the paths of Azure's clients, `/openai/v1/*` and `/openai/deployments/{deployment}/images/*`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel

from safelight.api.dialect import Dialect, ErrorReport, JsonObject, Served, segments_of
from safelight.api.generate import generate, held_while_loading, put_off, refuse_if_full, refuse_stream_in_job
from safelight.api.http.bodies.body import read_json_object
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.api.http.entity_tags import has_already
from safelight.api.http.event_stream import EVENT_STREAM, EventStream
from safelight.api.http.links import server_url
from safelight.api.http.negotiation import negotiate
from safelight.api.http.openapi import ACCEPTED, GENERATION_ERRORS, error_responses, picture_response, request_body
from safelight.api.http.validation import validate
from safelight.api.openai.addresses import address_of, owns_path
from safelight.api.openai.edits import read_edit, upload_body
from safelight.api.openai.models import ModelList, ModelObject, ServedModel, served_model
from safelight.api.openai.wire import (
    EventKind,
    ImageBody,
    ImageEditBody,
    ImageGenerationBody,
    ImagesResponse,
    ImageVariationBody,
    event_renderer,
    render,
    to_generation_request,
)
from safelight.errors import StorageUnavailable
from safelight.picture.files import MEDIA_TYPES
from safelight.picture.generation import GenerationResult, ImageFormat
from safelight.picture.incoming.uploads import FittedImage
from safelight.picture.links import ImageStore, open_image_store
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import Settings


class ErrorObject(BaseModel):
    """All four are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """OpenAI's error."""

    error: ErrorObject


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return error_responses(ErrorEnvelope, {status: _DESCRIPTIONS[status] for status in statuses})


TITLE = "OpenAI"
ROOTS = ("/v1", "/openai/v1")
"""OpenAI's, and Azure's since its API needs no versions."""
LINKED_BY_DEFAULT = frozenset({"dall-e-2", "dall-e-3"})
"""Names whose `response_format` is `url` if none is given, as OpenAI's is for these models."""
IMAGE_LINKS = "/v1/images/files/"
"""Open to whoever has a link: the link is the key."""

_DESCRIPTIONS = {**GENERATION_ERRORS, 404: "No such model here"}

EXAMPLES: Mapping[str, Mapping[str, object]] = {
    "A prompt": {"prompt": "a red ball on green grass"},
    "Two JPEGs, with a seed": {
        "prompt": "a red ball on green grass",
        "n": 2,
        "size": "256x256",
        "output_format": "jpeg",
        "output_compression": 90,
        "seed": 7,
    },
}

_GENERATIONS: dict[str, Any] = {
    "summary": "Make pictures",
    "response_class": Response,
    "responses": {
        200: picture_response("The pictures", {"application/json": {}, EVENT_STREAM: {}}) | {"model": ImagesResponse}
    }
    | ACCEPTED
    | _errors(*_DESCRIPTIONS),
    "openapi_extra": request_body(ImageGenerationBody, EXAMPLES),
}


_EDITS = _GENERATIONS | {"summary": "Change a picture", "openapi_extra": upload_body(ImageEditBody)}
_VARIATIONS = _GENERATIONS | {
    "summary": "Make pictures like another",
    "openapi_extra": upload_body(ImageVariationBody),
}

_LINKS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "The picture", "content": {each: {} for each in MEDIA_TYPES.values()}},
        304: {"description": "`If-None-Match` names the picture's `ETag`"},
    }
    | error_responses(ErrorEnvelope, {404: "No such picture, or its link has ended"}),
}


def create_router(served: Served) -> APIRouter:
    """The routes of this dialect."""
    router = APIRouter(tags=[TITLE])
    model = served_model(served.deployment, served.dispatcher.spec)
    store = open_image_store(served.settings, served.disk)
    routes = _ImageRoutes(
        served.dispatcher, served.settings, served.deployment.request_timeout_s, model, store, served.uploads
    )
    for root in ROOTS:
        _add_image_routes(router, routes, root)
        _add_model_routes(router, model, root)
    _add_deployment_routes(router, routes)
    _add_model_routes(router, model, "/openai")

    @router.get(f"{IMAGE_LINKS}{{name}}", summary="The picture behind a link", **_LINKS)
    async def read_kept_image(request: Request, name: str, signature: str = "") -> Response:
        content, image_format = await asyncio.to_thread(store.read, name, signature)
        headers = {"cache-control": "private", "etag": f'"{name.partition(".")[0]}"'}  # what a name means never changes
        if has_already(request.headers.getlist("if-none-match"), headers["etag"]):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=MEDIA_TYPES[image_format], headers=headers)

    return router


def _add_image_routes(router: APIRouter, routes: _ImageRoutes, root: str) -> None:
    suffix = "" if root == ROOTS[0] else "_azure_v1"

    @router.post(f"{root}/images/generations", **_GENERATIONS, operation_id=f"create_image{suffix}")
    async def create_image(request: Request) -> Response:
        return await routes.create(request)

    @router.post(f"{root}/images/edits", **_EDITS, operation_id=f"edit_image{suffix}")
    async def edit_image(request: Request) -> Response:
        return await routes.edit(request, ImageEditBody)

    @router.post(f"{root}/images/variations", **_VARIATIONS, operation_id=f"vary_image{suffix}")
    async def vary_image(request: Request) -> Response:
        return await routes.edit(request, ImageVariationBody)


def _add_deployment_routes(router: APIRouter, routes: _ImageRoutes) -> None:
    @router.post(
        "/openai/deployments/{deployment}/images/generations", **_GENERATIONS, operation_id="create_image_azure"
    )
    async def create_image_of_deployment(request: Request, deployment: str) -> Response:
        return await routes.create(request, deployment)

    @router.post("/openai/deployments/{deployment}/images/edits", **_EDITS, operation_id="edit_image_azure")
    async def edit_image_of_deployment(request: Request, deployment: str) -> Response:
        return await routes.edit(request, ImageEditBody, deployment)


def _add_model_routes(router: APIRouter, model: ServedModel, root: str) -> None:
    @router.get(f"{root}/models", summary="List the models", responses=_errors(401))
    async def list_models(request: Request) -> ModelList:
        return ModelList(data=model.objects(request))

    @router.get(f"{root}/models/{{id:path}}", summary="One model", responses=_errors(401, 404))
    async def retrieve_model(request: Request, id: str) -> ModelObject:
        if not id or id != "/".join(segments_of(id)):  # a slash too many: the right address is told, and no model named
            raise HTTPException(404)
        return model.object(request, id)


@dataclass(frozen=True, slots=True)
class _ImageRoutes:
    """What the image routes have in common: read, generate, answer."""

    dispatcher: Dispatcher
    settings: Settings
    request_timeout_s: float
    model: ServedModel
    store: ImageStore
    uploads: UploadBudget

    async def create(self, request: Request, deployment: str | None = None) -> Response:
        refuse_if_full(request, self.dispatcher)
        media_type = _negotiate(request)
        max_bytes, timeout_s = self.settings.max_body_bytes, self.request_timeout_s
        content = await read_json_object(request, max_bytes=max_bytes, timeout_s=timeout_s)
        body = validate(ImageGenerationBody, content)
        wanted = deployment or body.model
        self.model.check(request, wanted)
        return await self._answer(request, body, "image_generation", media_type, wanted=wanted)

    async def edit(
        self, request: Request, body_class: type[ImageVariationBody], deployment: str | None = None
    ) -> Response:
        refuse_if_full(request, self.dispatcher)
        media_type = _negotiate(request)
        body, image = await read_edit(
            request, body_class, self.dispatcher.spec, self.settings, self.uploads, timeout_s=self.request_timeout_s
        )
        wanted = deployment or body.model
        self.model.check(request, wanted)
        return await self._answer(request, body, "image_edit", media_type, wanted=wanted, image=image)

    async def _answer(
        self,
        request: Request,
        body: ImageGenerationBody | ImageVariationBody,
        kind: EventKind,
        media_type: str,
        *,
        wanted: str | None,
        image: FittedImage | None = None,
    ) -> Response:
        spec, is_stream = self.dispatcher.spec, bool(body.stream) or media_type == EVENT_STREAM
        generation_request = to_generation_request(
            body,
            spec,
            id=request.state.generation_id,
            timeout_s=self.request_timeout_s,
            is_stream=is_stream,
            image=image,
            fits_size=self.settings.fit_sizes,
        )
        if is_stream:
            refuse_stream_in_job(request, "stream")
        server = None if is_stream else self._server_of_links(request, body, wanted)
        generation_request = await held_while_loading(request, self.dispatcher, generation_request)
        if is_stream:
            events = self.dispatcher.stream(generation_request)
            return EventStream(request, events, event_renderer(generation_request, body, spec, kind))
        if server is None:
            return render(generation_request, await generate(request, self.dispatcher, generation_request), spec)
        result = await generate(request, self.dispatcher, generation_request)
        try:
            urls = await asyncio.to_thread(self._keep, server, result, generation_request.image_format)
            return render(generation_request, result, spec, urls=urls)
        except StorageUnavailable as error:
            put_off(request, error)
            raise

    def _server_of_links(self, request: Request, body: ImageBody, wanted: str | None) -> str | None:
        """What the answer's links begin with; None if it has none. Raises InvalidRequest, before any work is done."""
        is_linked = wanted is not None and wanted.lower() in LINKED_BY_DEFAULT
        by_default = "url" if is_linked else self.settings.default_response_format
        return server_url(request, self.settings) if (body.response_format or by_default) == "url" else None

    def _keep(self, server: str, result: GenerationResult, image_format: ImageFormat) -> list[str]:
        """The links of the pictures. Raises StorageUnavailable or ImageNotKept."""
        return [f"{server}{IMAGE_LINKS}{self.store.keep(image.content, image_format)}" for image in result.images]


def _negotiate(request: Request) -> str:
    return negotiate(request.headers.getlist("accept"), ("application/json", EVENT_STREAM))


def _error_body(_path: str, report: ErrorReport) -> JsonObject:
    return {
        "error": {"message": report.message, "type": report.type, "param": report.param, "code": report.code},
    }


DIALECT = Dialect(
    name="openai",
    title=TITLE,
    create_router=create_router,
    owns_path=owns_path,
    error_body=_error_body,
    address_of=address_of,
    is_open=lambda path: path.startswith(IMAGE_LINKS),
)
