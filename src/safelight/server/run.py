"""Runs the server: binds the address, loads the model, says what is served, and stops when asked to."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from safelight import __version__
from safelight.errors import ConfigurationError, SafelightError
from safelight.model.spec import ModelSpec
from safelight.server.app import create_app
from safelight.server.certificates import certificate_files
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.server.http.listener import Server, raise_descriptor_limit
from safelight.server.pace import OF_SERVE, pace_warning
from safelight.serving.backends.registry import find_factory
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.start import create_dispatcher
from safelight.settings import Settings
from safelight.telemetry.log_lines import ACCESS_LOG, TextFormatter, handler_for, log_everything

logger = logging.getLogger(__name__)

EXAMPLE_PROMPT = "Astronaut riding a horse"


def serve(settings: Settings, folder: Path, spec: ModelSpec) -> None:
    """Serve the model in `folder` until SIGTERM or SIGINT. Raises ConfigurationError, or why the model cannot load."""
    console = Console(emoji=False, highlight=False, soft_wrap=True, quiet=settings.log_format == "json")
    configure_logging(settings, console)
    if settings.log_format == "text":
        _serve_on(settings, folder, spec, console)
        return
    try:
        _serve_on(settings, folder, spec, console)
    except SafelightError as error:
        logger.critical("%s", error.message)
        sys.exit(1)


def _serve_on(settings: Settings, folder: Path, spec: ModelSpec, console: Console) -> None:
    raise_descriptor_limit()
    create_replicas = find_factory(settings)
    with _bind(settings) as listener:
        online = OnlineEndpoints(settings, create_replicas) if settings.online_endpoints else None
        dispatcher = create_dispatcher(create_replicas, settings, folder, spec)
        asyncio.run(_serve(settings, listener, dispatcher, online, console))


async def _serve(
    settings: Settings,
    listener: socket.socket,
    dispatcher: Dispatcher,
    online: OnlineEndpoints | None,
    console: Console,
) -> None:
    if online is not None:
        certificate = certificate_files(settings)[0] if settings.tls else None
        online.announce(settings.public_url or _url(settings, listener), certificate)
    server = _Server(create_app(settings, dispatcher, online), settings)
    gc.collect()
    gc.enable()
    gc.freeze()  # what is there for good is not looked through again: a full collection stopped all requests for 0.1 s
    stop_asked = _catch_signals(server)
    tasks = (
        asyncio.create_task(_announce(settings, listener, dispatcher, server, console)),
        asyncio.create_task(
            _stop_when_asked(stop_asked, dispatcher, online, server, timeout_s=settings.drain_timeout_s)
        ),
    )
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    error = next((outcome for outcome in outcomes if isinstance(outcome, SafelightError)), None)
    if error is not None and not stop_asked.is_set():
        raise error


class _Server(Server):
    """Not uvicorn's way with signals: it would cancel what is running, and we let that finish first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _catch_signals(server: Server) -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets; a second one ends the server at once."""
    stop_asked = asyncio.Event()

    def stop() -> None:
        if stop_asked.is_set():
            logging.getLogger("uvicorn.error").disabled = True  # the traceback of what is cut off
            server.should_exit = server.force_exit = True
        stop_asked.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stop)
    return stop_asked


async def _stop_when_asked(
    stop_asked: asyncio.Event,
    dispatcher: Dispatcher,
    online: OnlineEndpoints | None,
    server: Server,
    *,
    timeout_s: float,
) -> None:
    """Refuse what is new and finish what was admitted; only then take the server itself down."""
    await stop_asked.wait()
    logger.info("stopping: what is running may finish within %g s", timeout_s)
    draining = [dispatcher.drain(timeout_s)] if online is None else [dispatcher.drain(timeout_s), online.drain()]
    await asyncio.gather(*draining)
    server.should_exit = True


async def _announce(
    settings: Settings, listener: socket.socket, dispatcher: Dispatcher, server: Server, console: Console
) -> None:
    """Wait for the model and say what is served; if it cannot load, stop the server."""
    if not console.is_terminal:
        console.print(f"Loading {dispatcher.spec.name} ...", markup=False)
    try:
        with console.status(f"Loading {escape(dispatcher.spec.name)} ..."):
            await dispatcher.wait_until_ready()
    except SafelightError:
        server.should_exit = True
        raise
    slow = pace_warning(dispatcher.spec, dispatcher.picture_s, timeout_s=settings.request_timeout_s, remedy=OF_SERVE)
    if slow is not None:
        logger.warning("%s", slow)
    url = _url(settings, listener)
    if console.quiet:
        logger.info("serving %s at %s", dispatcher.spec.name, url)
    console.print(_banner(settings, dispatcher.spec, url), markup=False)


def _banner(settings: Settings, spec: ModelSpec, url: str) -> str:
    has_key = settings.read_api_key() is not None
    key = "send your key as 'Authorization: Bearer <key>'" if has_key else "no key needed on loopback"
    header = " -H 'Authorization: Bearer <key>'" if has_key else ""
    body = f'{{"inputs": "{EXAMPLE_PROMPT}"}}'
    trust = f" --cacert {certificate_files(settings)[0]}" if settings.tls else ""
    size = f"{spec.default_width}x{spec.default_height}, {spec.default_num_inference_steps} steps"
    return (
        f"\nSafelight {__version__}\n"
        f"Serving {spec.name} ({size}) at {url} ({key})\n\n"
        f"  curl {url}/{trust}{header} -H 'Content-Type: application/json' -d '{body}' -o astronaut.png\n\n"
        f"OpenAI API at {url}/v1, every route at {url}/docs. Ctrl+C stops.\n"
    )


def _bind(settings: Settings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigurationError(f"host {settings.host!r} is no address of this machine: {error.strerror}") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigurationError(_why_not_bound(settings, error)) from None
    return listener


def _why_not_bound(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {settings.port} on {settings.host} is in use; choose another with --port, or 0 for a free one"
    return f"cannot listen on port {settings.port} of {settings.host}: {error.strerror}"


def _url(settings: Settings, listener: socket.socket) -> str:
    """Where a client on this machine reaches us: the address that means all of them is none to connect to."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    scheme = "https" if settings.tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def configure_logging(settings: Settings, console: Console) -> None:
    """To standard error as lines; on a terminal through the console, which keeps them off its spinner."""
    handler = handler_for(settings.log_format)
    if settings.log_format == "json":
        log_everything()
    elif console.is_terminal:
        handler = RichHandler(console=console, show_path=False)
        handler.setFormatter(TextFormatter(has_time=False))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    silence_pillow()
    for name in ("alembic", "uvicorn.error", "asyncio", "httpx", "httpcore", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.getLogger(ACCESS_LOG).addFilter(_drop_query)


def silence_pillow() -> None:
    """It writes two lines for each tag of an upload's EXIF that is wrong, and a file has 65,535 of them."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _drop_query(record: logging.LogRecord) -> bool:
    """A URL's query may be the signature of a link, or a prompt: what was asked for is logged without it."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, target, version, status = record.args
        record.args = (client, method, str(target).partition("?")[0], version, status)
    return True
