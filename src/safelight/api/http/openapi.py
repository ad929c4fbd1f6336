"""The parts of the OpenAPI document that FastAPI cannot read off routes which parse and render by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

PICTURE_HEADERS = {
    "x-request-id": "The request's name in the logs: the client's own `x-request-id`, or a new one",
    "x-safelight-seed": "The seed of the first picture; picture i of n has seed + i",
    "x-safelight-parameters": "JSON: the parameters in force, defaults filled in",
    "x-safelight-warning": "What was asked and has no effect, or was changed; once for each",
}


def request_body(model: type[BaseModel], examples: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is `model`."""
    content = {
        "schema": json_schema(model),
        "examples": {name: {"value": dict(value)} for name, value in examples.items()},
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body, without references."""
    schema = model.model_json_schema()
    inlined: dict[str, Any] = _inline(schema, schema.pop("$defs", {}))
    return inlined


def picture_response(description: str, content: Mapping[str, object]) -> dict[str, Any]:
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in PICTURE_HEADERS.items()}
    return {"description": description, "content": content, "headers": headers}


def error_responses(model: type[BaseModel], descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": text, "model": model} for status, text in descriptions.items()}


ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"description": "With `Prefer: respond-async`: a job, and in `Location` where it is polled (docs/jobs.md)"}
}
GENERATION_ERRORS = {
    400: "Something in the request is wrong; the message names the field and what would be right",
    401: "No key, or a wrong one",
    406: "None of the media types in `Accept` can be made; the message lists those that can",
    408: "The request grew older than its timeout and was dropped",
    413: "The body is larger than the server reads",
    415: "The body is not JSON",
    422: "Another request came under the same `Idempotency-Key`",
    429: "The queue is full; `Retry-After` says when to come back",
    500: "The model could not make this picture",
    503: "No replica can take the request yet, or it was lost with its replica, or a disk is full; `Retry-After` says "
    "when to come back",
}


def _inline(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema without references, which point elsewhere inside an OpenAPI document."""
    if isinstance(schema, list):
        return [_inline(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return _inline(target, definitions)
    return {name: _inline(value, definitions) for name, value in schema.items()}
