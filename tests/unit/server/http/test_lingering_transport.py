"""How a connection ends whose client is still sending."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from safelight.server.http.lingering_transport import WRITE_BYTES, LingeringTransport
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


class Written(asyncio.Transport):
    """Each write as it came."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._is_closing
        self.pieces.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    abort = close


def over(written: Written) -> LingeringTransport:
    return LingeringTransport(written, is_sending=lambda: False)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"


@pytest.mark.anyio
async def test_an_answers_head_goes_with_its_body_and_alone_if_there_is_none_yet() -> None:
    written = Written()
    transport = over(written)

    transport.write(HEAD)
    transport.write(b"abc")
    transport.write(HEAD)
    await asyncio.sleep(0)
    transport.write(b"abc")

    assert written.pieces == [HEAD + b"abc", HEAD, b"abc"]


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 3, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_all_is_written_in_order_before_the_end_whatever_comes_after_the_head(size: int, how: str) -> None:
    written = Written()
    transport = over(written)

    transport.write(HEAD)
    transport.write(bytes(size))
    transport.write(b"the end")
    transport.write(HEAD)
    getattr(transport, how)()
    await asyncio.sleep(0)

    assert b"".join(written.pieces) == HEAD + bytes(size) + b"the end" + HEAD
    assert max(map(len, written.pieces)) <= WRITE_BYTES


@pytest.mark.anyio
async def test_a_head_that_waits_counts_as_not_taken() -> None:
    transport = over(Written())

    transport.write(HEAD)

    assert transport.get_write_buffer_size() == len(HEAD)
