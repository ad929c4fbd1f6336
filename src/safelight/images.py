"""Pixels to image bytes: PNG, JPEG and WebP, with where the picture came from written into the file.

Called in the replica's process (encoding takes milliseconds of CPU that the gateway's event loop must not spend).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from safelight import __version__
from safelight.generation import GenerationRequest, ImageFormat

MEDIA_TYPES: Mapping[ImageFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""Image format -> what an HTTP Content-Type calls it."""


def encode(
    pixels: np.ndarray,
    *,
    image_format: ImageFormat,
    image_quality: int = 95,
    png_effort: int = 6,
    text: Mapping[str, str] | None = None,
) -> bytes:
    """The image file of `pixels` (uint8, height x width x 3).

    `image_quality` (1 to 100) is for JPEG and WebP; `png_effort` (0 to 9) makes a PNG smaller. `text`
    becomes text chunks of a PNG; the others carry none yet.
    """
    assert pixels.dtype == np.uint8, pixels.dtype
    assert pixels.ndim == 3, pixels.shape
    assert pixels.shape[2] == 3, pixels.shape
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if image_format == "png":
        image.save(buffer, "PNG", compress_level=png_effort, pnginfo=_text_chunks(text or {}))
    elif image_format == "jpeg":
        image.save(buffer, "JPEG", quality=image_quality, subsampling=0)  # 4:4:4: flat colours keep their edges
    else:
        image.save(buffer, "WEBP", quality=image_quality)
    return buffer.getvalue()


def _text_chunks(text: Mapping[str, str]) -> PngInfo:
    chunks = PngInfo()
    for keyword, value in text.items():
        chunks.add_text(keyword, value)  # iTXt (UTF-8) by itself where Latin-1 is not enough
    return chunks


def provenance(request: GenerationRequest, *, seed: int, model: str) -> dict[str, str]:
    """What a picture says of itself: enough to make it again."""
    recipe = {
        "model": model,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.num_inference_steps,
        "scheduler": request.scheduler,
        "guidance_scale": request.guidance_scale,
        "true_cfg_scale": request.true_cfg_scale,
        "seed": seed,
        **({"strength": request.source.strength} if request.source is not None else {}),
    }
    return {"Software": f"safelight {__version__}", "safelight": json.dumps(recipe, ensure_ascii=False)}
