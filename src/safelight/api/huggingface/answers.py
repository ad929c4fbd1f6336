"""What clients of the Hugging Face dialect read: a picture as bytes or in JSON, or the events of its making."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from fastapi import Response

from safelight.api.http.event_stream import RenderEvent, frame
from safelight.api.http.headers import parameters_in_force, picture_headers
from safelight.picture.files import MEDIA_TYPES
from safelight.picture.generation import Completed, Event, GenerationRequest, GenerationResult, Preview, Step

JSON = "application/json"


def render(request: GenerationRequest, result: GenerationResult, media_type: str) -> Response:
    """The first picture, as bytes or as a JSON string of base64."""
    content = result.images[0].content
    if media_type == JSON:
        content = json.dumps(_base64(content)).encode("ascii")
    response = Response(content, media_type=media_type)
    for name, value in picture_headers(request, result):
        response.headers.append(name, value)
    return response


def event_renderer(request: GenerationRequest) -> RenderEvent:
    """Progress, previews, and in the end what `render` answers with, in one object."""

    def render_event(event: Event) -> Iterator[bytes]:
        match event:
            case Step():
                yield frame({"index": event.index, "of": event.of}, event="step")
            case Preview():
                yield frame({"index": event.index, "image": _base64(event.content)}, event="preview")
            case Completed(result=result):
                data = {
                    "image": _base64(result.images[0].content),
                    "content_type": MEDIA_TYPES[request.image_format],
                    "seed": result.images[0].seed,
                    "parameters": parameters_in_force(request),
                    "warnings": list(result.warnings),
                }
                yield frame(data, event="completed")

    return render_event


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
