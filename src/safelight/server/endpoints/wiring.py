"""Puts the control plane together: its database and secrets, the reconciler, the gateway, and the ARM application."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Protocol, TextIO

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from safelight import __version__
from safelight.api import dialects
from safelight.api.azure import routes as azure
from safelight.api.dialect import JsonObject, Served
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.control.endpoints.logs import DeploymentLogs
from safelight.control.endpoints.reconciler import Reconciler
from safelight.control.endpoints.tokens import OidcVerifier
from safelight.control.jobs.owners import SECRET_FILE as JOB_SECRET_FILE
from safelight.control.jobs.owners import JobSecrets
from safelight.control.plane import ControlPlane
from safelight.control.secrets.encryption import Cipher, KeyRing, check_keys
from safelight.control.secrets.private_files import ADMIN_TOKEN_FILE, read_admin_token
from safelight.control.secrets.shared_files import share_files
from safelight.control.store.database import Database, open_database
from safelight.control.store.gateways import Gateways, News
from safelight.disk import Disk
from safelight.errors import ConfigurationError
from safelight.picture.links import KEY_FILE as LINKS_KEY_FILE
from safelight.picture.links import make_key
from safelight.server import health, metrics
from safelight.server.address import ServerAddress, write_address
from safelight.server.auth import KeyMiddleware
from safelight.server.endpoints import status
from safelight.server.endpoints.gateway import EndpointGateway
from safelight.server.endpoints.routes import EndpointRoutes
from safelight.server.endpoints.starter import DeploymentStarter, ServedDeployment
from safelight.server.endpoints.status import ReadStatus, status_of
from safelight.server.error_handlers import install_handlers
from safelight.server.http.direct_routes import DirectRoutes
from safelight.server.web import model as web_model
from safelight.serving.backends.protocol import ReplicasFactory
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import DeploymentSettings, Settings

logger = logging.getLogger(__name__)


class _HasSecret(Protocol):
    """pydantic's SecretStr, which stays on the wire's side."""

    def get_secret_value(self) -> str: ...


class OnlineEndpoints:
    """Everything behind connections, endpoints and deployments. Opens the database at once; `start` starts replicas."""

    def __init__(self, settings: Settings, create_replicas: ReplicasFactory) -> None:
        self._settings = settings
        self.disk = Disk()
        with ExitStack() as held:
            held.enter_context(_lock(settings.data_dir))
            url = _secret(settings.database_url)
            self._database = held.enter_context(closing(open_database(url, settings.data_dir, self.disk)))
            key_ring = KeyRing(settings.data_dir, _secret(settings.encryption_keys), self.disk)
            if self._database.file is not None:
                held.enter_context(_lock_database(self._database.file))
            with self._database.opening():
                with self._database.transaction() as session:
                    check_keys(session, key_ring.cipher)
                if self._database.is_shared:
                    _share_files(self._database, key_ring.cipher, settings.data_dir)
            self.gateways = Gateways(self._database)
            self._held = held.pop_all()
            """The database, and the locks, until `stop`."""
        self.uploads = UploadBudget(settings.max_held_upload_bytes)
        logs = DeploymentLogs(settings.data_dir / "logs")
        verifier = OidcVerifier(settings.oidc_issuer, audience=settings.oidc_audience) if settings.oidc_issuer else None
        self.routes = EndpointRoutes(settings.base_domain, verifier)
        self._starter = DeploymentStarter(settings, create_replicas, self._create_deployment_app)
        self._reconciler = Reconciler[ServedDeployment](
            self._database,
            key_ring.cipher,
            starter=self._starter,
            routes=self.routes,
            logs=logs,
            standing=self.gateways.standing,
        )
        self._has_warned = False
        self.gateways.tell(self._note)
        self.plane = ControlPlane(
            database=self._database,
            cipher=key_ring.cipher,
            logs=logs,
            admin_token=read_admin_token(settings.data_dir),
            wake=self._reconciler.wake,
            publish=self._reconciler.publish,
            rotate_encryption_key=lambda: key_ring.rotate(self._database, is_shared=self.gateways.standing.has_others),
            replicas_of=lambda endpoint, deployment: [
                health.describe(each) for each in self.routes.replicas_of(endpoint, deployment)
            ],
        )

    def announce(self, url: str, certificate: Path | None = None) -> None:
        """Tell the command line where this server listens."""
        address = ServerAddress(url=url, certificate=None if certificate is None else str(certificate))
        write_address(self._settings.data_dir, address)

    def dispatchers(self) -> dict[tuple[str, str], Dispatcher]:
        """Of every deployment, by the names of its endpoint and its own: what serves, or else what loads its model."""
        serving = {
            (endpoint.name, name): each.dispatcher
            for endpoint in self.routes.all()
            for name, each in endpoint.deployments.items()
            if each is not None
        }
        return {**self._starter.starting, **serving}

    def has(self, place: metrics.Place) -> bool:
        """Whether there is that endpoint, with that deployment if one is named."""
        return any(
            each.name == place[0] and (not place[1] or place[1] in each.deployments) for each in self.routes.all()
        )

    @property
    def is_behind(self) -> bool:
        """Whether this gateway, which has started a while ago, still loads what others may serve."""
        return self.gateways.standing.has_others and not self._reconciler.is_restored

    async def start(self) -> None:
        await self.gateways.start()
        await self._reconciler.start()

    def _note(self, _: News) -> None:
        self._reconciler.wake()
        is_alone = not self.gateways.standing.alive or not self.gateways.standing.has_others
        if not is_alone and self._settings.image_store_url is None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "links to pictures open only at the gateway that made them; give all gateways of the database the same "
                "SAFELIGHT_IMAGE_STORE_URL"
            )

    async def drain(self) -> None:
        """Refuse what is new, let every deployment finish what it has, and end the replicas."""
        self.routes.refuse_new()
        self.gateways.resign()
        await self._reconciler.stop()

    async def stop(self) -> None:
        """`drain`, and let go of the database and the data directory."""
        await self.drain()
        await self.gateways.stop()
        self._held.close()

    def gateway(self, app: ASGIApp, own: Dispatcher, requests: metrics.RequestMetrics) -> EndpointGateway:
        """The application with endpoints in front of it; `own` serves its model."""

        def read_status() -> JsonObject:
            standing = self.gateways.standing
            return status_of(standing, own, self.routes.all(), self.dispatchers(), requests.latency_of)

        return EndpointGateway(
            app,
            routes=self.routes,
            arm=create_arm_app(self.plane, self._settings, read_status),
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
    pictures = [dialect.create_router(served) for dialect in dialects.PICTURES]
    for router in (
        *pictures,
        health.create_router(dispatcher, disk),
        web_model.create_router(dispatcher, is_endpoint=True),
        metrics.create_router(registry),
    ):
        app.include_router(router)
    app.add_middleware(DirectRoutes, routers=pictures)
    install_handlers(app, Exception)  # of what no one foresaw too: clients read JSON, and the edge still logs it
    return app


def create_arm_app(plane: ControlPlane, settings: Settings, read_status: ReadStatus = dict) -> FastAPI:
    """The control plane's routes; its OpenAPI document is the reference of them."""
    dialect = dialects.CONTROL_PLANE
    app = FastAPI(
        title=f"Safelight: {dialect.title}", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.include_router(dialect.create_router(azure.Workspace(plane, settings)))
    app.include_router(status.create_router(read_status))
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
    except OSError as error:
        raise ConfigurationError(
            f"data_dir {data_dir} cannot be written: {error.strerror}; give another --data-dir"
        ) from None
    return _lock_file(
        data_dir / "lock",
        f"another server uses data_dir {data_dir}; give this one a --data-dir of its own, or set "
        "SAFELIGHT_ONLINE_ENDPOINTS=false",
    )


def _lock_database(path: Path) -> TextIO:
    return _lock_file(
        path.with_name(f"{path.name}-lock"),
        f"another server uses the database {path}; SQLite is for one of them: give this one a database of its own, or "
        "all of them a PostgreSQL (docs/scaling.md)",
    )


def _lock_file(path: Path, if_taken: str) -> TextIO:
    """Raises ConfigurationError."""
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}; give another --data-dir") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigurationError(if_taken) from None
    with suppress(OSError):  # for people only, and a full disk is no reason not to start
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
    return file


def _share_files(database: Database, cipher: Cipher, data_dir: Path) -> None:
    """The administrator's token, and what signs links to pictures, webhooks and the names of jobs' owners."""
    read_admin_token(data_dir)
    JobSecrets(data_dir)
    make_key(data_dir / LINKS_KEY_FILE)
    share_files(database, cipher, [data_dir / name for name in (ADMIN_TOKEN_FILE, JOB_SECRET_FILE, LINKS_KEY_FILE)])


def _secret(value: _HasSecret | None) -> str | None:
    return None if value is None else value.get_secret_value()
