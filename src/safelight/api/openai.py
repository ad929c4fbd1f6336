"""The OpenAI dialect: `/v1/images/generations` and `/v1/models`, as the official clients speak them.

Also the path of the AzureOpenAI client, `/openai/deployments/{model}/images/generations`.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from safelight.api.body import read_json_object
from safelight.api.dialect import Dialect, ErrorReport, JsonObject
from safelight.api.disconnect import while_connected
from safelight.api.headers import parameters_in_force, picture_headers, warnings_of
from safelight.api.negotiation import negotiate
from safelight.api.openapi import GENERATION_ERRORS, error_responses, picture_response, request_body
from safelight.api.validation import Integer, Number, WireModel, validate
from safelight.errors import InvalidRequest, ModelNotFound
from safelight.generation import GenerationRequest, GenerationResult, ImageFormat
from safelight.model_spec import ModelSpec
from safelight.parameters import build_generation_request
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import Settings


class ImageGenerationBody(WireModel):
    """OpenAI's fields, then Safelight's (`extra_body` of the official clients puts them at the top level)."""

    prompt: str = Field(description="What the picture should show")
    model: str | None = Field(default=None, description="The served model's name or hub id; may be left out")
    n: Integer | None = Field(default=None, description="Pictures, 1 to 10; picture i has seed + i")
    size: str | None = Field(default=None, description="`auto`, or WIDTHxHEIGHT such as `256x256`")
    response_format: Literal["b64_json", "url"] | None = Field(default=None, description="Only `b64_json` so far")
    output_format: Literal["png", "jpeg", "webp"] | None = Field(default=None, description="png by default")
    output_compression: Integer | None = Field(
        default=None, description="Quality of JPEG and WebP, 0 to 100; 100 by default"
    )
    background: Literal["auto", "opaque", "transparent"] | None = Field(default=None, description="Pictures are opaque")
    quality: Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description="No effect; num_inference_steps has one"
    )
    style: Literal["vivid", "natural"] | None = Field(default=None, description="No effect")
    moderation: Literal["auto", "low"] | None = Field(default=None, description="No effect")
    complexity: Literal["low", "medium", "high"] | None = Field(default=None, description="No effect")
    user: str | None = Field(default=None, description="No effect")
    safety_identifier: str | None = Field(default=None, description="No effect")
    stream: bool | None = Field(default=None, description="Only false so far")
    partial_images: Integer | None = Field(default=None, description="Only 0 so far")
    seed: Integer | None = Field(default=None, description="The same seed gives the same picture; drawn if not given")
    num_inference_steps: Integer | None = Field(default=None, description="Denoising steps")
    guidance_scale: Number | None = Field(default=None, description="How closely the picture follows the prompt")
    true_cfg_scale: Number | None = Field(default=None, description="Strength of classifier-free guidance; 1 is off")
    negative_prompt: str | None = Field(
        default=None, description="What not to show; every step then costs twice as much"
    )
    scheduler: str | None = Field(default=None, description="A diffusers class name, or an alias such as `euler`")
    width: Integer | None = Field(default=None, description="Pixels; in place of size")
    height: Integer | None = Field(default=None, description="Pixels; in place of size")


class GeneratedImageObject(BaseModel):
    """One picture."""

    b64_json: str
    seed: int


class InputTokensDetails(BaseModel):
    """What the input tokens are."""

    text_tokens: int
    image_tokens: int = 0


class OutputTokensDetails(BaseModel):
    """What the output tokens are: the patches of the latent that the transformer denoises."""

    image_tokens: int
    text_tokens: int = 0


class Usage(BaseModel):
    """True counts."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens_details: OutputTokensDetails


class ImagesResponse(BaseModel):
    """OpenAI's response; `seed`, `warnings` and `parameters` are Safelight's."""

    created: int
    data: list[GeneratedImageObject]
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat
    quality: Literal["high"] = "high"
    size: str
    usage: Usage
    warnings: list[str]
    parameters: dict[str, Any]


class ModelObject(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class ErrorObject(BaseModel):
    """All four are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """OpenAI's error."""

    error: ErrorObject


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The names that the served model answers to."""

    name: str
    hub_id: str | None
    created: int

    @property
    def id(self) -> str:
        return self.hub_id or self.name

    def check(self, wanted: str | None) -> None:
        """Raises ModelNotFound unless `wanted` is one of the names, or none is wanted."""
        names = [self.name, *([self.hub_id] if self.hub_id else [])]
        if wanted and _catalogue_name(wanted) not in map(_catalogue_name, names):
            raise ModelNotFound(
                f"The model `{wanted[:128]}` does not exist here; this server has: {', '.join(names)}", field="model"
            )

    def as_object(self) -> ModelObject:
        return ModelObject(
            id=self.id, created=self.created, owned_by=self.hub_id.split("/")[0] if self.hub_id else "safelight"
        )


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return error_responses(ErrorEnvelope, {status: _DESCRIPTIONS[status] for status in statuses})


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
    "responses": {200: picture_response("The pictures", {"application/json": {}}) | {"model": ImagesResponse}}
    | _errors(*_DESCRIPTIONS),
    "openapi_extra": request_body(ImageGenerationBody, EXAMPLES),
}


def create_router(dispatcher: Dispatcher, settings: Settings) -> APIRouter:
    """The routes of this dialect."""
    router = APIRouter(tags=["OpenAI"])
    model = ServedModel(dispatcher.spec.name, _hub_id(settings.model), int(time.time()))

    async def create_image(request: Request, deployment: str | None = None) -> Response:
        negotiate(request.headers.get("accept", ""), ("application/json",))
        content = await read_json_object(
            request, max_bytes=settings.max_body_bytes, timeout_s=settings.request_timeout_s
        )
        body = validate(ImageGenerationBody, content)
        model.check(deployment or body.model)
        generation_request = to_generation_request(
            body, dispatcher.spec, id=request.state.generation_id, timeout_s=settings.request_timeout_s
        )
        result = await while_connected(request, dispatcher.generate(generation_request))
        return render(result, dispatcher.spec)

    @router.post("/v1/images/generations", **_GENERATIONS, operation_id="create_image")
    async def create_image_of_model(request: Request) -> Response:
        return await create_image(request)

    @router.post(
        "/openai/deployments/{deployment}/images/generations", **_GENERATIONS, operation_id="create_image_azure"
    )
    async def create_image_of_deployment(request: Request, deployment: str) -> Response:
        return await create_image(request, deployment)

    @router.get("/v1/models", summary="List the models", responses=_errors(401))
    async def list_models() -> ModelList:
        return ModelList(data=[model.as_object()])

    @router.get("/v1/models/{id:path}", summary="One model", responses=_errors(401, 404))
    async def retrieve_model(id: str) -> ModelObject:
        model.check(id or "(empty)")
        return model.as_object()

    return router


def to_generation_request(
    body: ImageGenerationBody, spec: ModelSpec, *, id: str, timeout_s: float
) -> GenerationRequest:
    """What the body asks for. Raises InvalidRequest with the field's name on the wire."""
    _refuse_what_is_to_come(body)
    width, height = _size(body, spec)
    image_format = body.output_format or "png"
    try:
        return build_generation_request(
            spec,
            id=id,
            prompt=body.prompt,
            negative_prompt=body.negative_prompt,
            width=width,
            height=height,
            num_inference_steps=body.num_inference_steps,
            scheduler=body.scheduler,
            guidance_scale=body.guidance_scale,
            true_cfg_scale=body.true_cfg_scale,
            seed=body.seed,
            num_images_per_prompt=1 if body.n is None else body.n,
            image_format=image_format,
            image_quality=_image_quality(body),
            timeout_s=timeout_s,
            warnings=tuple(_without_effect(body, image_format)),
        )
    except InvalidRequest as error:
        if error.field in ("width", "height") and body.width is None and body.height is None:
            error.field = "size"
        elif error.field == "num_images_per_prompt":
            error.field = "n"
        raise


def render(result: GenerationResult, spec: ModelSpec) -> Response:
    """OpenAI's JSON."""
    request = result.request
    negative_prompt = request.negative_prompt if request.is_guided else None
    body = ImagesResponse(
        created=int(time.time()),
        data=[
            GeneratedImageObject(b64_json=base64.b64encode(image.content).decode("ascii"), seed=image.seed)
            for image in result.images
        ],
        output_format=request.image_format,
        size=f"{request.width}x{request.height}",
        usage=_usage(result, spec),
        warnings=warnings_of(result),
        parameters={"model": spec.name, **parameters_in_force(request), "negative_prompt": negative_prompt},
    )
    response = Response(body.model_dump_json(), media_type="application/json")
    for name, value in picture_headers(result):
        response.headers.append(name, value)
    return response


def _error_body(_path: str, report: ErrorReport) -> JsonObject:
    return {
        "error": {"message": report.message, "type": report.type, "param": report.param, "code": report.code},
    }


DIALECT = Dialect(
    name="openai",
    owns_path=lambda path: path == "/v1" or path.startswith(("/v1/", "/openai/")),
    error_body=_error_body,
)


def _refuse_what_is_to_come(body: ImageGenerationBody) -> None:
    if body.stream:
        raise InvalidRequest("stream is not served yet; send false, or leave it out", field="stream")
    if body.partial_images:
        raise InvalidRequest("partial_images must be 0: streaming is not served yet", field="partial_images")
    if body.response_format == "url":
        raise InvalidRequest("response_format 'url' is not served yet; use 'b64_json'", field="response_format")
    if body.background == "transparent":
        raise InvalidRequest(
            "background must be 'opaque' or 'auto': pictures have no alpha channel", field="background"
        )


def _size(body: ImageGenerationBody, spec: ModelSpec) -> tuple[int | None, int | None]:
    if body.size in (None, "auto"):
        return body.width, body.height
    assert body.size is not None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", body.size)
    if not match:
        raise InvalidRequest(
            f"size must be 'auto' or WIDTHxHEIGHT, such as '{spec.default_width}x{spec.default_height}', "
            f"not {body.size[:32]!r}",
            field="size",
        )
    width, height = int(match[1]), int(match[2])
    if body.width not in (None, width) or body.height not in (None, height):
        raise InvalidRequest("size contradicts width or height; send one of them", field="size")
    return width, height


def _image_quality(body: ImageGenerationBody) -> int:
    compression = 100 if body.output_compression is None else body.output_compression
    if not 0 <= compression <= 100:
        raise InvalidRequest(
            f"output_compression must be between 0 and 100, not {compression}", field="output_compression"
        )
    return max(compression, 1)


def _without_effect(body: ImageGenerationBody, image_format: ImageFormat) -> Sequence[str]:
    warnings = []
    if body.quality not in (None, "auto"):
        warnings.append("quality has no effect: num_inference_steps decides how long a picture is worked on")
    if body.style is not None:
        warnings.append("style has no effect: say it in the prompt")
    if body.moderation is not None:
        warnings.append("moderation has no effect: nothing is filtered")
    if body.complexity is not None:
        warnings.append("complexity has no effect: nothing is planned before the picture is made")
    if body.user is not None or body.safety_identifier is not None:
        warnings.append("user and safety_identifier have no effect: nothing is recorded about end users")
    if image_format == "png" and body.output_compression not in (None, 100):
        warnings.append("output_compression has no effect on png, which loses nothing")
    return warnings


def _usage(result: GenerationResult, spec: ModelSpec) -> Usage:
    request = result.request
    patches = (request.width // spec.size_multiple) * (request.height // spec.size_multiple)
    image_tokens, text_tokens = patches * len(result.images), result.num_text_tokens
    return Usage(
        total_tokens=image_tokens + text_tokens,
        input_tokens=text_tokens,
        output_tokens=image_tokens,
        input_tokens_details=InputTokensDetails(text_tokens=text_tokens),
        output_tokens_details=OutputTokensDetails(image_tokens=image_tokens),
    )


def _hub_id(model: str) -> str | None:
    return model if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model) else None


def _catalogue_name(model: str) -> str:
    """Azure's registry name of a hub id: `black-forest-labs/FLUX.1-schnell` is `black-forest-labs-flux.1-schnell`."""
    return model.replace("/", "-").replace("_", "-").lower()
