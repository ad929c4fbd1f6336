"""Is the server alive, can it make a picture, and if it cannot: why, replica by replica."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse

from safelight.serving.dispatcher import Dispatcher, ReplicaSnapshot


def create_router(dispatcher: Dispatcher) -> APIRouter:
    """The routes that orchestrators and load balancers ask; none of them needs the key."""
    router = APIRouter(tags=["Health"])

    @router.head("/", include_in_schema=False)
    @router.head("/health", include_in_schema=False)
    @router.get("/", summary="`Ok` while the server runs", response_class=PlainTextResponse, operation_id="root")
    @router.get(
        "/health", summary="`Ok` while the server runs", response_class=PlainTextResponse, operation_id="health"
    )
    async def health() -> PlainTextResponse:
        return PlainTextResponse("Ok")  # word for word the container behind the Hugging Face API

    @router.get("/health/live", summary="200 while the server runs", response_class=PlainTextResponse)
    async def live() -> PlainTextResponse:
        return PlainTextResponse("Ok")

    @router.get("/health/ready", summary="200 when a picture can be made", responses={503: {"description": "Not yet"}})
    async def ready() -> JSONResponse:
        return JSONResponse(
            {
                "ready": dispatcher.is_ready,
                "model": dispatcher.spec.name,
                "replicas": [_describe(each) for each in dispatcher.snapshot().replicas],
            },
            status_code=200 if dispatcher.is_ready else 503,
        )

    return router


def _describe(replica: ReplicaSnapshot) -> dict[str, str | int | None]:
    return {
        "name": replica.name,
        "state": replica.state,
        "detail": replica.detail,
        "pid": replica.pid,
        "restarts": replica.restarts,
    }
