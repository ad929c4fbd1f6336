"""`python -m tests.warm.forks heavy|light SOCKET`: forks one for each who asks, until the process of the run ends."""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

MAX_BYTES = 1024 * 1024
MAX_FDS = 1024
LISTENS = 3
"""The descriptor that is closed to say so."""
IMPORTED = {
    "heavy": (
        "safelight.engine.engine",
        "safelight.engine.families.flux1.family",
        "safelight.serving.replica.process",
    ),
    "light": (
        *("PIL.Image", "cryptography.fernet", "httpx", "msgspec", "numpy", "pydantic_settings", "psycopg"),
        *("rich.markup", "rich.progress", "rich.table", "sqlalchemy", "typer", "yaml", "asyncio", "alembic.command"),
        *("fastapi_offline", "fsspec.implementations.local", "prometheus_client", "uvicorn"),
        *("safelight.api.dialects", "safelight.control.endpoints.reconciler", "safelight.server.http.listener"),
        *("safelight.server.auth", "safelight.server.health", "safelight.server.web.page", "tests.fakes"),
    ),
}
"""Light is what has no torch, nor reads the environment when it is imported, as huggingface_hub does."""
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "OPENBLAS_NUM_THREADS": "1"}
"""Read when torch is imported: what a replica finds in its own environment."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A process, and who asked for it: the end of either ends the other."""

    pid: int
    asker: socket.socket
    end: int
    """The descriptor by which the end of the process is told."""


def main() -> None:
    kind, path = sys.argv[1:]
    owner = os.pidfd_open(int(os.environ["WARM_OWNER"]))
    os.environ |= WAITING
    for module in IMPORTED[kind]:
        import_module(module)
    assert kind == "heavy" or "huggingface_hub" not in sys.modules
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen(100)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(owner, selectors.EVENT_READ)
        os.close(LISTENS)
        while True:
            # What has ended is buried first: who starts it anew finds nothing of it.
            for key, _ in sorted(selector.select(), key=lambda event: event[0].data is None):
                if key.fd == owner:
                    for each in list(selector.get_map().values()):
                        if each.data is not None and each.fd == each.data.end:
                            finish(each.data, selector)
                    return
                if key.data is None:
                    begin(listener.accept()[0], selector)
                elif selector.get_map().get(key.fd) == key:  # else the other end of it was seen first
                    attend(key.data, selector, is_over=key.fd == key.data.end)


def begin(asker: socket.socket, selector: selectors.BaseSelector) -> None:
    message, fds, _, _ = socket.recv_fds(asker, MAX_BYTES, 4)
    pid = os.fork()
    if pid == 0:
        become(*json.loads(message), fds)
    for fd in fds:
        os.close(fd)
    fork = Fork(pid, asker, os.pidfd_open(pid))
    selector.register(asker, selectors.EVENT_READ, fork)
    selector.register(fork.end, selectors.EVENT_READ, fork)


def attend(fork: Fork, selector: selectors.BaseSelector, *, is_over: bool) -> None:
    """A signal to pass on, or an end."""
    number = b""
    if not is_over:
        with suppress(ConnectionResetError):
            number = fork.asker.recv(1)
    if not number:
        finish(fork, selector)
        return
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fork.end, number[0])


def finish(fork: Fork, selector: selectors.BaseSelector) -> None:
    """It has ended, or who asked for it has, and then it is killed."""
    selector.unregister(fork.asker)
    selector.unregister(fork.end)
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fork.end, signal.SIGKILL)  # nothing happens to what has ended
    _, status = os.waitpid(fork.pid, 0)
    with suppress(BrokenPipeError):
        fork.asker.send(str(status).encode())
    fork.asker.close()
    os.close(fork.end)


def become(module: str, argv: list[str], folder: str, environment: dict[str, str], fds: list[int]) -> None:
    """Does not return."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, fd in enumerate(fds):  # which are greater than these: the listener's and others came before
        os.dup2(fd, number)
    os.closerange(len(fds), MAX_FDS)
    sys.argv = argv
    status = run(import_module(module).main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run(main: Callable[[], None]) -> int:
    """To its end, with what Python does then. Returns the exit status."""
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001  it is on its own now
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    atexit._run_exitfuncs()
    return status


if __name__ == "__main__":
    main()
