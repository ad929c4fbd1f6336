"""How a connection ends whose client is still sending."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from safelight.server.http.lingering_transport import LingeringTransport
from tests.fakes import DEADLINE_S


async def connect() -> tuple[LingeringTransport, socket.socket]:
    """The server's end, whose client counts as still sending, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=DEADLINE_S)
        accepted, _ = listener.accept()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, accepted)
    return LingeringTransport(transport, is_sending=lambda: True), client


@pytest.mark.anyio
async def test_the_client_reads_the_end_and_can_still_send() -> None:
    transport, client = await connect()
    with client:
        transport.write(b"answer")
        transport.close()

        assert client.recv(100) == b"answer"
        assert client.recv(100) == b""
        client.sendall(b"the rest")
        assert transport.is_closing()
    transport.abort()


@pytest.mark.anyio
async def test_a_client_that_has_left_meanwhile_is_no_error() -> None:
    transport, client = await connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # it resets the connection, and the loop has had no turn to hear of it

    transport.close()

    assert transport.is_closing()
    await asyncio.sleep(0)
