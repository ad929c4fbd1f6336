"""Is the server alive, can it make a picture, and if it cannot: why, replica by replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from safelight.disk import Disk
from safelight.server.web import page
from safelight.serving.backends.protocol import ReplicaState
from safelight.serving.dispatcher import Dispatcher, ReplicaSnapshot

JOINING = "joining"
"""The cause of a gateway that has just started: the deployments of endpoints load here, and serve at others."""


def create_router(
    dispatcher: Dispatcher,
    disk: Disk,
    *,
    is_known: Callable[[Request], bool] | None = None,
    is_behind: Callable[[], bool] = lambda: False,
) -> APIRouter:
    """The routes that orchestrators and load balancers ask; none of them needs the key.

    Who `is_known` is told why, replica by replica; others get a word. None: whoever comes here is known. A gateway that
    `is_behind` the others, as it has started after them, is not ready: they serve meanwhile.
    """
    router = APIRouter(tags=["Health"])

    @router.get(
        "/",
        summary="`Ok` while the server runs; browsers are led to the page",
        response_class=PlainTextResponse,
        operation_id="root",
    )
    async def root(request: Request) -> Response:
        return page.to_page() if page.wants_page(request) else PlainTextResponse("Ok", headers={"vary": "accept"})

    @router.get(
        "/health", summary="`Ok` while the server runs", response_class=PlainTextResponse, operation_id="health"
    )
    async def health() -> PlainTextResponse:
        return PlainTextResponse("Ok")  # word for word the container behind the Hugging Face API

    @router.get("/health/live", summary="200 while the server runs", response_class=PlainTextResponse)
    async def live() -> PlainTextResponse:
        return PlainTextResponse("Ok")

    @router.get("/health/ready", summary="200 when a picture can be made", responses={503: {"description": "Not yet"}})
    async def ready(request: Request) -> JSONResponse:
        replicas, trouble = dispatcher.snapshot().replicas, disk.trouble
        is_available, is_late = dispatcher.is_available, is_behind()
        is_ready = is_available and not is_late
        content: dict[str, object] = {"ready": is_ready}
        if is_known is None or is_known(request):
            content |= {
                "model": dispatcher.spec.name,
                "replicas": [describe(each) for each in replicas],
                "storage": trouble,
            }
            if is_late:
                content["cause"] = JOINING
        else:
            content["cause"] = _cause(is_available, is_late, replicas, trouble)
        return JSONResponse(content, status_code=200 if is_ready else 503)

    return router


def _cause(is_available: bool, is_late: bool, replicas: Sequence[ReplicaSnapshot], trouble: str | None) -> str | None:
    """One word."""
    if not is_available:
        states = {each.state for each in replicas}
        return next((each.value for each in _NEAREST if each in states), ReplicaState.DRAINING.value)
    if is_late:
        return JOINING
    return None if trouble is None else "storage"


_NEAREST = (ReplicaState.LOADING, ReplicaState.STARTING, ReplicaState.DRAINING, ReplicaState.FAILED)
"""Those nearest to being ready first: of several replicas one is enough."""


def describe(replica: ReplicaSnapshot) -> dict[str, str | int | None]:
    """For whoever may know."""
    return {
        "name": replica.name,
        "state": replica.state,
        "detail": replica.detail,
        "pid": None,
        **replica.whereabouts,
        "restarts": replica.restarts,
    }
