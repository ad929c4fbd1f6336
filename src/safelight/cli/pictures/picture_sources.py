"""Where the pictures of a prompt file come from: a replica of our own, or a server that speaks OpenAI's images API."""

from __future__ import annotations

import asyncio
import base64
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import httpx

from safelight.api.http.headers import parameters_in_force
from safelight.api.http.validation import validate
from safelight.api.openai.wire import ImageGenerationBody, to_generation_request
from safelight.cli.pictures.prompt_file import BATCH_URL, Body
from safelight.errors import (
    AuthenticationFailed,
    EngineFailure,
    InvalidRequest,
    ModelLoadError,
    ModelNotFound,
    NotReady,
    Overloaded,
    ReplicaLost,
    ResourceNotFound,
)
from safelight.picture.files import decode
from safelight.picture.generation import GeneratedImage
from safelight.serving.dispatcher import Dispatcher

MAX_ATTEMPTS = 10
MAX_PAUSE_S = 60.0
CONNECT_TIMEOUT_S = 30.0
RETRIED = (Overloaded, NotReady, ReplicaLost)
"""What another attempt may mend. When it does not, the lines that follow would meet the same."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The pictures of one line."""

    images: tuple[GeneratedImage, ...]
    image_format: str
    parameters: dict[str, Any]
    warnings: tuple[str, ...]


class PictureSource(Protocol):
    """Makes the pictures of a body. Ready when its `async with` block begins, gone when it ends."""

    @property
    def model(self) -> str:
        """Its name; of a server its URL, until it has said what it serves."""

    @property
    def revision(self) -> str | None: ...
    @property
    def awaited(self) -> str | None:
        """What all lines wait for before they go on, if something is away."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    async def make(self, body: Body) -> Made: ...


class LocalSource:
    """A replica in a process of its own."""

    awaited = None

    def __init__(
        self, dispatcher: Dispatcher, *, names: tuple[str, ...], revision: str | None, timeout_s: float
    ) -> None:
        self.model = dispatcher.spec.name
        self.revision = revision
        self._dispatcher = dispatcher
        self._names = names
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        await self._dispatcher.start()
        try:
            await self._dispatcher.wait_until_ready()
        except BaseException:
            await self._dispatcher.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._dispatcher.stop()

    async def make(self, body: Body) -> Made:
        """Raises InvalidRequest, EngineFailure, or what ended the replica."""
        parsed = validate(ImageGenerationBody, body)
        if parsed.model is not None and parsed.model not in self._names:
            raise ModelNotFound(f"the model here is {self._names[0]}, not {parsed.model[:128]}", field="model")
        request = to_generation_request(parsed, self._dispatcher.spec, id=uuid.uuid4().hex, timeout_s=self._timeout_s)
        await self._wait_until_ready()
        result = await self._dispatcher.generate(request)
        return Made(
            images=result.images,
            image_format=request.image_format,
            parameters=parameters_in_force(request),
            warnings=result.warnings,
        )

    async def _wait_until_ready(self) -> None:
        """A replica that ended is started again, until that is given up."""
        try:
            await self._dispatcher.wait_until_ready()
        except ReplicaLost as error:
            raise ModelLoadError(error.message) from None


class ServerSource:
    """A server, reached by HTTP."""

    def __init__(self, url: str, *, api_key: str | None, timeout_s: float) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self.model = self._url
        self.revision = None
        self.awaited: str | None = None
        self._has_answered = False
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None),
        )

    async def __aenter__(self) -> Self:
        """Asks what is served: a wrong address or key is found out before any line is sent."""
        try:
            models = await retrying(lambda: self._send("GET", "/v1/models"))
            self.model = str(models["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            await self._client.aclose()
            raise InvalidRequest(f"{self._url} does not speak OpenAI's images API", field="server") from None
        except BaseException:
            await self._client.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def make(self, body: Body) -> Made:
        """Raises InvalidRequest, EngineFailure, AuthenticationFailed, or one of RETRIED."""
        answer = await self._send("POST", BATCH_URL, {**body, "response_format": "b64_json"})
        try:
            made = Made(
                images=tuple(
                    GeneratedImage(content=base64.b64decode(each["b64_json"], validate=True), seed=each.get("seed"))
                    for each in answer["data"]
                ),
                image_format=str(body.get("output_format") or answer.get("output_format") or "png"),
                parameters=answer.get("parameters") or {},
                warnings=tuple(answer.get("warnings") or ()),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise EngineFailure("the server's answer has no pictures as b64_json") from None
        await asyncio.to_thread(_check_pictures, made, body.get("n") or 1)
        return made

    async def _send(self, method: str, path: str, body: Body | None = None) -> Any:
        try:
            response = await self._client.request(method, self._url + path, json=body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ResourceNotFound(f"{self._url} is no URL of a server: {error}") from None
        except httpx.TransportError as error:
            message = f"{self._url} cannot be reached: {str(error) or type(error).__name__}"
            if not self._has_answered and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise ResourceNotFound(f"{message}; give the URL of a server that runs as --server") from None
            self.awaited = self._url
            raise NotReady(message) from None
        self._has_answered = True
        error_of_status = None if response.is_success else _error_of(response)
        self.awaited = self._url if isinstance(error_of_status, NotReady) else None
        if error_of_status is not None:
            raise error_of_status
        return _json(response)


def _check_pictures(made: Made, wanted: object) -> None:
    """Raises EngineFailure if they are not as many as were asked for, or not all of their format."""
    if len(made.images) != wanted:
        raise EngineFailure(f"the server's answer has {len(made.images)} pictures, not {wanted}"[:200])
    for image in made.images:
        try:
            image_format = decode(image.content).image_format
        except InvalidRequest as error:
            raise EngineFailure(f"the server's answer has a picture that {error.message}") from None
        if image_format != made.image_format:
            raise EngineFailure(f"the server's answer has a picture as {image_format}, not {made.image_format}"[:200])


def _error_of(response: httpx.Response) -> Exception:
    """The error that the server's answer stands for."""
    answer = _json(response)
    error = answer.get("error") if isinstance(answer, dict) else None
    details = error if isinstance(error, dict) else {"message": error or response.reason_phrase}
    message = f"{details.get('message')} (status {response.status_code})"
    match response.status_code:
        case 401 | 403:
            return AuthenticationFailed(f"{message}; set SAFELIGHT_API_KEY, or give --api-key-file")
        case 429:
            return Overloaded(message, retry_after_s=_retry_after_s(response))
        case 502 | 503 | 504:
            return NotReady(message, retry_after_s=_retry_after_s(response))
        case status if status < 500:
            return InvalidRequest(message, field=details.get("param"))
        case _:
            return EngineFailure(message)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _retry_after_s(response: httpx.Response) -> int:
    """0: the server does not say (it may give a date, which is not worth a parser)."""
    text = response.headers.get("retry-after", "")
    return int(text) if text.isascii() and text.isdigit() else 0


async def retrying(attempt: Callable[[], Awaitable[T]]) -> T:
    """What `attempt()` returns; after one of RETRIED again, when the server says or ever later. Raises the last one."""
    for number in range(MAX_ATTEMPTS):
        try:
            return await attempt()
        except RETRIED as error:
            if number == MAX_ATTEMPTS - 1:
                raise
            wanted_s = 0 if isinstance(error, ReplicaLost) else error.retry_after_s
            await asyncio.sleep(max(wanted_s, min(2.0**number, MAX_PAUSE_S) * random.uniform(0.5, 1.0)))
    raise AssertionError("the last attempt returns or raises")
