"""In a replica, a server or a command: a fork of `forks` does its work and has its end; who started it sees no other.

Python imports this before all else, of the first folder in PYTHONPATH. It costs a few milliseconds.
"""
# ruff: noqa: PLC0415  whatever else starts Python there pays for nothing

import os
import sys

REPLICAS = ("safelight.serving.replica.process", "tests.second_family.replica")


def _wanted(argv: list[str]) -> tuple[str, str, list[str], int | None] | None:
    """Of a process that can be forked: off what, to run which module, its arguments, and the descriptor it inherits."""
    if argv[1:2] == ["-m"] and argv[2] in REPLICAS and argv[3:4] == ["--fd"]:
        return "heavy", argv[2], ["replica", "--fd", "3"], int(argv[4])
    if "".join(argv[1:2]).endswith("/tests/fakes.py") and argv[3:4] == ["--fd"]:
        return "light", "tests.fakes", [*argv[1:3], "--fd", "3"], int(argv[4])
    if argv[1:] == ["-m", "tests.online_server"]:
        return "light", "tests.online_server", argv[2:], None
    if "".join(argv[1:2]).endswith("/bin/safelight"):
        return "light", "safelight.cli.main", argv[1:], None
    return None


def _is_limited() -> bool:
    """Limits are a process's own: who has been given some does without a fork."""
    import resource

    unlimited = resource.RLIM_INFINITY
    growing = [resource.getrlimit(each)[0] for each in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS)]
    return growing != [unlimited, unlimited] or resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1024


def _hand_over(kind: str, module: str, argv: list[str], inherited: int | None) -> None:
    """Does not return. The descriptors are the fork's 0, 1, 2 and so on."""
    import json
    import signal
    import socket

    with _connected(kind) as forks:
        for number in (signal.SIGINT, signal.SIGTERM):
            if inherited is None:
                signal.signal(number, lambda number, _: forks.send(bytes([number])))
            else:
                signal.signal(number, signal.SIG_IGN)  # as a replica does
        fds = [0, 1, 2] if inherited is None else [0, 1, 2, inherited]
        socket.send_fds(forks, [json.dumps([module, argv, os.getcwd(), dict(os.environ)]).encode()], fds)
        for fd in fds[3:]:
            os.close(fd)  # a replica's socket is the fork's alone: the gateway shall see it end
        status = os.waitstatus_to_exitcode(int(forks.recv(16) or 256))
    if status >= 0:
        os._exit(status)
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)


def _connected(kind):  # the type is of a module that nobody else needs
    """The socket of what forks. Whoever comes first has it started, and the others wait until it listens."""
    import fcntl
    import socket
    from contextlib import suppress

    forks, path = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), f"{os.environ['WARM_FORKS']}/{kind}"
    with suppress(FileNotFoundError, ConnectionRefusedError):
        forks.connect(path)
        return forks
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            _start(kind, path)
    forks.connect(path)
    return forks


def _start(kind: str, path: str) -> None:
    """A process that is nobody's child, and says that it listens by closing a pipe."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _become_forks(kind, path, writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.wait()
    os.read(reader, 1)
    os.close(reader)


def _become_forks(kind: str, path: str, writer: int) -> None:
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT)
    for number, fd in enumerate((os.open(os.devnull, os.O_RDONLY), log, log, writer), 900):
        os.dup2(fd, number)
    for number in range(4):
        os.dup2(900 + number, number)
    os.closerange(4, 1024)
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    os.execv(sys.executable, [sys.executable, "-m", "tests.warm.forks", kind, path])


if "WARM_FORKS" in os.environ and (wanted := _wanted(sys.orig_argv)) and not _is_limited():
    _hand_over(*wanted)
