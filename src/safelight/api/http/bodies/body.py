"""The request body: bytes read within a limit and a deadline, then one strict JSON object, or a form with files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import HTTPException, Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from safelight.api.http.bodies.content_coding import coding_of, decoded
from safelight.api.http.bodies.strict_json import parse_json_object
from safelight.errors import BodyTooLarge, DeadlineExceeded, InvalidRequest

FORM = "multipart/form-data"
MAX_FILES = 17
"""Sixteen images and a mask, as OpenAI's clients may send."""
MAX_FIELDS = 64
MAX_PARAMETERS = 16
"""Of a header field such as Content-Disposition; the time for them grows with the square of their number."""
PIECE_BYTES = 16 * 1024
"""Of a form, between two of which others have their turn."""
CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1")
"""Python knows others by which little text takes long, or becomes none."""


async def read_json_object(request: Request, *, max_bytes: int, timeout_s: float) -> dict[str, object]:
    """The body as a JSON object. Raises InvalidRequest, BodyTooLarge, DeadlineExceeded or HTTPException 415."""
    check_content_type(request.headers.get("content-type"))
    return await parse_json_object(await read_bytes(request, max_bytes=max_bytes, timeout_s=timeout_s))


async def read_bytes(
    request: Request,
    *,
    max_bytes: int,
    timeout_s: float,
    max_upload_bytes: int = 0,
    is_upload: Callable[[bytes], bool] = lambda _: False,
) -> bytes:
    """The body. `max_upload_bytes` is the limit of one that its first `max_bytes` show to be an upload.

    Raises BodyTooLarge or DeadlineExceeded.
    """
    content = bytearray()
    async with _deadline(timeout_s):
        async for chunk in _limited(request, max(max_bytes, max_upload_bytes)):
            content += chunk
            if len(content) > max_bytes >= len(content) - len(chunk) and not is_upload(bytes(content)):
                raise _too_large(max_bytes)
    return bytes(content)


def declared_bytes(request: Request, *, max_bytes: int) -> int:
    """How long the body is, as far as its sender tells; `max_bytes` if it does not, or is not read that far."""
    declared = request.headers.get("content-length", "")
    is_told = declared.isdecimal() and coding_of(request) is None
    return min(int(declared[:20]), max_bytes) if is_told else max_bytes


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body: text fields, and the files of each name in order (`image[]` counts as `image`)."""

    fields: Mapping[str, str]
    files: Mapping[str, Sequence[bytes]]


async def read_form(request: Request, *, max_bytes: int, max_field_bytes: int, timeout_s: float) -> Form:
    """The body as a form. Raises InvalidRequest, BodyTooLarge or DeadlineExceeded."""
    _check_form_type(request.headers.get("content-type", ""))
    parser = _InMemory(
        request.headers,
        _in_pieces(_limited(request, max_bytes)),
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=max_field_bytes,
    )
    async with _deadline(timeout_s):
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the body is no multipart/form-data: {error}") from None
    try:
        return await _sort(form, max_field_bytes)
    finally:
        await form.close()


class _InMemory(MultiPartParser):
    """Files are held in memory, where the limits count them, and never on a disk, which may be full."""

    spool_max_size = 0
    """No limit: that is what it means to Python's SpooledTemporaryFile."""

    def on_header_end(self) -> None:
        if self._current_partial_header_value.count(b";") > MAX_PARAMETERS:
            raise MultiPartException(f"a header field of a part has more than {MAX_PARAMETERS} parameters")
        super().on_header_end()


def _check_form_type(header: str) -> None:
    """The parser's own way would cost what is in it. Raises InvalidRequest."""
    if header.count(";") > MAX_PARAMETERS:
        raise InvalidRequest(f"Content-Type has more than {MAX_PARAMETERS} parameters; send only the boundary")
    charset = parse_options_header(header)[1].get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in CHARSETS:
        raise InvalidRequest(f"charset {charset[:64]!r} of Content-Type is not read; send the form in UTF-8")


async def _in_pieces(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        for start in range(0, len(chunk), PIECE_BYTES):
            yield chunk[start : start + PIECE_BYTES]
            await asyncio.sleep(0)


async def _sort(form: FormData, max_field_bytes: int) -> Form:
    fields: dict[str, str] = {}
    num_left = max_field_bytes
    files: dict[str, list[bytes]] = {}
    for key, value in form.multi_items():
        name = key.removesuffix("[]")
        if isinstance(value, UploadFile):
            files.setdefault(name, []).append(await value.read())
        elif name in fields:
            raise InvalidRequest(f"{name[:64]!r} is given more than once", field=name[:64])
        elif (num_left := num_left - len(value)) < 0:
            raise _too_large(max_field_bytes)
        else:
            fields[name] = value
    return Form(fields, files)


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").split(";")[0].strip().lower() == FORM


def check_content_type(header: str | None) -> None:
    media_type = (header or "application/json").split(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise HTTPException(415, f"Content-Type {media_type[:64]!r} is not served; send JSON as application/json")


@asynccontextmanager
async def _deadline(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"the request body did not arrive within {timeout_s:g} s") from None


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The chunks of the body, decompressed. Raises BodyTooLarge before more than `max_bytes` are read."""
    declared, coding = request.headers.get("content-length", ""), coding_of(request)
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    as_sent = _at_most(max_bytes, request.stream())
    async for chunk in as_sent if coding is None else _at_most(max_bytes, decoded(as_sent, coding)):
        yield chunk


async def _at_most(max_bytes: int, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Raises BodyTooLarge. Of what is compressed both are counted: it may be long and become nothing."""
    num_bytes = 0
    async for chunk in chunks:
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than the {max_bytes} bytes that are read; send less")
