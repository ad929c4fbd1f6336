"""What `/docs` shows, from memory: an open file takes a descriptor until its client has taken it, a schema time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from functools import cache, lru_cache
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

PIECE_BYTES = 64 * 1024
"""No more is handed to a connection before its client has taken most of what came before."""


class HeldFiles(StaticFiles):
    """Files of a folder that do not change while the server runs."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        if not isinstance(response, FileResponse):  # the client has it already
            return response
        headers = {name: value for name, value in response.headers.items() if name != "accept-ranges"}
        return StreamingResponse(pieces(_content(Path(full_path))), status_code=status_code, headers=headers)


def held_schema(app: FastAPI) -> ASGIApp:
    """The OpenAPI document, rendered once: nobody needs a key to ask for it."""

    @cache
    def document() -> bytes:
        return bytes(JSONResponse(app.openapi()).body)

    async def openapi(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(document(), media_type="application/json")(scope, receive, send)

    return openapi


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """`content`, no faster than its client takes it."""
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
        await asyncio.sleep(0)  # so that it is noticed when the client leaves


@lru_cache(maxsize=8)
def _content(path: Path) -> bytes:
    return path.read_bytes()
