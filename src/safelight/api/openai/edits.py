"""The bodies of OpenAI's edits and variations: a form with files, as its clients send it, or data URLs in JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from safelight.api.http.bodies.body import FORM, Form, declared_bytes, is_form, read_form, read_json_object
from safelight.api.http.bodies.data_urls import from_data_url
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.api.http.openapi import json_schema
from safelight.api.http.validation import MAX_FIELD_CHARACTERS, from_text, unknown, validate
from safelight.api.openai.wire import ImageEditBody, ImageVariationBody, on_the_wire, size_of
from safelight.errors import InvalidRequest, MissingParameter, UnknownParameter, WrongType
from safelight.model.spec import ModelSpec
from safelight.picture.incoming.uploads import FittedImage, Upload, fit_upload
from safelight.settings import Settings

_FILE = {"type": "string", "format": "binary"}


@dataclass(frozen=True, slots=True)
class _EditContent:
    """A body with its files apart from its fields."""

    fields: Mapping[str, object]
    upload: Upload


async def read_edit(
    request: Request,
    body_class: type[ImageVariationBody],
    spec: ModelSpec,
    settings: Settings,
    uploads: UploadBudget,
    *,
    timeout_s: float,
) -> tuple[ImageVariationBody, FittedImage]:
    """The body, and its image in the size that it asks for; the files themselves are forgotten.

    Raises InvalidRequest with the field's name on the wire, BodyTooLarge, DeadlineExceeded, Overloaded or HTTPException
    415.
    """
    with uploads.hold(declared_bytes(request, max_bytes=settings.max_upload_bytes)):
        content = await _read(request, body_class, settings, timeout_s)
        body = validate(body_class, content.fields)
        return body, await _fit_image(content.upload, body, spec, settings, uploads)


async def _read(
    request: Request, body_class: type[ImageVariationBody], settings: Settings, timeout_s: float
) -> _EditContent:
    """The body in either form."""
    max_bytes = settings.max_upload_bytes
    if is_form(request):
        form = await read_form(
            request, max_bytes=max_bytes, max_field_bytes=settings.max_body_bytes, timeout_s=timeout_s
        )
        return await asyncio.to_thread(_from_form, form, body_class)
    content = await read_json_object(request, max_bytes=max_bytes, timeout_s=timeout_s)
    return await asyncio.to_thread(_from_json, content, body_class)


async def _fit_image(
    upload: Upload, body: ImageVariationBody, spec: ModelSpec, settings: Settings, uploads: UploadBudget
) -> FittedImage:
    width, height = size_of(body, spec)
    try:
        return await uploads.decode(
            fit_upload,
            upload,
            spec,
            width=width,
            height=height,
            fits_size=settings.fit_sizes,
            strength=body.strength,
            max_pixels=settings.max_upload_pixels,
        )
    except InvalidRequest as error:
        raise on_the_wire(error, body) from None


def upload_body(body_class: type[ImageVariationBody]) -> dict[str, Any]:
    """`openapi_extra` of a route that takes `body_class` in both forms."""
    schema = json_schema(body_class)
    fields = {name: field for name, field in schema["properties"].items() if name not in ("images", "mask")}
    files = {name: _FILE for name in ("image", "mask") if name == "image" or name in schema["properties"]}
    form = {**schema, "properties": {**fields, **files}}
    form["required"] = [*schema.get("required", []), "image"]
    content = {FORM: {"schema": form}, "application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def _from_form(form: Form, body_class: type[ImageVariationBody]) -> _EditContent:
    files = dict(form.files)
    images, masks = files.pop("image", []), files.pop("mask", [])
    if files:
        raise InvalidRequest(f"{next(iter(files))[:64]!r} is no file that is read here; send image or mask")
    for name in ("image", "mask"):
        if name in form.fields:
            raise WrongType(f"{name} must be a file", field=name)
    if masks and "mask" not in body_class.model_fields:
        raise InvalidRequest("mask is read by /v1/images/edits only", field="mask")
    if len(masks) > 1:
        raise InvalidRequest("mask is given more than once", field="mask")
    fields = {name: from_text(body_class, name, text) for name, text in form.fields.items()}
    accepted = ["image" if name == "images" else name for name in body_class.model_fields]
    for name in fields:
        if name not in accepted:
            raise UnknownParameter(unknown(name[:64], name, accepted), field=name[:MAX_FIELD_CHARACTERS])
    return _EditContent(fields, Upload(image=_only(images), mask=masks[0] if masks else None))


def _from_json(content: Mapping[str, object], body_class: type[ImageVariationBody]) -> _EditContent:
    body = validate(body_class, content)
    images = [from_data_url(each.image_url, field="images") for each in body.images or []]
    reference = body.mask if isinstance(body, ImageEditBody) else None
    mask = None if reference is None else from_data_url(reference.image_url, field="mask")
    fields = {name: value for name, value in content.items() if name not in ("images", "mask")}
    return _EditContent(fields, Upload(image=_only(images, field="images"), mask=mask, image_field="images"))


def _only(images: Sequence[bytes], *, field: str = "image") -> bytes:
    if not images:
        raise MissingParameter(f"{field} is missing", field=field)
    if len(images) > 1:
        raise InvalidRequest(f"{len(images)} images were sent; the model starts from one", field=field)
    return images[0]
