"""What every picture's response says about itself in headers: the seed, the parameters in force, and each warning."""

from __future__ import annotations

import json
import re

from safelight.picture.generation import GenerationRequest, GenerationResult, optional_parameters
from safelight.picture.recipe import PROMPTS

MAX_WARNINGS = 16
MAX_WARNING_CHARACTERS = 400


def parameters_in_force(request: GenerationRequest) -> dict[str, object]:
    """What the picture was made with; with the prompts and the model, enough to make it again."""
    return {
        **{name: value for name, value in optional_parameters(request).items() if name not in PROMPTS},
        **({"loras": [{"name": each.name, "scale": each.scale} for each in request.loras]} if request.loras else {}),
        **({"strength": request.source.strength} if request.source is not None else {}),
    }


def picture_headers(request: GenerationRequest, result: GenerationResult) -> list[tuple[str, str]]:
    """Header fields for a response with pictures: a list, since every warning is a field of its own."""
    return [
        ("x-safelight-seed", str(result.images[0].seed)),
        ("x-safelight-parameters", json.dumps(parameters_in_force(request), separators=(",", ":"))),
        *([("cache-status", "safelight; hit")] if result.is_repeated else []),  # RFC 9211
        *(("x-safelight-warning", header_safe(warning)) for warning in result.warnings[:MAX_WARNINGS]),
    ]


def header_safe(text: str) -> str:
    """`text` as a header value: printable ASCII, on one line, of bounded length."""
    ascii_text = text.encode("ascii", "backslashreplace").decode("ascii")
    one_line = re.sub(r"[^!-~]+", " ", ascii_text).strip()
    return one_line if len(one_line) <= MAX_WARNING_CHARACTERS else one_line[: MAX_WARNING_CHARACTERS - 3] + "..."
