"""The page's built files (sources: `web/`), sent from memory; nothing of them needs a key, nor tells of the server.

Names under `assets/` hold a hash of their content, so that a browser asks for each once.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from safelight.api.http.entity_tags import has_already
from safelight.api.http.negotiation import negotiate
from safelight.errors import NotAcceptable
from safelight.server.http.docs_files import pieces

STATIC = Path(__file__).parent / "static"
PATH = "/app/"
ASSETS = f"{PATH}assets/"
OPEN_PATHS = frozenset({PATH, PATH.rstrip("/")})

FOREVER = "public, max-age=31536000, immutable"
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_MIN_GZIP_BYTES = 512


@dataclass(frozen=True, slots=True)
class _File:
    """One built file, as it is and as gzip sends it."""

    content: bytes
    zipped: bytes | None
    """None: not worth it."""
    media_type: str
    digest: str


def wants_page(request: Request) -> bool:
    """Whether who asks for `/` would rather have a page than the word of the health check."""
    try:
        return negotiate(request.headers.getlist("accept"), ("text/plain", "text/html")) == "text/html"
    except NotAcceptable:
        return False


def is_for(request: Request, path: str) -> bool:
    """Whether a request for this path is answered by the page: one for its files, or a browser's for `/`."""
    is_file = path in OPEN_PATHS or path.startswith(ASSETS)
    return request.method in ("GET", "HEAD") and (is_file or (path == "/" and wants_page(request)))


def to_page(folder: str = "") -> Response:
    """Relative, so that it holds behind a proxy that takes a prefix off."""
    to = f"{folder}{PATH.lstrip('/')}"
    return RedirectResponse(to, status_code=307, headers={"vary": "accept", "cache-control": "no-cache"})


def create_router() -> APIRouter:
    """`/app/` and what it loads."""
    router = APIRouter()

    @router.api_route(PATH.rstrip("/"), methods=["GET", "HEAD"], include_in_schema=False)
    async def without_slash() -> Response:
        return to_page()

    @router.api_route(PATH, methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        return _send(request, built_files()["index.html"], cache_control="no-cache")

    @router.api_route(ASSETS + "{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        file = built_files().get(f"assets/{name}")
        if file is None:
            raise HTTPException(404)
        return _send(request, file, cache_control=FOREVER)

    return router


@cache
def built_files() -> Mapping[str, _File]:
    """Path under `static/` -> file. They do not change while the server runs."""
    return {path.relative_to(STATIC).as_posix(): _read(path) for path in sorted(STATIC.rglob("*")) if path.is_file()}


def _read(path: Path) -> _File:
    content = path.read_bytes()
    zipped = gzip.compress(content, mtime=0) if len(content) >= _MIN_GZIP_BYTES else None
    return _File(content, zipped, MEDIA_TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:32])


def _send(request: Request, file: _File, *, cache_control: str) -> Response:
    is_zipped = file.zipped is not None and _takes_gzip(request.headers.getlist("accept-encoding"))
    content = file.zipped if is_zipped and file.zipped is not None else file.content
    etag = f'"{file.digest}{"-gzip" if is_zipped else ""}"'
    headers = {**SECURITY_HEADERS, "cache-control": cache_control, "etag": etag, "vary": "accept-encoding"}
    if has_already(request.headers.getlist("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    if is_zipped:
        headers["content-encoding"] = "gzip"
    headers |= {"content-type": file.media_type, "content-length": str(len(content))}
    if request.method == "HEAD":
        return Response(headers=headers)
    return StreamingResponse(pieces(content), headers=headers)


def _takes_gzip(fields: Sequence[str]) -> bool:
    """RFC 9110, section 12.5.3, as far as browsers use it."""
    codings = [each.strip().lower().replace(" ", "") for each in ",".join(fields).split(",")]
    return any(each.partition(";")[0] == "gzip" and not each.endswith((";q=0", ";q=0.0")) for each in codings)
