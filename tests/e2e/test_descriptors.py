"""The real server, few descriptors, many silent clients: who asks for a picture gets it, and the log stays short."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.e2e.pictures import open_picture
from tests.e2e.processes import Server, running_server

NUM_SILENT = 400


@contextmanager
def silent_clients(server: Server, sent: bytes) -> Iterator[None]:
    port = int(server.url.rsplit(":", 1)[1])
    clients = []
    try:
        for _ in range(NUM_SILENT):
            clients.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            clients[-1].sendall(sent)
        yield
    finally:
        for each in clients:
            each.close()


def test_hundreds_of_silent_clients_lock_nobody_out_of_a_server_with_few_descriptors() -> None:
    with running_server("--num-threads", "1", shell="ulimit -Sn 64; ulimit -Hn 256") as server:
        num_lines = len(server.output)
        for sent in (
            b"",
            b"G",
            b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        ):
            with silent_clients(server, sent):
                picture = httpx.post(f"{server.url}/", json={"inputs": "a cat"}, timeout=60)
                assert open_picture(picture.content).size == (256, 256)
        lines = server.output[num_lines:]

    assert any("max_connections is 1024, but 256 descriptors leave room for 192" in line for line in server.output)
    assert len([line for line in lines if "WARNING" in line or "ERROR" in line]) < 60
    assert "Traceback" not in server.text


def test_a_server_that_is_out_of_descriptors_says_so_now_and_then_and_goes_on() -> None:
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(170)]
    try:
        with (
            running_server("--num-threads", "1", shell="ulimit -n 256", inherited=taken) as server,
            silent_clients(server, b""),
        ):
            picture = httpx.post(f"{server.url}/", json={"inputs": "a cat"}, timeout=60)
            assert open_picture(picture.content).size == (256, 256)
    finally:
        for each in taken:
            os.close(each)

    told = [line for line in server.output if "Too many open files" in line]
    assert 1 <= len(told) < 60
    assert "Traceback" not in server.text
