"""The request body: bytes read within a limit and a deadline, then one strict JSON object."""

from __future__ import annotations

import asyncio
import json

from fastapi import HTTPException, Request

from safelight.errors import BodyTooLarge, DeadlineExceeded, InvalidRequest


async def read_json_object(request: Request, *, max_bytes: int, timeout_s: float) -> dict[str, object]:
    """The body as a JSON object. Raises InvalidRequest, BodyTooLarge, DeadlineExceeded or HTTPException 415."""
    _check_content_type(request.headers.get("content-type"))
    try:
        async with asyncio.timeout(timeout_s):
            content = await _read(request, max_bytes)
    except TimeoutError:
        raise DeadlineExceeded(f"the request body did not arrive within {timeout_s:g} s") from None
    return parse_json_object(content)


def parse_json_object(content: bytes) -> dict[str, object]:
    """RFC 8259 to the letter: no NaN, no key twice, no half of a surrogate pair. Raises InvalidRequest."""
    if not content.strip():
        raise InvalidRequest("the body is empty; send a JSON object")
    try:
        value = json.loads(
            content.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 (at byte {error.start})") from None
    except UnicodeEncodeError:
        raise InvalidRequest("the body has half of a surrogate pair (\\ud800 to \\udfff) in a string") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    except ValueError:
        raise InvalidRequest("the body has an integer of thousands of digits") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object, such as {...}")
    return value


def _check_content_type(header: str | None) -> None:
    media_type = (header or "application/json").split(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise HTTPException(415, f"Content-Type {media_type[:64]!r} is not served; send JSON as application/json")


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(content)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than the {max_bytes} bytes that are read; send less")


def _refuse_constant(name: str) -> None:
    raise InvalidRequest(f"the body is not JSON: {name} is not a number of JSON's")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"{twice[:64]!r} is given more than once", field=twice[:64])
    return value
