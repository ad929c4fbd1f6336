"""Runs the server: binds the address, loads the model, says what is served, and stops when asked to."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from pathlib import Path

import uvicorn
from rich.console import Console

from safelight import __version__
from safelight.errors import ConfigurationError, SafelightError
from safelight.model_spec import ModelSpec
from safelight.server.app import create_app
from safelight.serving.deployment import create_dispatcher
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import Settings

EXAMPLE_PROMPT = "Astronaut riding a horse"


def serve(settings: Settings, folder: Path, spec: ModelSpec) -> None:
    """Serve the model in `folder` until SIGTERM or SIGINT. Raises ConfigurationError, or why the model cannot load."""
    _configure_logging(settings.log_level)
    with _bind(settings) as listener:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _ignore)  # uvicorn stops on either, then raises it again: that must not end us badly
        asyncio.run(_serve(settings, listener, create_dispatcher(settings, folder, spec)))


async def _serve(settings: Settings, listener: socket.socket, dispatcher: Dispatcher) -> None:
    config = uvicorn.Config(
        create_app(settings, dispatcher),
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain_timeout_s),
    )
    server = uvicorn.Server(config)
    announcing = asyncio.create_task(_announce(settings, listener, dispatcher, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        announcing.cancel()
        (outcome,) = await asyncio.gather(announcing, return_exceptions=True)
    if isinstance(outcome, SafelightError):
        raise outcome


async def _announce(
    settings: Settings, listener: socket.socket, dispatcher: Dispatcher, server: uvicorn.Server
) -> None:
    """Wait for the model and say what is served; if it cannot load, stop the server."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.print(f"Loading {dispatcher.spec.name} ...")
    try:
        with console.status(f"Loading {dispatcher.spec.name} ..."):
            await dispatcher.wait_until_ready()
    except SafelightError:
        server.should_exit = True
        raise
    console.print(_banner(settings, dispatcher.spec, _url(listener)), markup=False)


def _banner(settings: Settings, spec: ModelSpec, url: str) -> str:
    has_key = settings.read_api_key() is not None
    key = "send your key as 'Authorization: Bearer <key>'" if has_key else "no key needed on loopback"
    header = " -H 'Authorization: Bearer <key>'" if has_key else ""
    body = f'{{"inputs": "{EXAMPLE_PROMPT}"}}'
    size = f"{spec.default_width}x{spec.default_height}, {spec.default_num_inference_steps} steps"
    return (
        f"\nSafelight {__version__}\n"
        f"Serving {spec.name} ({size}) at {url} ({key})\n\n"
        f"  curl {url}/{header} -H 'Content-Type: application/json' -d '{body}' -o astronaut.png\n\n"
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


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _configure_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("uvicorn.error", "asyncio", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _ignore(*_: object) -> None:
    """Stay alive."""
