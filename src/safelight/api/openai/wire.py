"""What OpenAI's clients send and read: the schemas of the image routes, and the way to a request and from a result."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from safelight.api.http.event_stream import RenderEvent, frame
from safelight.api.http.headers import parameters_in_force, picture_headers
from safelight.api.http.validation import Integer, Number, WireModel
from safelight.api.loras import named_loras
from safelight.api.parameters import PictureParameters
from safelight.errors import InvalidRequest
from safelight.model.spec import QUALITY_STEPS, ModelSpec, Quality
from safelight.picture.generation import (
    Completed,
    Event,
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ImageCompleted,
    ImageFormat,
    Preview,
    Queued,
    Step,
    optional_parameters,
)
from safelight.picture.incoming.uploads import FittedImage
from safelight.picture.parameters import build_generation_request

MAX_PARTIAL_IMAGES = 3
MAX_IMAGES = 16
"""As OpenAI's clients may send, though no model here starts from more than one."""
EventKind = Literal["image_generation", "image_edit"]

_QUALITY_NAMES: Mapping[str, Quality] = {name: name for name in QUALITY_STEPS} | {"standard": "medium", "hd": "high"}
_REASONS = {
    "style": "say it in the prompt",
    "moderation": "nothing is filtered",
    "complexity": "nothing is planned before the picture is made",
    "input_fidelity": "strength says how much of the picture is kept",
}


class _OpenAIFields(WireModel):
    model: str | None = Field(default=None, description="The served model's name or hub id; may be left out")
    n: Integer | None = Field(default=None, description="Pictures, 1 to 10; picture i has seed + i")
    size: str | None = Field(default=None, description="`auto`, or WIDTHxHEIGHT such as `256x256`")
    response_format: Literal["b64_json", "url"] | None = Field(
        default=None, description="`b64_json` by default; a `url` leads to the picture for 60 minutes"
    )
    output_format: Literal["png", "jpeg", "webp"] | None = Field(default=None, description="png by default")
    output_compression: Integer | None = Field(
        default=None, description="Quality of JPEG and WebP, 0 to 100; 100 by default"
    )
    background: Literal["auto", "opaque", "transparent"] | None = Field(default=None, description="Pictures are opaque")
    quality: Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None,
        description="Denoising steps: medium (auto, standard) is the model's default number, low half of it, high (hd) "
        "twice, xhigh three times and max four times as many",
    )
    user: str | None = Field(default=None, description="No effect")
    safety_identifier: str | None = Field(default=None, description="No effect")
    stream: bool | None = Field(default=None, description="Answer with server-sent events")
    partial_images: Integer | None = Field(default=None, description="With stream: previews of each picture, 0 to 3")
    step_events: bool | None = Field(default=None, description="With stream: an event for each denoising step, too")
    queue_events: bool | None = Field(default=None, description="With stream: an event for each move in the queue, too")


class ImageBody(PictureParameters, _OpenAIFields):
    """What every image route takes: OpenAI's fields, then Safelight's (`extra_body` puts them at the top level)."""

    width: Integer | None = Field(default=None, description="Pixels; in place of size")
    height: Integer | None = Field(default=None, description="Pixels; in place of size")


class ImageGenerationBody(ImageBody):
    """A picture from a prompt."""

    prompt: str = Field(description="What the picture should show")
    style: Literal["vivid", "natural"] | None = Field(default=None, description="No effect")
    moderation: Literal["auto", "low"] | None = Field(default=None, description="No effect")
    complexity: Literal["low", "medium", "high"] | None = Field(default=None, description="No effect")


class ImageReference(WireModel):
    """An image in a JSON body."""

    image_url: str = Field(description="`data:image/png;base64,...`")


class ImageVariationBody(ImageBody):
    """A picture like another. As multipart/form-data the image is a file."""

    prompt: str | None = Field(default=None, description="What to change; may be left out")
    images: list[ImageReference] | None = Field(
        default=None, max_length=MAX_IMAGES, description="One image, as far as models read them"
    )
    strength: Number | None = Field(
        default=None,
        description="Above 0, at most 1: how much of the picture is made anew; 0.6 by default, 1 with a mask",
    )


class ImageEditBody(ImageVariationBody):
    """A picture from another and a prompt. As multipart/form-data the images and the mask are files."""

    prompt: str = Field(description="What the picture should show")
    mask: ImageReference | None = Field(default=None, description="Transparent where the picture is painted anew")
    input_fidelity: Literal["high", "low"] | None = Field(default=None, description="No effect; strength has one")
    complexity: Literal["low", "medium", "high"] | None = Field(default=None, description="No effect")


class GeneratedImageObject(BaseModel):
    """One picture, or the link to it."""

    b64_json: str | None = None
    url: str | None = None
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
    quality: Quality
    size: str
    usage: Usage
    warnings: list[str]
    parameters: dict[str, Any]


def to_generation_request(
    body: ImageGenerationBody | ImageVariationBody,
    spec: ModelSpec,
    *,
    id: str,
    timeout_s: float,
    is_stream: bool = False,
    image: FittedImage | None = None,
    fits_size: bool = False,
) -> GenerationRequest:
    """What the body asks for. Raises InvalidRequest with the field's name on the wire."""
    _check_what_is_served(body)
    width, height = size_of(body, spec) if image is None else (image.width, image.height)
    image_format = body.output_format or "png"
    try:
        return build_generation_request(
            spec,
            id=id,
            prompt=body.prompt or "",
            fits_size=fits_size,
            num_images_per_prompt=1 if body.n is None else body.n,
            image_format=image_format,
            image_quality=_image_quality(body),
            source=None if image is None else image.source,
            loras=named_loras(body.loras, body.lora),
            num_previews=(body.partial_images or 0) if is_stream else 0,
            preview_decoder=body.preview_decoder or "projection",
            is_streamed=is_stream,
            timeout_s=timeout_s,
            warnings=(*_without_effect(body, image_format, is_stream=is_stream), *(image.warnings if image else ())),
            **optional_parameters(body) | {"width": width, "height": height, "num_inference_steps": _steps(body, spec)},
        )
    except InvalidRequest as error:
        raise on_the_wire(error, body) from None


def on_the_wire(error: InvalidRequest, body: ImageBody) -> InvalidRequest:
    """The error with the name that the field has here."""
    if error.field in ("width", "height") and body.width is None and body.height is None:
        error.field = "size"
    elif error.field == "num_images_per_prompt":
        error.field = "n"
    return error


def render(
    request: GenerationRequest, result: GenerationResult, spec: ModelSpec, *, urls: Sequence[str] | None = None
) -> Response:
    """OpenAI's JSON; with `urls` instead of the pictures."""
    body = ImagesResponse(
        created=int(time.time()),
        data=[
            GeneratedImageObject(url=urls[index], seed=image.seed)
            if urls is not None
            else GeneratedImageObject(b64_json=_base64(image.content), seed=image.seed)
            for index, image in enumerate(result.images)
        ],
        output_format=request.image_format,
        quality=_quality(request, spec),
        size=_size_name(request),
        usage=_usage(request, spec, num_images=len(result.images), num_text_tokens=result.num_text_tokens),
        warnings=list(result.warnings),
        parameters=_parameters(request, spec),
    )
    response = Response(body.model_dump_json(exclude_none=True), media_type="application/json")
    for name, value in picture_headers(request, result):
        response.headers.append(name, value)
    return response


def event_renderer(request: GenerationRequest, body: ImageBody, spec: ModelSpec, kind: EventKind) -> RenderEvent:
    """The frames of a stream: partial pictures, pictures as soon as they are there, what else the body asks for."""
    common = {
        "created_at": int(time.time()),
        "size": _size_name(request),
        "quality": _quality(request, spec),
        "background": "opaque",
        "output_format": request.image_format,
    }
    told: set[int] = set()

    def render_image(
        index: int, image: GeneratedImage, warnings: Sequence[str], num_text_tokens: int
    ) -> Iterator[bytes]:
        """Once: a request that is run again makes the same pictures. The input is counted with the first one told."""
        if index in told:
            return
        usage = _usage(request, spec, num_images=1, num_text_tokens=num_text_tokens, has_input=not told)
        told.add(index)
        yield _typed_frame(
            f"{kind}.completed",
            b64_json=_base64(image.content),
            image_index=index,
            seed=image.seed,
            usage=usage.model_dump(),
            warnings=list(warnings),
            parameters=_parameters(request, spec),
            **common,
        )

    def render_event(event: Event) -> Iterator[bytes]:
        match event:
            case Preview() if event.image_index not in told:
                yield _typed_frame(
                    f"{kind}.partial_image",
                    b64_json=_base64(event.content),
                    partial_image_index=event.index,
                    image_index=event.image_index,
                    seed=request.seed + event.image_index,
                    **common,
                )
            case Queued(position=position) if body.queue_events and position > 0:
                yield _typed_frame(f"{kind}.queued", position=position)
            case Step() if body.step_events:
                yield _typed_frame(
                    f"{kind}.step", image_index=event.image_index, step_index=event.index, num_steps=event.of
                )
            case ImageCompleted():
                yield from render_image(event.image_index, event.image, event.warnings, event.num_text_tokens)
            case Completed(result=result):
                for index, image in enumerate(result.images):
                    yield from render_image(index, image, result.warnings, result.num_text_tokens)

    return render_event


def _typed_frame(kind: str, **data: object) -> bytes:
    return frame({"type": kind, **data}, event=kind)


def _check_what_is_served(body: ImageBody) -> None:
    if body.partial_images is not None and not 0 <= body.partial_images <= MAX_PARTIAL_IMAGES:
        raise InvalidRequest(
            f"partial_images must be between 0 and {MAX_PARTIAL_IMAGES}, not {body.partial_images}",
            field="partial_images",
        )
    if body.background == "transparent":
        raise InvalidRequest(
            "background must be 'opaque' or 'auto': pictures have no alpha channel", field="background"
        )


def size_of(body: ImageBody, spec: ModelSpec) -> tuple[int | None, int | None]:
    """Width and height; None where the body leaves them to the model."""
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


def _steps(body: ImageBody, spec: ModelSpec) -> int | None:
    if body.num_inference_steps is not None or body.quality in (None, "auto"):
        return body.num_inference_steps
    return spec.steps_for(_QUALITY_NAMES[body.quality])


def _image_quality(body: ImageBody) -> int:
    compression = 100 if body.output_compression is None else body.output_compression
    if not 0 <= compression <= 100:
        raise InvalidRequest(
            f"output_compression must be between 0 and 100, not {compression}", field="output_compression"
        )
    return max(compression, 1)


def _without_effect(body: ImageBody, image_format: ImageFormat, *, is_stream: bool) -> Sequence[str]:
    warnings = [
        f"{name} has no effect: {reason}" for name, reason in _REASONS.items() if getattr(body, name, None) is not None
    ]
    if body.quality not in (None, "auto") and body.num_inference_steps is not None:
        warnings.append("quality has no effect next to num_inference_steps")
    if body.user is not None or body.safety_identifier is not None:
        warnings.append("user and safety_identifier have no effect: nothing is recorded about end users")
    if is_stream and body.response_format == "url":
        warnings.append("response_format url has no effect: a stream has its pictures as b64_json")
    if not is_stream:
        given = (name for name in ("partial_images", "step_events", "queue_events") if getattr(body, name))
        warnings += [f"{name} have no effect without stream: true" for name in given]
    if image_format == "png" and body.output_compression not in (None, 100):
        warnings.append("output_compression has no effect on png, which loses nothing")
    return warnings


def _usage(
    request: GenerationRequest, spec: ModelSpec, *, num_images: int, num_text_tokens: int, has_input: bool = True
) -> Usage:
    """What so many images took; with the input once in a stream, so that its events add up to the truth."""
    patches = (request.width // spec.size_multiple) * (request.height // spec.size_multiple)
    text_tokens = num_text_tokens if has_input else 0
    source_tokens = patches if has_input and request.source is not None else 0
    image_tokens = patches * num_images
    return Usage(
        total_tokens=text_tokens + source_tokens + image_tokens,
        input_tokens=text_tokens + source_tokens,
        output_tokens=image_tokens,
        input_tokens_details=InputTokensDetails(text_tokens=text_tokens, image_tokens=source_tokens),
        output_tokens_details=OutputTokensDetails(image_tokens=image_tokens),
    )


def _quality(request: GenerationRequest, spec: ModelSpec) -> Quality:
    """The greatest quality that has no more steps than the picture."""
    reached = [name for name in QUALITY_STEPS if spec.steps_for(name) <= request.num_inference_steps]
    return reached[-1] if reached else "low"


def _parameters(request: GenerationRequest, spec: ModelSpec) -> dict[str, Any]:
    negative_prompt = request.negative_prompt if request.is_guided else None
    return {"model": spec.name, **parameters_in_force(request), "negative_prompt": negative_prompt}


def _size_name(request: GenerationRequest) -> str:
    return f"{request.width}x{request.height}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
