"""Puts the control plane together: its database and secrets, the reconciler, the gateway, and the ARM application."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from safelight import __version__
from safelight.api import dialects
from safelight.api.azure import routes as azure
from safelight.api.dialect import Served
from safelight.api.http.upload_budget import UploadBudget
from safelight.control.endpoints.logs import DeploymentLogs
from safelight.control.endpoints.reconciler import Reconciler
from safelight.control.endpoints.tokens import OidcVerifier
from safelight.control.plane import ControlPlane
from safelight.control.secrets.encryption import KeyRing, check_keys
from safelight.control.secrets.private_files import read_admin_token
from safelight.control.store.database import open_database
from safelight.disk import Disk
from safelight.errors import ConfigurationError
from safelight.server import health, metrics
from safelight.server.address import ServerAddress, write_address
from safelight.server.auth import KeyMiddleware
from safelight.server.endpoints.gateway import EndpointGateway
from safelight.server.endpoints.routes import EndpointRoutes
from safelight.server.endpoints.starter import DeploymentStarter, ServedDeployment
from safelight.server.error_handlers import install_handlers
from safelight.server.web import model as web_model
from safelight.serving.backends.protocol import ReplicasFactory
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import DeploymentSettings, Settings


class _HasSecret(Protocol):
    """pydantic's SecretStr, which stays on the wire's side."""

    def get_secret_value(self) -> str: ...


class OnlineEndpoints:
    """Everything behind connections, endpoints and deployments. Opens the database at once; `start` starts replicas."""

    def __init__(self, settings: Settings, create_replicas: ReplicasFactory) -> None:
        self._settings = settings
        self._lock = _lock(settings.data_dir)
        self.disk = Disk()
        self._database = open_database(_secret(settings.database_url), settings.data_dir, self.disk)
        key_ring = KeyRing(settings.data_dir, _secret(settings.encryption_keys), self.disk)
        try:
            with self._database.transaction() as session:
                check_keys(session, key_ring.cipher)
        except ConfigurationError:
            self._database.close()
            self._lock.close()
            raise
        self.uploads = UploadBudget(settings.max_held_upload_bytes)
        logs = DeploymentLogs(settings.data_dir / "logs")
        verifier = OidcVerifier(settings.oidc_issuer, audience=settings.oidc_audience) if settings.oidc_issuer else None
        self.routes = EndpointRoutes(settings.base_domain, verifier)
        self._reconciler = Reconciler[ServedDeployment](
            self._database,
            key_ring.cipher,
            starter=DeploymentStarter(settings, create_replicas, self._create_deployment_app),
            routes=self.routes,
            logs=logs,
        )
        self.plane = ControlPlane(
            database=self._database,
            cipher=key_ring.cipher,
            logs=logs,
            admin_token=read_admin_token(settings.data_dir),
            wake=self._reconciler.wake,
            publish=self._reconciler.publish,
            rotate_encryption_key=lambda: key_ring.rotate(self._database),
            replicas_of=lambda endpoint, deployment: [
                health.describe(each) for each in self.routes.replicas_of(endpoint, deployment)
            ],
        )

    def announce(self, url: str, certificate: Path | None = None) -> None:
        """Tell the command line where this server listens."""
        address = ServerAddress(url=url, certificate=None if certificate is None else str(certificate))
        write_address(self._settings.data_dir, address)

    async def start(self) -> None:
        await self._reconciler.start()

    async def drain(self) -> None:
        """Refuse what is new, let every deployment finish what it has, and end the replicas."""
        self.routes.refuse_new()
        await self._reconciler.stop()

    async def stop(self) -> None:
        """`drain`, and let go of the database and the data directory."""
        await self.drain()
        self._database.close()
        self._lock.close()

    def gateway(self, app: ASGIApp) -> EndpointGateway:
        """The application with endpoints in front of it."""
        return EndpointGateway(
            app,
            routes=self.routes,
            arm=create_arm_app(self.plane, self._settings),
            settings=self._settings,
            uploads=self.uploads,
        )

    def _create_deployment_app(self, deployment: DeploymentSettings, dispatcher: Dispatcher) -> FastAPI:
        return create_deployment_app(self._settings, deployment, dispatcher, self.uploads, self.disk)


def create_deployment_app(
    settings: Settings, deployment: DeploymentSettings, dispatcher: Dispatcher, uploads: UploadBudget, disk: Disk
) -> FastAPI:
    """The routes of one deployment: every dialect, and its own metrics, in front of its own dispatcher."""
    registry = CollectorRegistry()
    registry.register(metrics.DispatcherCollector(dispatcher))
    app = FastAPI(
        title=f"Safelight: {dispatcher.spec.name}", version=__version__, redoc_url=None, redirect_slashes=False
    )
    served = Served(dispatcher=dispatcher, settings=settings, deployment=deployment, uploads=uploads, disk=disk)
    for router in (
        *(dialect.create_router(served) for dialect in dialects.PICTURES),
        health.create_router(dispatcher, disk),
        web_model.create_router(dispatcher, is_endpoint=True),
        metrics.create_router(registry),
    ):
        app.include_router(router)
    install_handlers(app, Exception)  # of what no one foresaw too: clients read JSON, and the edge still logs it
    return app


def create_arm_app(plane: ControlPlane, settings: Settings) -> FastAPI:
    """The control plane's routes; its OpenAPI document is the reference of them."""
    dialect = dialects.CONTROL_PLANE
    app = FastAPI(
        title=f"Safelight: {dialect.title}", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.include_router(dialect.create_router(azure.Workspace(plane, settings)))
    app.add_middleware(
        KeyMiddleware,
        check=lambda request: azure.check_administrator(request, plane.admin_token),
        is_open=dialect.is_open,
    )
    install_handlers(app, Exception)
    return app


def _lock(data_dir: Path) -> TextIO:
    """Two servers over one data directory would start every replica twice."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (data_dir / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"data_dir {data_dir} cannot be written: {error.strerror}; give another --data-dir"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigurationError(
            f"another server uses data_dir {data_dir}; give this one a --data-dir of its own, or set "
            "SAFELIGHT_ONLINE_ENDPOINTS=false"
        ) from None
    with suppress(OSError):  # for people only, and a full disk is no reason not to start
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
    return file


def _secret(value: _HasSecret | None) -> str | None:
    return None if value is None else value.get_secret_value()
