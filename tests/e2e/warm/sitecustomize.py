"""In a replica's command: the fork of `forks` does its work and has its end, so that whoever started it sees no other.

Python imports this before all else, of the first folder in PYTHONPATH. It costs a few milliseconds.
"""

import os
import sys

if "WARM_REPLICAS" in os.environ and sys.orig_argv[1:4] == ["-m", "safelight.serving.replica.process", "--fd"]:
    import json
    import signal
    import socket

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # as the replica does
    fd = int(sys.orig_argv[4])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as forks:
        forks.connect(os.environ["WARM_REPLICAS"])
        socket.send_fds(forks, [json.dumps([os.getcwd(), dict(os.environ)]).encode()], [fd, 1, 2])
        os.close(fd)  # the fork's alone: when that ends, the gateway shall see it
        status = os.waitstatus_to_exitcode(int(forks.recv(16) or 1))
    if status >= 0:
        os._exit(status)
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
