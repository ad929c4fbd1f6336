"""`Content-Encoding` of request bodies (RFC 9110, section 8.4): gzip and deflate, a small piece at a time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Mapping

from fastapi import Request

from safelight.errors import InvalidRequest, UnknownContentCoding

_PIECE_BYTES = 64 * 1024
"""What is made of a chunk in one step: a bomb is met by the limit on the body, not by the memory."""
_GZIP = 16 + zlib.MAX_WBITS
_WINDOWS: Mapping[str, int] = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


def coding_of(request: Request) -> str | None:
    """The coding of the body; None if it comes as it is. Raises UnknownContentCoding."""
    fields = ",".join(request.headers.getlist("content-encoding"))
    codings = [each for each in (part.strip().lower() for part in fields.split(",")) if each not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _WINDOWS:
        raise UnknownContentCoding(
            f"Content-Encoding {', '.join(codings)[:64]!r} is not read; send the body as it is, with gzip or deflate",
            field="Content-Encoding",
        )
    return codings[0]


async def decoded(chunks: AsyncIterable[bytes], coding: str) -> AsyncGenerator[bytes, None]:
    """The body, in pieces of 64 KiB at most. Raises InvalidRequest if it is not whole, or something else."""
    inflater = None
    async for chunk in chunks:
        if inflater is None and chunk:
            inflater = zlib.decompressobj(_window(coding, chunk))
        if inflater is not None:
            async for piece in _inflated(inflater, chunk, coding):
                yield piece
    if inflater is None or not inflater.eof:
        raise _broken(coding, "ends too early")


async def _inflated(inflater: zlib._Decompress, chunk: bytes, coding: str) -> AsyncGenerator[bytes, None]:
    """What `chunk` adds. Raises InvalidRequest."""
    rest, has_more = chunk, True
    while rest or has_more:
        if inflater.eof and rest:
            raise _broken(coding, "goes on after its end")
        try:
            piece = inflater.decompress(rest, _PIECE_BYTES)
        except zlib.error:
            raise _broken(coding, "is damaged") from None
        yield piece
        rest, has_more = inflater.unconsumed_tail or inflater.unused_data, len(piece) == _PIECE_BYTES
        await asyncio.sleep(0)  # the turn of others


def _window(coding: str, start: bytes) -> int:
    """Of the stream that begins like this: `deflate` means zlib's format, and some send it without its header."""
    is_zlib = start[0] & 0x0F == zlib.DEFLATED and (len(start) < 2 or (start[0] * 256 + start[1]) % 31 == 0)
    return -zlib.MAX_WBITS if coding == "deflate" and not is_zlib else _WINDOWS[coding]


def _broken(coding: str, how: str) -> InvalidRequest:
    return InvalidRequest(f"the {coding} of the body {how}; send it again, or as it is", field="Content-Encoding")
