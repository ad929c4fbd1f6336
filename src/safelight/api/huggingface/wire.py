"""What Hugging Face's clients send: the schemas, and the way to a request."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from safelight.api.http.event_stream import EVENT_STREAM
from safelight.api.http.validation import Integer, Number, WireModel
from safelight.api.loras import named_loras
from safelight.api.parameters import PictureParameters
from safelight.errors import InvalidRequest
from safelight.model.spec import ModelSpec
from safelight.picture.files import MEDIA_TYPES
from safelight.picture.generation import GenerationRequest, optional_parameters
from safelight.picture.incoming.uploads import FittedImage
from safelight.picture.parameters import build_generation_request

DEFAULT_PREVIEWS = 3


class TargetSize(WireModel):
    """Width and height in one."""

    width: Integer
    height: Integer


class Parameters(PictureParameters):
    """The seven parameters of the model card, and what the container behind it takes as well."""

    num_previews: Integer | None = Field(
        default=None, description="In an event stream: previews while the picture develops, 0 to 10; 3 by default"
    )
    target_size: TargetSize | None = Field(default=None, description="In place of width and height")
    num_images_per_prompt: Integer | None = Field(default=None, description="Only 1")
    max_sequence_length: Integer | None = Field(default=None, description="Tokens; the model's own length always holds")
    prompt: str | None = Field(
        default=None, description="What to make of the image that `inputs` then is; in place of `inputs` the prompt"
    )
    strength: Number | None = Field(
        default=None, description="Above 0, at most 1: how much of an image is made anew; 0.6 by default"
    )


class Options(WireModel):
    """What the hub's own service was told of a request."""

    wait_for_model: bool | None = Field(default=None, description="No effect")
    use_cache: bool | None = Field(default=None, description="No effect")
    use_gpu: bool | None = Field(default=None, description="No effect")
    dont_load_model: bool | None = Field(default=None, description="No effect")
    retry_on_error: bool | None = Field(default=None, description="No effect")


class _Places(WireModel):
    inputs: str = Field(description="The prompt, or a base64 image to start from; its transparent part is painted anew")
    options: Options | None = None
    parameters: Parameters | None = Field(default=None, description="Any of the following; they may also stand here")


class TextToImageBody(Parameters, _Places):
    """A request. `inputs` may also be an object with `prompt` and parameters, or a list of one prompt."""

    def all_parameters(self) -> Parameters:
        """Wherever they stand. Raises InvalidRequest if one has two values."""
        inner = self.parameters or Parameters()
        values = {}
        for name in Parameters.model_fields:
            here, there = getattr(self, name), getattr(inner, name)
            if here is not None and there is not None and here != there:
                raise given_twice(name)
            values[name] = there if here is None else here
        return Parameters.model_construct(**values)


def given_twice(name: str) -> InvalidRequest:
    """The error of a parameter that stands in two places."""
    return InvalidRequest(f"{name[:64]!r} is given twice, with different values; send one of them", field=name[:64])


@dataclass(frozen=True, slots=True, kw_only=True)
class TextToImage:
    """What a request says, wherever it says it."""

    inputs: str
    """The prompt, unless there is an image."""
    parameters: Parameters
    options: Options | None = None
    image: FittedImage | None = None


def to_generation_request(
    asked: TextToImage, spec: ModelSpec, *, id: str, media_type: str, timeout_s: float, fits_size: bool = False
) -> GenerationRequest:
    """What was asked for. Raises InvalidRequest."""
    parameters, image = asked.parameters, asked.image
    width, height = size_of(parameters) if image is None else (image.width, image.height)
    try:
        return build_generation_request(
            spec,
            id=id,
            prompt=asked.inputs if image is None else parameters.prompt or "",
            fits_size=fits_size,
            image_format=next((name for name, each in MEDIA_TYPES.items() if each == media_type), "png"),
            num_previews=_num_previews(parameters) if media_type == EVENT_STREAM else 0,
            source=None if image is None else image.source,
            loras=named_loras(parameters.loras, parameters.lora),
            preview_decoder=parameters.preview_decoder or "projection",
            timeout_s=timeout_s,
            warnings=_check_fixed_parameters(parameters, spec)
            + _of_options(asked.options)
            + _without_stream(parameters, media_type)
            + (_without_image(parameters) if image is None else image.warnings),
            **optional_parameters(parameters) | {"width": width, "height": height},
        )
    except InvalidRequest as error:
        if error.field == "prompt" and image is None:
            raise InvalidRequest(f"inputs: {error.message}", field="inputs") from None
        raise


def _num_previews(parameters: Parameters) -> int:
    return DEFAULT_PREVIEWS if parameters.num_previews is None else parameters.num_previews


def _without_stream(parameters: Parameters, media_type: str) -> tuple[str, ...]:
    if not parameters.num_previews or media_type == EVENT_STREAM:
        return ()
    return (f"num_previews has no effect without Accept: {EVENT_STREAM}",)


def size_of(parameters: Parameters) -> tuple[int | None, int | None]:
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


def _of_options(options: Options | None) -> tuple[str, ...]:
    given = [name for name in Options.model_fields if getattr(options, name, None) is not None]
    if not given:
        return ()
    return (f"options have no effect here: {', '.join(given)}; every picture is made anew, by a model that is loaded",)


def _without_image(parameters: Parameters) -> tuple[str, ...]:
    return () if parameters.strength is None else ("strength has no effect: inputs is no image to start from",)
