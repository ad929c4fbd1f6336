"""`python -m tests.e2e.warm.forks SOCKET`: forks a replica for each who asks, until its standard input ends."""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safelight.engine.engine
import safelight.engine.families.flux1.family  # noqa: F401
from safelight.serving.replica import process

MAX_BYTES = 1024 * 1024
MAX_FDS = 1024


@dataclass(frozen=True, slots=True)
class Fork:
    """A replica, and who asked for it: the end of either ends the other."""

    pid: int
    asker: socket.socket
    end: int
    """The descriptor by which the end of the process is told."""


def main() -> None:
    gc.freeze()
    path = Path(sys.argv[1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, selectors.DefaultSelector() as selector:
        listener.bind(str(path))
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    begin(listener.accept()[0], selector)
                elif selector.get_map().get(key.fd) == key:  # else the other end of it was seen first
                    finish(key.data, selector)


def begin(asker: socket.socket, selector: selectors.BaseSelector) -> None:
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MAX_BYTES)
    message, fds, _, _ = socket.recv_fds(asker, MAX_BYTES, 3)
    pid = os.fork()
    if pid == 0:
        become_replica(*json.loads(message), *fds)
    for fd in fds:
        os.close(fd)
    fork = Fork(pid, asker, os.pidfd_open(pid))
    selector.register(asker, selectors.EVENT_READ, fork)
    selector.register(fork.end, selectors.EVENT_READ, fork)


def finish(fork: Fork, selector: selectors.BaseSelector) -> None:
    """It has ended, or who asked for it has, and then it is killed."""
    selector.unregister(fork.asker)
    selector.unregister(fork.end)
    signal.pidfd_send_signal(fork.end, signal.SIGKILL)  # nothing happens to what has ended
    _, status = os.waitpid(fork.pid, 0)
    with suppress(BrokenPipeError):
        fork.asker.send(str(status).encode())
    fork.asker.close()
    os.close(fork.end)


def become_replica(folder: str, environment: dict[str, str], fd: int, stdout: int, stderr: int) -> None:
    """Does not return."""
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.dup2(fd, 3)
        os.closerange(4, MAX_FDS)
        sys.argv = ["replica", "--fd", "3"]
        process.main()
    except BaseException:  # noqa: BLE001  it is on its own now
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
