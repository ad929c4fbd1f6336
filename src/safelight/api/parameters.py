"""What both dialects let a client say of a picture, beside its prompt and what is their own."""

from __future__ import annotations

from pydantic import Field

from safelight.api.http.validation import Integer, Number, WireModel
from safelight.api.loras import LoraReference, LoraReferences
from safelight.picture.generation import PreviewDecoder


class PictureParameters(WireModel):
    """Named as `build_generation_request` names them."""

    guidance_scale: Number | None = Field(default=None, description="How closely the picture follows the prompt")
    negative_prompt: str | None = Field(
        default=None, description="What not to show; every step then costs twice as much"
    )
    num_inference_steps: Integer | None = Field(default=None, description="Denoising steps")
    width: Integer | None = Field(default=None, description="Pixels")
    height: Integer | None = Field(default=None, description="Pixels")
    scheduler: str | None = Field(default=None, description="A diffusers class name, or an alias such as `euler`")
    seed: Integer | None = Field(
        default=None, description="The same seed gives the same picture; drawn if it is not given, or -1"
    )
    true_cfg_scale: Number | None = Field(default=None, description="Strength of classifier-free guidance; 1 is off")
    preview_decoder: PreviewDecoder | None = Field(
        default=None, description="`projection` (small and nearly free), or `autoencoder` (full size, the real decoder)"
    )
    loras: LoraReferences | None = Field(default=None, description="Adapters of this server, and their scales")
    lora: LoraReference | None = Field(default=None, description="One adapter; the same as loras with one")
