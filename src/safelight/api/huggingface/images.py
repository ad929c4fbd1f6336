"""The image of a Hugging Face request, which is the whole body, or base64 in `inputs`: how it is told from a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping

from safelight.api.http.bodies.data_urls import from_base64, from_data_url
from safelight.errors import InvalidRequest, UnknownParameter
from safelight.picture.incoming.still_pictures import name_format

MIN_BASE64_CHARACTERS = 64
"""No image is shorter."""
_BASE64_IMAGE = "(?:iVBORw0KGgo|[/_]9j[/_]|UklGR|R0lGOD)"
"""How PNG, JPEG, WebP and GIF files begin in base64; no prompt does."""
_LETTER = "[A-Za-z0-9+/_-]"
_BASE64 = re.compile(rf"(?:{_LETTER}{{256,}}+|(?:{_LETTER}{{48,}}+[ \t\r]*\n[ \t]*+){{4,}}+{_LETTER}*+)={{0,2}}")
"""Without a break, or in long lines: no prompt is written so."""
_DRESSED = re.compile(rf"(?:b?['\"]|base64,)(?:{_BASE64_IMAGE}|{_LETTER}{{256}})")
"""As a Python program writes bytes that it took for text, and other slips."""
_DATA_URL = re.compile(r"data:(?:image/|[^\s,]{0,100};base64,)", re.IGNORECASE)
_UPLOAD = re.compile(
    rb'"inputs"\s*:\s*(?:\[\s*)?"(?:\s|\\[nrt])*(?:(?i:data:(?:image|[^\s",]{0,100};base64,))|%s|[A-Za-z0-9+/_\\-]{256})'
    % _BASE64_IMAGE.encode()
)
"""In JSON, where / may be written \\/ and a line break is \\n."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_upload(start: bytes) -> bool:
    """Whether a body that begins like this is an image, or JSON with one."""
    return name_format(start) is not None or _UPLOAD.search(start) is not None


def image_in(body: Mapping[str, object]) -> bytes | None:
    """The image that `inputs` is: beside a prompt always, else if it cannot be a prompt. None if it is one.

    Raises InvalidRequest.
    """
    inputs, prompts = body.get("inputs"), [body.get("prompt")]
    if isinstance(parameters := body.get("parameters"), dict):
        prompts.append(parameters.get("prompt"))
    if not isinstance(inputs, str):
        return None
    text = inputs.strip()
    if _DATA_URL.match(text) and len(text) >= MIN_BASE64_CHARACTERS:
        return from_data_url(text, field="inputs")
    if any(prompt is not None for prompt in prompts):
        return _image_beside_prompt(text)
    is_signed = len(text) >= MIN_BASE64_CHARACTERS and (re.match(_BASE64_IMAGE, text) or _DRESSED.match(text))
    return from_base64(text, field="inputs") if is_signed or _BASE64.fullmatch(text) else None


def _image_beside_prompt(text: str) -> bytes:
    if _URL.match(text):
        raise InvalidRequest(
            "inputs is a URL, and nothing is fetched for a client; send the image itself, in base64", field="inputs"
        )
    if text[:5].lower() == "data:":
        return from_data_url(text, field="inputs")
    try:
        return from_base64(text, field="inputs")
    except InvalidRequest:
        raise InvalidRequest(
            "inputs is no base64; beside a prompt it is an image, and without an image it is the prompt itself",
            field="inputs",
        ) from None


def refuse_mask(body: Mapping[str, object]) -> None:
    """Hugging Face's schema of image-to-image has no mask, and those who added one did not agree on where it is."""
    parameters = body.get("parameters")
    for name in ("mask_image", "mask"):
        if name in body or (isinstance(parameters, dict) and name in parameters):
            raise UnknownParameter(
                f"{name} is not read here; make what is to be painted anew transparent in the image itself, or send "
                "image and mask to /v1/images/edits",
                field=name,
            )
