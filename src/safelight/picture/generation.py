"""The three types that a picture passes through, and the events on its way.

`GenerationRequest` says what was asked: frozen, valid once built. `Generation` is one image in flight inside a replica.
`GenerationResult` is what came out. A field belongs to exactly one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypedDict, cast

import msgspec

from safelight.errors import InvalidRequest, SafelightError
from safelight.limits import MAX_IMAGES_PER_PROMPT, MAX_PREVIEWS, MAX_PROMPT_CHARACTERS, MAX_SEED
from safelight.telemetry.names import NO_NAMES, RequestNames

ImageFormat = Literal["png", "jpeg", "webp"]
PreviewDecoder = Literal["projection", "autoencoder"]
"""What makes a preview: one small matrix, or the model's own decoder, at the cost of a decoded picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """The picture that a generation starts from, in the request's own size, a byte for each value."""

    pixels: bytes = field(repr=False)
    """Height x width x 3 (RGB)."""
    strength: float
    """How much of the way from noise to image is walked again: 1 is all of it, and little is left of the picture."""
    mask: bytes | None = field(default=None, repr=False)
    """Height x width: painted anew where it is 128 or more, kept elsewhere. None: everything is painted anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraWeight:
    """An adapter that a picture is made with, and how strong it is."""

    name: str
    scale: float
    """-4 to 4; 1 is as strong as it was trained."""
    revision: str = ""
    """See `model_spec.LoraFile`."""


class OptionalParameters(TypedDict, total=False):
    """What of a picture may be left out, which None does too: from here to both dialects, the command line, recipes
    and replay, which know it by these names.
    """

    negative_prompt: str | None
    width: int | None
    height: int | None
    num_inference_steps: int | None
    scheduler: str | None
    guidance_scale: float | None
    true_cfg_scale: float | None
    seed: int | None


def optional_parameters(of: object) -> OptionalParameters:
    """Those of a body, a recipe or a request in force."""
    return cast(OptionalParameters, {name: getattr(of, name) for name in OptionalParameters.__annotations__})


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What was asked, complete: every default is already filled in (see `parameters.build_generation_request`)."""

    id: str
    prompt: str
    negative_prompt: str | None
    """None unless classifier-free guidance runs; then the prompt of the second row (may be empty)."""
    width: int
    height: int
    num_inference_steps: int
    scheduler: str
    """A diffusers class name."""
    guidance_scale: float
    """Fed to the transformer where guidance is embedded; otherwise not used."""
    true_cfg_scale: float
    """Strength of classifier-free guidance; 1.0 means off."""
    seed: int
    num_images_per_prompt: int = 1
    image_format: ImageFormat = "png"
    image_quality: int = 95
    """1 to 100, for JPEG and WebP."""
    source: SourceImage | None = None
    """None: the picture starts from nothing but noise."""
    loras: tuple[LoraWeight, ...] = ()
    """By name, in alphabetical order."""
    num_previews: int = 0
    """Of each image, while it develops; fewer come if it has fewer steps."""
    preview_decoder: PreviewDecoder = "projection"
    tells_steps: bool = True
    """Whether anybody wants to hear of each step."""
    is_streamed: bool = False
    """Whether each image is sent as soon as it is there, before the others are."""
    timeout_s: float = 180.0
    warnings: tuple[str, ...] = ()
    """What was asked and has no effect, or was changed."""
    names: RequestNames = NO_NAMES
    """What logs and traces call it; no picture depends on it."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise InvalidRequest(
                f"seed must be between 0 and {MAX_SEED}, not {self.seed}; -1, null or no seed draws one", field="seed"
            )
        if not 1 <= self.num_images_per_prompt <= MAX_IMAGES_PER_PROMPT:
            raise InvalidRequest(
                f"the number of images must be between 1 and {MAX_IMAGES_PER_PROMPT}, not {self.num_images_per_prompt}",
                field="num_images_per_prompt",
            )
        if len(self.prompt) > MAX_PROMPT_CHARACTERS:
            raise InvalidRequest(
                f"prompt has {len(self.prompt)} characters; at most {MAX_PROMPT_CHARACTERS} are read", field="prompt"
            )
        for name in ("prompt", "negative_prompt"):
            if not _is_unicode(getattr(self, name) or ""):
                raise InvalidRequest(
                    f"{name} is no text: it has bytes that are not UTF-8, or half of a surrogate pair", field=name
                )
        for name in ("guidance_scale", "true_cfg_scale"):
            if not math.isfinite(getattr(self, name)):
                raise InvalidRequest(f"{name} must be a finite number", field=name)
        if not 0 <= self.num_previews <= MAX_PREVIEWS:
            raise InvalidRequest(
                f"the number of previews must be between 0 and {MAX_PREVIEWS}, not {self.num_previews}",
                field="num_previews",
            )
        if self.source is not None:
            self._check_source(self.source)

    @property
    def is_guided(self) -> bool:
        """Whether classifier-free guidance runs: two rows in the batch, twice the cost."""
        return self.true_cfg_scale > 1 and self.negative_prompt is not None

    def _check_source(self, source: SourceImage) -> None:
        if not 0 < source.strength <= 1:
            raise InvalidRequest(
                f"strength must be above 0 and at most 1, not {source.strength:g}; 1 keeps least of the image",
                field="strength",
            )
        num_pixels = self.width * self.height
        assert len(source.pixels) == num_pixels * 3, "the dialect fits the image to the request"
        assert source.mask is None or len(source.mask) == num_pixels, "the dialect fits the mask to the request"


def _is_unicode(text: str) -> bool:
    """Whether it can be written at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(slots=True, eq=False, kw_only=True)
class Generation:
    """One image in flight: where it stands. Its tensors stay with the engine."""

    request: GenerationRequest
    image_index: int
    arrived_at: float
    """Seconds on the monotonic clock of the replica."""
    step_index: int = 0
    num_steps: int = 0
    """Transformer calls this image needs; set by `Engine.start` (Heun takes two a step)."""
    batch_key: tuple[int, ...] = ()
    """Generations with equal keys share a forward pass; set by `Engine.start`."""
    warnings: list[str] = field(default_factory=list)
    error: SafelightError | None = None
    """Set by the engine when this row alone failed; the rest of the batch goes on."""
    num_text_tokens: int = 0
    num_previews_made: int = 0
    encode_s: float = 0.0
    denoise_s: float = 0.0
    started_at: float = 0.0

    @property
    def seed(self) -> int:
        return self.request.seed + self.image_index

    @property
    def num_rows(self) -> int:
        return 2 if self.request.is_guided else 1

    @property
    def is_denoised(self) -> bool:
        return self.step_index >= self.num_steps > 0

    @property
    def is_preview_due(self) -> bool:
        """Whether the step that was just taken is one to show: k previews divide the steps into k + 1 equal parts."""
        num_previews = self.request.num_previews
        shown = {round(i * self.num_steps / (num_previews + 1)) for i in range(1, num_previews + 1)}
        return 0 < self.step_index < self.num_steps and self.step_index in shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds spent in each stage. For several images of one request: the sum, but `queue_s` and `total_s`."""

    queue_s: float = 0.0
    encode_s: float = 0.0
    denoise_s: float = 0.0
    decode_s: float = 0.0
    image_encode_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedImage:
    """One encoded picture and the seed that makes it again."""

    content: bytes
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """What came out: encoded images in order, and what the client should know."""

    images: tuple[GeneratedImage, ...]
    warnings: tuple[str, ...]
    """Those of the request, and those that came up since; each thing once."""
    timings: Timings
    num_text_tokens: int = 0
    is_repeated: bool = False
    """Made for an earlier request that was identical, and kept."""


class Queued(msgspec.Struct, frozen=True, tag=True):
    """Accepted, waiting for a replica."""

    position: int = 0
    """In the line, as it moves: 1 is the next. 0: it has just come. Told of streams only."""


class Step(msgspec.Struct, frozen=True, tag=True):
    """One denoising step of one image is done."""

    image_index: int
    index: int
    of: int


class Preview(msgspec.Struct, frozen=True, tag=True):
    """The image as the model expects it to become, encoded; `index` counts the previews of this image from 0."""

    image_index: int
    index: int
    content: bytes


class ImageCompleted(msgspec.Struct, frozen=True, tag=True):
    """One of the several images of a streamed request; `Completed` follows with all of them."""

    image_index: int
    image: GeneratedImage
    warnings: tuple[str, ...]
    num_text_tokens: int


class Stage(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A stage of one image is over; told of requests that are traced, and to nobody but their trace."""

    name: str
    """One of `counters.StageName`."""
    image_index: int
    began_s: float
    """Since the request arrived."""
    seconds: float
    step: int = 0
    """Of a step: which one, from 1."""
    num_rows: int = 0
    """Of a step: those of its batch."""
    host: str
    pid: int
    """Which process of which machine did it."""


class Completed(msgspec.Struct, frozen=True, tag=True):
    """The last event of a generation that worked."""

    result: GenerationResult


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The last event of a generation that did not."""

    error: SafelightError


Event = Queued | Step | Preview | ImageCompleted | Stage | Completed | Failed
"""The same from the loop of a replica to the dialect that tells a client."""
