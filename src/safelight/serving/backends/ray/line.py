"""A gateway's line to the actor of a replica: messages there in order, messages back as they come, over actor calls."""

from __future__ import annotations

import asyncio
from typing import Any

from safelight.errors import ReplicaLost
from safelight.serving.backends.ray.frames import ActorMessage, actor_messages
from safelight.serving.messages import GatewayMessage, encode_frame, split_frames

ANSWER_TIMEOUT_S = 15.0
"""An actor answers within `actor.POLL_S`: one that has said nothing for so long hangs, or its node does."""
MAX_INLINE_BYTES = 100_000
"""Ray puts more than that into its object store, which may have to make room: not in the event loop."""


class Line:
    """One gateway and one life of an actor. When either call fails, `receive` raises, and the line is over."""

    def __init__(self, actor: Any, gateway: str) -> None:
        self._actor = actor
        self._gateway = gateway
        self._unsent: list[bytearray] = []
        self._has_unsent = asyncio.Event()
        self._sender = asyncio.create_task(self._send_all(), name=f"sender of {gateway}")

    @property
    def num_unsent_bytes(self) -> int:
        return sum(map(len, self._unsent))

    def send(self, message: GatewayMessage) -> None:
        """Without waiting; what is said while a call is on its way goes with the next one."""
        self._unsent.append(encode_frame(message))
        self._has_unsent.set()

    async def receive(self) -> list[ActorMessage]:
        """What has come. Raises ReplicaLost, TimeoutError, or what Ray raises."""
        answer = asyncio.ensure_future(answer_of(self._actor.receive.remote(self._gateway)))
        try:
            await asyncio.wait((answer, self._sender), return_when=asyncio.FIRST_COMPLETED)
            if self._sender.done():
                self._sender.result()
            frames = await answer
        finally:
            answer.cancel()
        if frames is None:
            raise _forgotten()
        return split_frames(frames, actor_messages)

    async def close(self) -> None:
        self._sender.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)

    async def _send_all(self) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            frames, self._unsent = b"".join(self._unsent), []
            if len(frames) > MAX_INLINE_BYTES:
                reference = await asyncio.to_thread(self._actor.send.remote, self._gateway, frames)
            else:
                reference = self._actor.send.remote(self._gateway, frames)
            if not await answer_of(reference):
                raise _forgotten()


async def answer_of(reference: Any, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
    """What a call of an actor returns. Raises TimeoutError, or what Ray raises."""
    async with asyncio.timeout(timeout_s):
        return await reference


def _forgotten() -> ReplicaLost:
    return ReplicaLost("the replica has given up this server for gone, or has begun anew")
