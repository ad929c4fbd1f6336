"""How connections are taken, by a server that has nothing to say."""

from __future__ import annotations

import asyncio
import socket

from starlette.types import Receive, Scope, Send

from safelight.server.http.connections import ClientConnection
from safelight.server.http.listener import Server
from safelight.settings import Settings
from tests.fakes import until


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"Ok"})


def test_what_is_sent_does_not_wait_for_the_client_to_acknowledge_what_was_sent_before() -> None:
    async def take() -> int:
        server = Server(answer, Settings())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started or serving.done())
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"Ok")
            (connection,) = server.server_state.connections
            assert isinstance(connection, ClientConnection)
            option: int = connection.transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY
            )
            writer.close()
            server.should_exit = True
            await serving
            return option

    assert asyncio.run(take()) != 0
