"""In a replica, or in a command: a fork of `forks` does its work and has its end, so that who started it sees no other.

Python imports this before all else, of the first folder in PYTHONPATH. It costs a few milliseconds.
"""
# ruff: noqa: PLC0415  whatever else starts Python there pays for nothing

import os
import sys


def _hand_over(place: str, argv: list[str], fds: list[int]) -> None:
    """Does not return. The descriptors are the fork's 0, 1, 2 and so on."""
    import json
    import signal
    import socket

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # as a replica does; who wants to interrupt a command starts it COLD
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as forks:
        forks.connect(place)
        socket.send_fds(forks, [json.dumps([argv, os.getcwd(), dict(os.environ)]).encode()], fds)
        for fd in fds[3:]:
            os.close(fd)  # a replica's socket is the fork's alone: the gateway shall see it end
        status = os.waitstatus_to_exitcode(int(forks.recv(16) or 256))
    if status >= 0:
        os._exit(status)
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)


if "WARM_REPLICAS" in os.environ and sys.orig_argv[1:4] == ["-m", "safelight.serving.replica.process", "--fd"]:
    _hand_over(os.environ["WARM_REPLICAS"], ["replica", "--fd", "3"], [0, 1, 2, int(sys.orig_argv[4])])
elif "WARM_COMMANDS" in os.environ and "".join(sys.orig_argv[1:2]).endswith("/safelight"):
    _hand_over(os.environ["WARM_COMMANDS"], sys.orig_argv[1:], [0, 1, 2])
