"""`python -m tests.e2e.warm.forks replica|command SOCKET`: forks one for each who asks, until standard input ends."""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

MAX_BYTES = 1024 * 1024
MAX_FDS = 1024
IMPORTED = {
    "replica": (
        "safelight.engine.engine",
        "safelight.engine.families.flux1.family",
        "safelight.serving.replica.process",
    ),
    "command": (
        *("PIL.Image", "cryptography.fernet", "httpx", "msgspec", "numpy", "pydantic_settings"),
        *("rich.markup", "rich.progress", "rich.table", "sqlalchemy", "typer", "yaml", "asyncio", "safelight.errors"),
    ),
}
"""Of a command nothing that reads the environment when it is imported, as huggingface_hub does: each has its own."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A process, and who asked for it: the end of either ends the other."""

    pid: int
    asker: socket.socket
    end: int
    """The descriptor by which the end of the process is told."""


def main() -> None:
    kind, path = sys.argv[1:]
    for module in IMPORTED[kind]:
        import_module(module)
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    begin(kind, listener.accept()[0], selector)
                elif selector.get_map().get(key.fd) == key:  # else the other end of it was seen first
                    finish(key.data, selector)


def begin(kind: str, asker: socket.socket, selector: selectors.BaseSelector) -> None:
    message, fds, _, _ = socket.recv_fds(asker, MAX_BYTES, 4)
    pid = os.fork()
    if pid == 0:
        become(kind, *json.loads(message), fds)
    for fd in fds:
        os.close(fd)
    fork = Fork(pid, asker, os.pidfd_open(pid))
    selector.register(asker, selectors.EVENT_READ, fork)
    selector.register(fork.end, selectors.EVENT_READ, fork)


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


def become(kind: str, argv: list[str], folder: str, environment: dict[str, str], fds: list[int]) -> None:
    """Does not return."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, fd in enumerate(fds):  # which are greater than these: the listener's and others came before
        os.dup2(fd, number)
    os.closerange(len(fds), MAX_FDS)
    sys.argv = argv
    status = run(entry(kind))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def entry(kind: str) -> Callable[[], None]:
    module = "safelight.serving.replica.process" if kind == "replica" else "safelight.cli.main"
    main: Callable[[], None] = import_module(module).main
    return main


def run(main: Callable[[], None]) -> int:
    """To its end, with what Python does then. Returns the exit status."""
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  it is on its own now
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    return status


if __name__ == "__main__":
    main()
