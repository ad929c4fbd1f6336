"""The Hugging Face dialect: `{"inputs", "parameters"}` in, image bytes or a base64 string out.

What `huggingface_hub.InferenceClient`, `@huggingface/inference` and Azure ML's scoring clients speak. `inputs` is a
prompt, or for image-to-image a base64 image, which may also be the whole body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from safelight.api.dialect import Dialect, ErrorReport, JsonObject, address_behind_endpoint, segments_of
from safelight.api.generate import generate, held_while_loading, refuse_if_full, refuse_stream_in_job
from safelight.api.http.body import check_content_type, declared_bytes, read_bytes
from safelight.api.http.event_stream import EVENT_STREAM, EventStream
from safelight.api.http.negotiation import negotiate
from safelight.api.http.openapi import ACCEPTED, GENERATION_ERRORS, error_responses, picture_response, request_body
from safelight.api.http.strict_json import MAX_NAMES, parse_json_object
from safelight.api.http.upload_budget import UploadBudget
from safelight.api.http.validation import Integer, Number, WireModel, from_text, validate
from safelight.api.huggingface.answers import JSON, event_renderer, render
from safelight.api.huggingface.images import image_in, is_upload, refuse_mask
from safelight.api.loras import LoraReference, LoraReferences, named_loras
from safelight.errors import InvalidRequest, MissingParameter
from safelight.model.spec import ModelSpec
from safelight.picture.files import MEDIA_TYPES
from safelight.picture.generation import GenerationRequest, PreviewDecoder
from safelight.picture.parameters import build_generation_request
from safelight.picture.still_pictures import name_format
from safelight.picture.uploads import FittedImage, Upload, fit_upload
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import Settings

DEFAULT_PREVIEWS = 3
OFFERS: Mapping[str, tuple[str, ...]] = {
    "/": (*MEDIA_TYPES.values(), JSON, EVENT_STREAM),
    "/predict": (*MEDIA_TYPES.values(), JSON, EVENT_STREAM),
    "/score": (JSON, *MEDIA_TYPES.values(), EVENT_STREAM),
}
"""Route -> media types, favourite first: Azure's clients call /score without a preference and read JSON."""


class TargetSize(WireModel):
    """Width and height in one."""

    width: Integer
    height: Integer


class Parameters(WireModel):
    """The seven parameters of the model card, and what the container behind it takes as well."""

    guidance_scale: Number | None = Field(default=None, description="How closely the picture follows the prompt")
    negative_prompt: str | None = Field(
        default=None, description="What not to show; every step then costs twice as much"
    )
    num_inference_steps: Integer | None = Field(default=None, description="Denoising steps")
    width: Integer | None = Field(default=None, description="Pixels")
    height: Integer | None = Field(default=None, description="Pixels")
    scheduler: str | None = Field(default=None, description="A diffusers class name, or an alias such as `euler`")
    seed: Integer | None = Field(default=None, description="The same seed gives the same picture; drawn if not given")
    true_cfg_scale: Number | None = Field(default=None, description="Strength of classifier-free guidance; 1 is off")
    num_previews: Integer | None = Field(
        default=None, description="In an event stream: previews while the picture develops, 0 to 10; 3 by default"
    )
    preview_decoder: PreviewDecoder | None = Field(
        default=None, description="`projection` (small and nearly free), or `autoencoder` (full size, the real decoder)"
    )
    loras: LoraReferences | None = Field(default=None, description="Adapters of this server, and their scales")
    lora: LoraReference | None = Field(default=None, description="One adapter; the same as loras with one")
    target_size: TargetSize | None = Field(default=None, description="In place of width and height")
    num_images_per_prompt: Integer | None = Field(default=None, description="Only 1")
    max_sequence_length: Integer | None = Field(default=None, description="Tokens; the model's own length always holds")
    prompt: str | None = Field(default=None, description="What to make of the image that `inputs` then is")
    strength: Number | None = Field(
        default=None, description="Above 0, at most 1: how much of an image is made anew; 0.6 by default"
    )


class TextToImageBody(WireModel):
    """A request. `inputs` may also be an object with `prompt` and parameters."""

    inputs: str = Field(description="The prompt, or a base64 image to start from; its transparent part is painted anew")
    parameters: Parameters | None = None


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


def create_router(dispatcher: Dispatcher, settings: Settings, uploads: UploadBudget) -> APIRouter:
    """The routes of this dialect."""
    router = APIRouter(tags=["Hugging Face"])

    async def text_to_image(request: Request, offers: Sequence[str]) -> Response:
        refuse_if_full(request, dispatcher)
        media_type = negotiate(request.headers.getlist("accept"), offers)
        parsed, image = await _read(request, dispatcher.spec, settings, uploads)
        generation_request = to_generation_request(
            parsed,
            dispatcher.spec,
            id=request.state.generation_id,
            media_type=media_type,
            timeout_s=settings.request_timeout_s,
            image=image,
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


def to_generation_request(
    body: TextToImageBody,
    spec: ModelSpec,
    *,
    id: str,
    media_type: str,
    timeout_s: float,
    image: FittedImage | None = None,
    fits_size: bool = False,
) -> GenerationRequest:
    """What the body asks for. Raises InvalidRequest."""
    parameters = body.parameters or Parameters()
    width, height = _size(parameters) if image is None else (image.width, image.height)
    try:
        return build_generation_request(
            spec,
            id=id,
            prompt=body.inputs if image is None else parameters.prompt or "",
            negative_prompt=parameters.negative_prompt,
            width=width,
            height=height,
            fits_size=fits_size,
            num_inference_steps=parameters.num_inference_steps,
            scheduler=parameters.scheduler,
            guidance_scale=parameters.guidance_scale,
            true_cfg_scale=parameters.true_cfg_scale,
            seed=parameters.seed,
            image_format=next((name for name, each in MEDIA_TYPES.items() if each == media_type), "png"),
            num_previews=_num_previews(parameters) if media_type == EVENT_STREAM else 0,
            source=None if image is None else image.source,
            loras=named_loras(parameters.loras, parameters.lora),
            preview_decoder=parameters.preview_decoder or "projection",
            timeout_s=timeout_s,
            warnings=_check_fixed_parameters(parameters, spec)
            + _without_stream(parameters, media_type)
            + (_without_image(parameters) if image is None else image.warnings),
        )
    except InvalidRequest as error:
        if error.field == "prompt" and image is None:
            raise InvalidRequest(f"inputs: {error.message}", field="inputs") from None
        raise


def _error_body(path: str, report: ErrorReport) -> JsonObject:
    if (_address_of(path) or "").endswith("/score"):
        return {"error": {"code": report.code, "message": report.message}}
    return {"error": report.message}


def _address_of(path: str) -> str | None:
    return address_behind_endpoint(path, _address_here) or _address_here(path)


def _address_here(path: str) -> str | None:
    address = "/" + "/".join(segments_of(path))
    return address if address in OFFERS else None


DIALECT = Dialect(
    name="huggingface",
    owns_path=lambda path: _address_of(path) is not None,
    error_body=_error_body,
    address_of=_address_of,
)


async def _read(
    request: Request, spec: ModelSpec, settings: Settings, uploads: UploadBudget
) -> tuple[TextToImageBody, FittedImage | None]:
    """The body, and the image that it holds or is; then `inputs` is empty, and the file itself forgotten."""
    with ExitStack() as held:

        def admit_upload(start: bytes) -> bool:
            if is_upload(start):
                held.enter_context(uploads.hold(declared_bytes(request, max_bytes=settings.max_upload_bytes)))
                return True
            return False

        content = await read_bytes(
            request,
            max_bytes=settings.max_body_bytes,
            timeout_s=settings.request_timeout_s,
            max_upload_bytes=settings.max_upload_bytes,
            is_upload=admit_upload,
        )
        body, image = await _parse(request, content)
        parsed = validate(TextToImageBody, body)
        return parsed, None if image is None else await _fit(image, parsed, spec, settings, uploads)


async def _parse(request: Request, content: bytes) -> tuple[Mapping[str, object], bytes | None]:
    if name_format(content) is not None:
        return _with_query({"inputs": ""}, request), content
    if not _is_json_in_octets(request, content):
        check_content_type(request.headers.get("content-type"))
    body = _with_query(_with_inputs_unpacked(await parse_json_object(content)), request)
    refuse_mask(body)
    image = await asyncio.to_thread(image_in, body)
    return body if image is None else {**body, "inputs": ""}, image


def _is_json_in_octets(request: Request, content: bytes) -> bool:
    """What a client sends that was given the body as bytes and has no type for it."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return media_type == "application/octet-stream" and content.lstrip()[:1] == b"{"


async def _fit(
    image: bytes, body: TextToImageBody, spec: ModelSpec, settings: Settings, uploads: UploadBudget
) -> FittedImage:
    parameters = body.parameters or Parameters()
    width, height = _size(parameters)
    return await uploads.decode(
        fit_upload,
        Upload(image=image, image_field="inputs"),
        spec,
        width=width,
        height=height,
        fits_size=settings.fit_sizes,
        strength=parameters.strength,
        max_pixels=settings.max_upload_pixels,
    )


def _with_inputs_unpacked(body: Mapping[str, object]) -> Mapping[str, object]:
    """`{"inputs": {"prompt": "...", "seed": 1}}` means `{"inputs": "...", "parameters": {"seed": 1}}`."""
    inputs, parameters = body.get("inputs"), body.get("parameters") or {}
    if not isinstance(inputs, dict) or not isinstance(parameters, dict):
        return body
    if "prompt" not in inputs:
        raise MissingParameter("inputs is an object without a prompt; send inputs as a string", field="inputs")
    if twice := inputs.keys() & parameters.keys():
        name = min(twice)[:64]
        raise InvalidRequest(f"{name!r} is given in inputs and in parameters", field=name)
    rest = {name: value for name, value in inputs.items() if name != "prompt"}
    return {**body, "inputs": inputs["prompt"], "parameters": {**rest, **parameters}}


def _with_query(body: Mapping[str, object], request: Request) -> Mapping[str, object]:
    """Parameters in the URL stand in for a body without any."""
    names = list(request.query_params.keys())
    if not names:
        return body
    if body.get("parameters"):
        raise InvalidRequest("parameters are given in the URL and in the body; send one of them", field=names[0][:64])
    if len(names) > MAX_NAMES:
        raise InvalidRequest(f"the URL has {len(names)} parameters; at most {MAX_NAMES} are read")
    if len(names) != len(request.query_params.multi_items()):
        raise InvalidRequest("a parameter is given more than once in the URL")
    return {
        **body,
        "parameters": {name: from_text(Parameters, name, text) for name, text in request.query_params.items()},
    }


def _num_previews(parameters: Parameters) -> int:
    return DEFAULT_PREVIEWS if parameters.num_previews is None else parameters.num_previews


def _without_stream(parameters: Parameters, media_type: str) -> tuple[str, ...]:
    if not parameters.num_previews or media_type == EVENT_STREAM:
        return ()
    return (f"num_previews has no effect without Accept: {EVENT_STREAM}",)


def _size(parameters: Parameters) -> tuple[int | None, int | None]:
    target = parameters.target_size
    if target is None:
        return parameters.width, parameters.height
    if parameters.width not in (None, target.width) or parameters.height not in (None, target.height):
        raise InvalidRequest("target_size contradicts width or height; send one of them", field="target_size")
    return target.width, target.height


def _check_fixed_parameters(parameters: Parameters, spec: ModelSpec) -> tuple[str, ...]:
    """Warnings about parameters that the container takes and that change nothing. Raises InvalidRequest."""
    if parameters.num_images_per_prompt not in (None, 1):
        raise InvalidRequest(
            "num_images_per_prompt must be 1 here, since the answer is one picture; /v1/images/generations takes n",
            field="num_images_per_prompt",
        )
    length, warnings = parameters.max_sequence_length, []
    if length is not None and not 1 <= length <= spec.max_sequence_length:
        raise InvalidRequest(
            f"max_sequence_length must be between 1 and {spec.max_sequence_length} on {spec.name}",
            field="max_sequence_length",
        )
    if length not in (None, spec.max_sequence_length):
        warnings.append(f"max_sequence_length has no effect: {spec.name} always reads {spec.max_sequence_length}")
    return tuple(warnings)


def _without_image(parameters: Parameters) -> tuple[str, ...]:
    return () if parameters.strength is None else ("strength has no effect: inputs is no image to start from",)


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
