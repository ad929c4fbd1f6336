"""What a picture says of itself: enough to make it again. `images` writes it into the file and reads it back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, cast

import msgspec

from safelight import __version__
from safelight.errors import InvalidRequest
from safelight.picture.generation import Generation, LoraWeight, optional_parameters

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""IPTC's vocabulary of how a picture came to be; XMP and C2PA both use it."""
PROMPTS = ("prompt", "negative_prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What computes pictures. Where it differs, equal recipes may differ in a few pixels."""

    device: str
    """As torch names it, without an index: cpu, cuda, mps."""
    dtype: str
    num_threads: int
    torch: str
    """Its version."""
    quantization: str | None = None
    """`COMPONENT KIND` of each component that is quantized, with commas; None if none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the pictures of a replica come from."""

    model: str
    """A hub id, a name of the catalogue, or the name of a folder."""
    revision: str
    """See `model_revision`."""
    backend: Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One picture's recipe, in the words of `GenerationRequest`. The order is the one in which it is shown."""

    safelight: str
    """The version that made the picture."""
    model: str
    revision: str
    prompt: str | None
    """None: withheld."""
    negative_prompt: str | None
    """None: there was none, or it is withheld."""
    withheld: tuple[str, ...] = ()
    """What was left out of the file on purpose."""
    width: int
    height: int
    num_inference_steps: int
    scheduler: str
    guidance_scale: float
    true_cfg_scale: float
    seed: Annotated[int, msgspec.Meta(ge=0)]
    """This picture's own."""
    loras: tuple[LoraWeight, ...] = ()
    strength: float | None = None
    source: str | None = None
    """SHA-256 of the RGB pixels that an edit started from, in this picture's size."""
    mask: str | None = None
    """SHA-256 of the mask, a byte for each pixel."""
    image_quality: Annotated[int, msgspec.Meta(ge=1, le=100)]
    device: str
    dtype: str
    num_threads: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    torch: str
    quantization: str | None = None

    @property
    def digital_source_type(self) -> str:
        """IPTC's word for how the picture came to be."""
        kind = "trainedAlgorithmicMedia" if self.source is None else "compositeWithTrainedAlgorithmicMedia"
        return SOURCE_TYPES + kind

    def without_prompts(self) -> Recipe:
        """The same, but for what the user wrote. An empty prompt says nothing, and stays."""
        return replace(
            self,
            prompt=None if self.prompt else self.prompt,
            negative_prompt=None if self.negative_prompt else self.negative_prompt,
            withheld=self.withheld + tuple(name for name in PROMPTS if getattr(self, name)),
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without what does not apply."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value is not None and value != ()}


def recipe_of(generation: Generation, origin: Origin) -> Recipe:
    """The recipe of the picture that a generation becomes."""
    request, source = generation.request, generation.request.source
    return Recipe(
        safelight=__version__,
        model=origin.model,
        revision=origin.revision,
        prompt=request.prompt,
        loras=request.loras,
        strength=None if source is None else source.strength,
        source=None if source is None else digest(source.pixels),
        mask=None if source is None or source.mask is None else digest(source.mask),
        image_quality=request.image_quality,
        **asdict(origin.backend),
        **cast(dict[str, Any], optional_parameters(request)) | {"seed": generation.seed},
    )


def parse_recipe(text: str) -> Recipe | None:
    """The recipe in the text of an image file; None if the text is something else.

    Raises InvalidRequest if it is a recipe that cannot be understood.
    """
    try:
        values = json.loads(text)
        json.dumps(values, ensure_ascii=False).encode()  # half of a surrogate pair can be neither shown nor painted
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or "safelight" not in values:
        return None
    try:
        return msgspec.convert({"prompt": None, "negative_prompt": None} | values, Recipe)
    except msgspec.ValidationError as error:
        version = str(values["safelight"])[:32]
        raise InvalidRequest(
            f"carries a recipe by Safelight {version} that {__version__} does not understand: {error}"
        ) from None


def digest(content: bytes) -> str:
    """As recipes name the bytes of a source or mask."""
    return hashlib.sha256(content).hexdigest()
