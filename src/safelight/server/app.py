"""The composition root of the HTTP side: one dispatcher and one settings object in, the whole application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from safelight import __version__
from safelight.api import dialects
from safelight.api.dialect import Served
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.disk import Disk
from safelight.environment import read_environment
from safelight.picture.links import open_image_store
from safelight.server import health, metrics
from safelight.server.auth import KeyMiddleware, ServerKey, is_open
from safelight.server.cleaning import kept_clean
from safelight.server.edge import EdgeMiddleware
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.server.error_handlers import install_handlers
from safelight.server.http.cors import add_cors
from safelight.server.http.direct_routes import DirectRoutes
from safelight.server.http.docs_files import HeldFiles, held_schema
from safelight.server.http.head import HeadMiddleware
from safelight.server.jobs.door import NoJobs
from safelight.server.jobs.wiring import Jobs
from safelight.server.web import model as web_model
from safelight.server.web import page
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import Settings
from safelight.telemetry.spans import Tracer, open_tracer

KEY = Security(HTTPBearer(scheme_name="key", auto_error=False))
"""For the OpenAPI document only: `KeyMiddleware` checks, so that unknown routes are behind the key as well."""


def create_app(settings: Settings, dispatcher: Dispatcher, online: OnlineEndpoints | None = None) -> FastAPI:
    """The application; it starts the dispatcher and the endpoints, and drains them when it is shut down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await dispatcher.start()
        if online is not None:
            await online.start()
        if jobs is not None:
            await jobs.start()
        async with kept_clean(open_image_store(settings)):
            yield
        if jobs is not None:
            await jobs.stop()
        if online is not None:
            await online.stop()
        await dispatcher.drain(settings.drain_timeout_s)
        await _close(tracer)

    app = FastAPIOffline(  # /docs without a CDN: it works on a closed network, and no stranger's script runs on it
        title="Safelight",
        version=__version__,
        description=f"`{dispatcher.spec.name}` behind the {dialects.titles()} image APIs.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    _hold_files_of_docs(app)
    key = _server_key(settings)
    uploads = UploadBudget(settings.max_held_upload_bytes) if online is None else online.uploads
    disk = Disk() if online is None else online.disk
    tracer = open_tracer(read_environment())
    jobs = None if online is None else Jobs(app, settings, online, key=key, tracer=tracer)
    served = Served(dispatcher=dispatcher, settings=settings, deployment=settings, uploads=uploads, disk=disk)
    _add_pictures(app, served)
    is_known, is_behind = None if key is None else key.is_known, (lambda: online is not None and online.is_behind)
    app.include_router(health.create_router(dispatcher, disk, is_known=is_known, is_behind=is_behind))
    app.include_router(page.create_router())
    app.include_router(web_model.create_router(dispatcher), dependencies=[KEY])
    registry = CollectorRegistry()
    registry.register(metrics.DispatcherCollector(dispatcher, dict if online is None else online.dispatchers))
    requests = metrics.RequestMetrics(registry) if online is None else metrics.RequestMetrics(registry, online.has)
    app.include_router(metrics.create_router(registry), dependencies=[KEY])
    if jobs is not None:
        app.include_router(jobs.router, dependencies=[KEY])
        registry.register(metrics.JobCollector(jobs.queue))
    install_handlers(app)
    if key is not None:
        app.add_middleware(KeyMiddleware, check=key.check, is_open=is_open)
    if online is not None:
        app.add_middleware(online.gateway, own=dispatcher, requests=requests)
    if jobs is not None:
        app.add_middleware(jobs.door)
    else:
        app.add_middleware(NoJobs)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(EdgeMiddleware, requests=requests, tracer=tracer)
    add_cors(app, settings.cors_origins)
    return app


async def _close(tracer: Tracer | None) -> None:
    if tracer is not None:
        await asyncio.to_thread(tracer.close)


def _add_pictures(app: FastAPI, served: Served) -> None:
    routers = [dialect.create_router(served) for dialect in dialects.PICTURES]
    for router in routers:
        app.include_router(router, dependencies=[KEY])
    app.add_middleware(DirectRoutes, routers=routers)


def _hold_files_of_docs(app: FastAPI) -> None:
    for route in app.routes:
        if isinstance(route, Mount) and isinstance(route.app, StaticFiles):
            route.app = HeldFiles(directory=route.app.directory)
        elif isinstance(route, Route) and route.path == app.openapi_url:
            route.app = held_schema(app)


def _server_key(settings: Settings) -> ServerKey | None:
    key = settings.read_api_key()
    return None if key is None else ServerKey(key)
