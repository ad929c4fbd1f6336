"""The bodies of Hugging Face's requests as they come, and the one request that each of them is.

A prompt is `inputs`, `prompt`, or in an object with its parameters; alone, or in a list of one. Parameters are in
`parameters`, beside the prompt, or in the URL. An image is in `inputs`, or the whole body.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping
from contextlib import ExitStack

from fastapi import Request

from safelight.api.http.bodies.body import check_content_type, declared_bytes, read_bytes
from safelight.api.http.bodies.strict_json import MAX_NAMES, in_thread_if_long, parse_json_object
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.api.http.validation import from_text, validate
from safelight.api.huggingface.images import image_in, is_upload, refuse_mask
from safelight.api.huggingface.wire import Parameters, TextToImage, TextToImageBody, given_twice, size_of
from safelight.errors import InvalidRequest, MissingParameter
from safelight.model.spec import ModelSpec
from safelight.picture.incoming.still_pictures import name_format
from safelight.picture.incoming.uploads import FittedImage, Upload, fit_upload
from safelight.settings import Settings

Body = Mapping[str, object]
_PROMPTS = ("inputs", "prompt", "negative_prompt")


async def read_body(
    request: Request, spec: ModelSpec, settings: Settings, uploads: UploadBudget, timeout_s: float
) -> TextToImage:
    """What the body asks for, with the image in the size that it asks for; the file itself is forgotten."""
    with ExitStack() as held:

        def admit_upload(start: bytes) -> bool:
            if is_upload(start):
                held.enter_context(uploads.hold(declared_bytes(request, max_bytes=settings.max_upload_bytes)))
                return True
            return False

        content = await read_bytes(
            request,
            max_bytes=settings.max_body_bytes,
            timeout_s=timeout_s,
            max_upload_bytes=settings.max_upload_bytes,
            is_upload=admit_upload,
        )
        fields, image = await _parse(request, content)
        body = validate(TextToImageBody, fields)
        parameters = body.all_parameters()
        fitted = None if image is None else await _fit(image, parameters, spec, settings, uploads)
        return TextToImage(inputs=body.inputs, parameters=parameters, options=body.options, image=fitted)


async def _parse(request: Request, content: bytes) -> tuple[Body, bytes | None]:
    """The fields, and the image that the body holds or is; then `inputs` is empty."""
    if name_format(content) is not None:
        return _with_query({"inputs": ""}, request), content
    if not _is_json_in_octets(request, content):
        check_content_type(request.headers.get("content-type"))
    body = _with_prompt_as_inputs(_with_inputs_unpacked(await parse_json_object(content)))
    body = _with_prompt_as_inputs(_with_query(body, request))
    refuse_mask(body)
    image = await in_thread_if_long(len(content), image_in, body)
    return body if image is None else {**body, "inputs": ""}, image


def _is_json_in_octets(request: Request, content: bytes) -> bool:
    """What a client sends that was given the body as bytes and has no type for it."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return media_type == "application/octet-stream" and content.removeprefix(BOM_UTF8).lstrip()[:1] == b"{"


async def _fit(
    image: bytes, parameters: Parameters, spec: ModelSpec, settings: Settings, uploads: UploadBudget
) -> FittedImage:
    width, height = size_of(parameters)
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


def _with_inputs_unpacked(body: Body) -> Body:
    """`{"inputs": [{"prompt": ["..."], "seed": 1}]}` means `{"inputs": "...", "seed": 1}`."""
    body = _without_lists(body)
    if isinstance(parameters := body.get("parameters"), dict):
        body = {**body, "parameters": _without_lists(parameters)}
    inputs = body.get("inputs")
    if not isinstance(inputs, dict):
        return body
    inner = _without_lists(inputs)
    if "prompt" not in inner:
        raise MissingParameter("inputs is an object without a prompt; send inputs as a string", field="inputs")
    rest = {name: value for name, value in inner.items() if name != "prompt"}
    for name in rest.keys() & body.keys():
        if rest[name] != body[name]:
            raise given_twice(name)
    return {**body, **rest, "inputs": inner["prompt"]}


def _without_lists(fields: Body) -> Body:
    """With the prompt itself where there is a list of one."""
    return {name: _only(name, value) if name in _PROMPTS else value for name, value in fields.items()}


def _only(name: str, value: object) -> object:
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise InvalidRequest(
            f"{name} is a list of {len(value)}; a request makes one picture of one prompt here: send one for each",
            field=name,
        )
    return value[0]


def _with_prompt_as_inputs(body: Body) -> Body:
    """`prompt` is what to make of an image, or says itself what `inputs` says."""
    parameters = body.get("parameters")
    inner = parameters if isinstance(parameters, dict) else {}
    prompts = [each["prompt"] for each in (body, inner) if each.get("prompt") is not None]
    if not prompts or not isinstance(prompts[0], str):
        return body
    inputs = prompts[0] if body.get("inputs") is None else body["inputs"]
    if any(prompt != inputs for prompt in prompts):
        if body.get("inputs") is None:
            raise given_twice("prompt")
        return body
    body = {**body, "inputs": inputs, "prompt": None}
    return {**body, "parameters": {**inner, "prompt": None}} if inner else body


def _with_query(body: Mapping[str, object], request: Request) -> Mapping[str, object]:
    """Parameters in the URL stand in for a body without any."""
    names = list(request.query_params.keys())
    if not names:
        return body
    if body.get("parameters") or any(body.get(name) is not None for name in Parameters.model_fields):
        raise InvalidRequest("parameters are given in the URL and in the body; send one of them", field=names[0][:64])
    if len(names) > MAX_NAMES:
        raise InvalidRequest(f"the URL has {len(names)} parameters; at most {MAX_NAMES} are read")
    if len(names) != len(request.query_params.multi_items()):
        raise InvalidRequest("a parameter is given more than once in the URL")
    return {
        **body,
        "parameters": {name: from_text(Parameters, name, text) for name, text in request.query_params.items()},
    }
